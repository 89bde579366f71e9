"""Another process that claims: a program that takes orders on stdin, and the handle to it for tests."""

import functools
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
import types
import typing as tp
from collections.abc import Callable
from pathlib import Path

from exca import _files
from exca.claims import Claim, Claims, Owner, claimfile

CALLS = ("open", "write", "close", "replace", "unlink", "listdir", "lseek", "makedirs")


def claim_files(folder: Path) -> list[Path]:
    """All claim files in a folder, drafts of them as well."""
    return [path for path in folder.iterdir() if ".claim" in path.name] if folder.exists() else []


class Claimant:
    """A process that claims in a folder.

    Parameters
    ----------
    folder
        where it claims
    host
        the host that it believes to be on
    heartbeat
        seconds between two beats
    """

    def __init__(self, folder: Path, host: str = "", heartbeat: float = 5.0) -> None:
        env = {**os.environ, "EXCA_HEARTBEAT": str(heartbeat)}
        if host:
            env["EXCA_HOST_ID"] = host
        pipe = subprocess.PIPE
        args = [sys.executable, __file__, str(folder)]
        self.process = subprocess.Popen(args, stdin=pipe, stdout=pipe, text=True, env=env)
        self.pid = self.process.pid

    def send(self, do: str, **arguments: tp.Any) -> None:
        """Give an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> tp.Any:
        """What came of the last order; None when the process died over it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line.endswith("\n") else None

    def has_answer(self) -> bool:
        """Whether an answer lies there."""
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def ask(self, do: str, **arguments: tp.Any) -> tp.Any:
        """Give an order and return what came of it."""
        self.send(do, **arguments)
        return self.answer()

    def signal(self, number: int) -> None:
        """Send a signal; a stop is waited for."""
        os.kill(self.pid, number)
        if number == signal.SIGSTOP:
            self.wait_stopped()

    def wait_stopped(self) -> bool:
        """Wait until it is stopped; False when it ended instead."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.process.returncode = os.waitstatus_to_exitcode(status)
        return os.WIFSTOPPED(status)

    def kill(self) -> None:
        """End it the hard way, and leave no zombie."""
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        """End it and close the pipes."""
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass


class Fault:
    """Kills or stops this process before its n-th file operation on claims."""

    def __init__(self) -> None:
        self.count = 0
        self.at = 0
        self.number = signal.SIGKILL

    def install(self) -> None:
        proxy = types.SimpleNamespace(**{n: getattr(os, n) for n in dir(os)})
        for name in CALLS:
            setattr(proxy, name, self._watched(getattr(os, name)))
        for module in (claimfile, _files):
            module.__dict__["os"] = proxy

    def _watched(self, function: Callable[..., tp.Any]) -> Callable[..., tp.Any]:
        def call(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
            self.count += 1
            if self.count == self.at:
                os.kill(os.getpid(), self.number)
            return function(*args, **kwargs)

        return call


class Program:
    """What runs in the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.claims = Claims(folder)
        self.held: list[Claim] = []
        self.fault = Fault()

    def do_arm(self, at: int, stop: bool) -> int:
        self.fault.count, self.fault.at = 0, at
        self.fault.number = signal.SIGSTOP if stop else signal.SIGKILL
        self.fault.install()
        return 0

    def do_count(self) -> int:
        return self.fault.count

    def do_acquire(self, keys: list[str]) -> list[str]:
        claim, _ = self.claims.acquire(keys)
        if claim is not None:
            self.held.append(claim)
        return [] if claim is None else list(claim.keys)

    def do_release(self) -> int:
        for claim in self.held:
            claim.release()
        self.held = []
        return 0

    def do_token(self) -> str:
        return self.held[-1].token

    def do_is_valid(self) -> bool:
        return self.held[-1].is_valid()

    def do_announce(self, cluster: str) -> str:
        return self.held[-1].announce(cluster)

    def do_transfer_to(self, pid: int) -> bool:
        self.held[-1].transfer_to(Owner.for_job(cluster="local", job_id=str(pid)))
        return True

    def do_split(self, groups: list[list[str]]) -> list[str]:
        self.held = self.held.pop().split(groups)
        return [c.token for c in self.held]

    def do_adopt(self, token: str) -> list[str]:
        claim = self.claims.adopt(token, os.environ.get("SLURM_JOB_ID", ""))
        if claim is not None:
            self.held.append(claim)
        return [] if claim is None else list(claim.keys)

    def do_work(self, keys: list[str], seed: int) -> int:
        """Compute everything that is missing, until all is there."""
        rng, count = random.Random(seed), 0
        todo = list(keys)
        while todo := [k for k in todo if not (self.folder / f"{k}.done").exists()]:
            part = rng.sample(todo, rng.randint(1, len(todo)))
            claim, _ = self.claims.acquire(part)
            if claim is None:
                self.claims.wait(part, done=functools.partial(self._all_done, part))
                continue
            with claim:
                for key in claim.keys:
                    count += self._compute(key)
        return count

    def _all_done(self, keys: list[str]) -> bool:
        return all(map(self._done, keys))

    def _done(self, key: str) -> bool:
        return (self.folder / f"{key}.done").exists()

    def _compute(self, key: str) -> int:
        if self._done(key):
            return 0
        busy = self.folder / f"{key}.busy"
        try:
            with busy.open("x") as f:
                f.write(str(os.getpid()))
        except FileExistsError:
            other = int(busy.read_text() or 0)
            if other and Path(f"/proc/{other}").exists() and "\nState:\tZ" not in _status(other):
                (self.folder / "VIOLATION").write_text(f"{key} by {os.getpid()} and {other}")
            busy.write_text(str(os.getpid()))
        with (self.folder / f"{key}.log").open("a") as f:
            f.write(f"{os.getpid()}\n")
        time.sleep(0.0005)
        busy.unlink()
        (self.folder / f"{key}.done").touch()
        return 1

    def run(self) -> None:
        for line in sys.stdin:
            order = json.loads(line)
            result = getattr(self, f"do_{order.pop('do')}")(**order)
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "\nState:\tZ"


if __name__ == "__main__":
    Program(Path(sys.argv[1])).run()
