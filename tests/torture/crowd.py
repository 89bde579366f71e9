"""A crowd of workers that can be killed, stopped and waited for."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

from computing import now
from worker import Plan

from people import Person

HERE = Path(__file__).parent


class Zygote:
    """The process from which workers are forked.

    Parameters
    ----------
    env
        environment variables that it and its workers get besides the usual ones
    """

    def __init__(self, env: dict[str, str] | None = None) -> None:
        self.process = self._start({"EXCA_LOG_LEVEL": "ERROR", **(env or {})})

    def _start(self, env: dict[str, str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(HERE / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )

    def _ask(self, order: dict[str, tp.Any]) -> tp.Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def spawn(self, plan: Plan) -> int:
        """Start a worker, return its pid."""
        return int(self._ask({"plan": dataclasses.asdict(plan)}))

    def ended(self) -> dict[int, int]:
        """Exit codes of the workers that have ended since the last time, by pid."""
        return {int(pid): code for pid, code in self._ask({}).items()}

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class PersonsZygote(Zygote):
    """The same, of another user.

    Parameters
    ----------
    person
        who
    home
        folder of that user
    """

    def __init__(self, person: Person, home: Path) -> None:
        self._person, self._home = person, home
        super().__init__()

    def _start(self, env: dict[str, str]) -> "subprocess.Popen[str]":
        code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import zygote; zygote.main()"
        return self._person.talk_to(self._home, code, **env)

    def close(self) -> None:
        """End it."""
        super().close()
        assert self.process.stderr is not None
        self.process.stderr.close()


class Crowd:
    """Workers of one run.

    Parameters
    ----------
    place
        an empty folder for journal and outcomes
    rng
        decides who is hit, and when
    """

    def __init__(self, place: Path, rng: random.Random) -> None:
        self.place = place
        self.journal = place / "journal"
        self.journal.mkdir(parents=True)
        self.rng = rng
        self.alive: dict[int, tuple[Zygote, Plan]] = {}
        self.killed: dict[int, float] = {}
        self.failed: list[str] = []
        self.plans: list[Plan] = []
        self.stuck = 0

    def start(self, zygote: Zygote, **fields: tp.Any) -> int:
        """Start a worker; fields of its plan are given."""
        number = len(self.plans)
        out = str(self.place / f"{number}.json")
        plan = Plan(out=out, journal=str(self.journal), seed=self.rng.randrange(1 << 30), **fields)
        self.plans.append(plan)
        pid = zygote.spawn(plan)
        self.alive[pid] = (zygote, plan)
        return pid

    def reap(self) -> None:
        """Take note of those that have ended."""
        for zygote in {id(z): z for z, _ in self.alive.values()}.values():
            self._note(zygote.ended())

    def _note(self, codes: dict[int, int]) -> None:
        for pid, code in codes.items():
            found = self.alive.pop(pid, None)
            if found is not None and code != 0:
                log = Path(found[1].out + ".log").read_text()
                self.failed.append(f"worker {pid} ended with {code}:\n{log[-3000:]}")

    def kill(self, pid: int) -> None:
        """Kill a worker the hard way."""
        self.killed[pid] = now()
        os.kill(pid, signal.SIGKILL)
        zygote, _ = self.alive.pop(pid)
        while True:
            codes = zygote.ended()
            self._note(codes)
            if pid in codes:
                return
            time.sleep(0.001)

    def busy(self) -> list[int]:
        """Workers that are in the middle of a computation."""
        found = []
        for path in self.journal.iterdir():
            pid = int(path.name.partition("-")[0])
            if pid in self.alive:
                lines = path.read_bytes().splitlines()
                if lines and lines[-1][:1] == b"S":
                    found.append(pid)
        return found

    def join(self, seconds: float) -> None:
        """Wait until all have ended; those that have not by then are stuck, and say where."""
        deadline = now() + seconds
        while self.alive and now() < deadline:
            self.reap()
            time.sleep(0.005)
        self.stuck += len(self.alive)
        for pid, (_, plan) in list(self.alive.items()):
            os.kill(pid, signal.SIGUSR1)
            time.sleep(0.2)
            self.failed.append(f"worker {pid} is stuck:\n{Path(plan.out + '.log').read_text()[-3000:]}")
            self.kill(pid)

    def outcomes(self) -> dict[str, int]:
        """What the workers that were not killed have counted, together."""
        total: dict[str, int] = {}
        for plan in self.plans:
            if Path(plan.out).exists():
                counts = json.loads(Path(plan.out).read_text())
                if counts.pop("said", []) and counts["wrong"]:
                    self.failed.append(f"wrong answers, see {plan.out}")
                total = {name: total.get(name, 0) + count for name, count in counts.items()}
        return total
