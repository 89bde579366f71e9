"""A night on a cluster: trainings in packed arrays, while whatever can go wrong around them does.

``make night`` runs it (300 trainings, a quarter of an hour at most), `make long` a short form of it. A second test
cluster of Slurm is brought up for it, so that nothing else is disturbed.
"""

import argparse
import collections
import dataclasses
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import typing as tp
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import trainings  # noqa: E402 # it is a script's neighbour

PORT = 26917
SETTINGS = "MaxArraySize=1001 JobAcctGatherParams=OverMemoryKill"
COMMANDS = ("squeue", "sacct", "sbatch")
RETRY_ON = [
    "preempted",
    "node_fail",
    "launch_failure",
    "cancelled",
    "killed",
    "timeout",
    "out_of_memory",
]


class Cluster:
    """A test cluster of its own, and what can be done to it."""

    def __init__(self, state: Path, commands: Path) -> None:
        self.state, self.commands = state, commands
        self.environment = {
            **os.environ,
            "EXCA_SLURM_STATE": str(state),
            "EXCA_SLURM_PORT": str(PORT),
            "EXCA_SLURM_SET": SETTINGS,
            "SLURM_CONF": str(state / "etc" / "slurm.conf"),
        }
        self.random = random.Random(0)

    def up(self) -> None:
        subprocess.run([ROOT / "scripts/slurm/up.sh"], env=self.environment, check=True)
        self.commands.mkdir(exist_ok=True)
        for command in COMMANDS:
            real = subprocess.check_output(["which", command], text=True).strip()
            wrapper = self.commands / command
            fault = self.commands / f"{command}.fault"
            wrapper.write_text(
                f'#!/bin/bash\necho "$(date +%s.%N) $*" >> {self.commands}/{command}.calls\n'
                f'[ ! -e {fault} ] || . {fault}\nexec {real} "$@"\n'
            )
            wrapper.chmod(0o755)

    def down(self) -> None:
        subprocess.run([ROOT / "scripts/slurm/down.sh"], env=self.environment, check=False)

    def run(self, *command: str) -> str:
        """Run a command of Slurm itself; what it answers."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout

    def calls(self, command: str) -> int:
        """Return how often the submitter called a command."""
        try:
            return len((self.commands / f"{command}.calls").read_text().splitlines())
        except FileNotFoundError:
            return 0

    def running(self) -> list[str]:
        """Return the ids of the jobs of the trainings that run."""
        return self.run("squeue", "-h", "-p", "preempt", "-t", "R", "--array", "-o", "%i").split()

    # ------------------------------------------------------------ faults

    def preempt(self) -> str:
        """Let jobs of a higher partition take the nodes on which trainings run for a while."""
        nodes = sorted(set(self.run("squeue", "-h", "-p", "preempt", "-t", "R", "-o", "%N").split()))
        for node in nodes:
            self.run(
                "sbatch",
                "-p",
                "debug",
                "-w",
                node,
                "--exclusive",
                "--mem=0",
                "-o",
                "/dev/null",
                "--wrap",
                "sleep 4",
            )
        return f"preempted what runs on {', '.join(nodes)}" if nodes else ""

    def lose_node(self) -> str:
        """Take a node down, and up again."""
        nodes = self.run("squeue", "-h", "-p", "preempt", "-t", "R", "-o", "%N").split()
        if not nodes:
            return ""
        node = self.random.choice(nodes)
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=night")
        time.sleep(2)
        self.run("scontrol", "update", f"nodename={node}", "state=resume")
        return f"took {node} down and up"

    def cancel_job(self) -> str:
        """Cancel a job from outside."""
        running = self.running()
        if not running:
            return ""
        job = self.random.choice(running)
        self.run("scancel", job)
        return f"cancelled job {job}"

    def restart(self) -> str:
        """End the controller, and start it again after a while."""
        pid = int((self.state / "run/slurmctld.pid").read_text())
        os.kill(pid, signal.SIGTERM)  # it saves what it knows, as where a service is restarted
        while os.path.exists(f"/proc/{pid}"):
            time.sleep(0.1)
        time.sleep(3)
        path = f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
        subprocess.run(["slurmctld"], env={**self.environment, "PATH": path}, check=True)
        while "is UP" not in self.run("scontrol", "ping"):
            time.sleep(0.2)
        return "restarted slurmctld"

    def fault(self, command: str, *lines: str, seconds: float = 4.0) -> str:
        """Let a command of the submitter's fail for a while."""
        fault = self.commands / f"{command}.fault"
        fault.write_text("\n".join(lines) + "\n")
        time.sleep(seconds)
        fault.unlink()
        return f"{command}: {lines[0]}"

    def failing(self, command: str) -> str:
        """Let a command say that there is no controller."""
        said = "Unable to contact slurm controller (connect failure)"
        return self.fault(command, f"echo '{command}: error: {said}' >&2; exit 1")

    def lagging(self, command: str) -> str:
        """Let a command take long to answer."""
        return self.fault(command, "sleep 3")


@dataclasses.dataclass
class Night:
    """The submitter, what is done to it and its jobs, and what came of it all."""

    folder: Path
    environment: dict[str, str]  # of the submitter
    count: int
    length: float
    at_once: int
    infra: dict[str, tp.Any]
    submitter: subprocess.Popen[bytes] | None = None
    said: list[str] = dataclasses.field(default_factory=list)

    def submit(self) -> None:
        """Start the submitter, or start it again."""
        command = [
            sys.executable,
            str(HERE / "submitter.py"),
            *map(str, (self.folder, self.count, self.length, self.at_once)),
            json.dumps(self.infra),
        ]
        with (self.folder / "submitter.log").open("ab") as log:
            self.submitter = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def kill_submitter(self) -> str:
        """Kill the submitter, and start it again."""
        assert self.submitter is not None
        self.submitter.kill()
        self.submitter.wait()
        self.submit()
        return "killed the submitter and started it again"

    def running(self) -> list[tuple[int, int]]:
        """Return the trainings that run and their processes, those that began last first."""
        ended: set[tuple[int, int]] = set()
        began: dict[tuple[int, int], float] = {}
        for line in self.notes():
            key = (line["index"], line["pid"])
            if line["what"] == "began":
                began[key] = line["time"]
            else:
                ended.add(key)
        return sorted(began.keys() - ended, key=lambda key: -began[key])

    def kill_training(self) -> str:
        """Kill the process of a training."""
        for index, pid in self.running():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            return f"killed training {index}"
        return ""

    def notes(self) -> list[dict[str, tp.Any]]:
        return trainings.read_notes(self.folder / "notes.jsonl")

    def faults(self) -> list[Callable[[], str]]:
        """Return one fault of each kind, in an order of their own; each tells what it did, "" where it could not."""
        raise NotImplementedError

    def play(self, rounds: int, pause: float, until: float) -> list[str]:
        """Start the submitter and let the faults happen until it has ended; returns what came out wrong."""
        self.submit()
        if self.pass_time(rounds, pause, until):
            return list(self.wrong())
        assert self.submitter is not None
        self.submitter.kill()
        self.submitter.wait()
        return ["the submitter did not come to an end in time"]

    def report(self, wrong: list[str], start: float) -> int:
        """Print what came of the night, which started at a monotonic time; 1 if something came out wrong."""
        print((self.folder / "submitter.log").read_text()[-3000:])
        began = sum(line["what"] == "began" for line in self.notes())
        print(
            f"{self.count} trainings began {began} times under {len(self.said)} faults in "
            f"{time.monotonic() - start:.0f} s"
        )
        for line in wrong:
            print("WRONG:", line)
        print("wrong:", len(wrong))
        return 1 if wrong else 0

    def pass_time(self, rounds: int, pause: float, until: float) -> bool:
        """Let the faults happen while the trainings run; returns whether the submitter came to an end."""
        todo = [fault for _ in range(rounds) for fault in self.faults()]
        while time.monotonic() < until:
            assert self.submitter is not None
            if self.submitter.poll() is not None:
                return True
            if todo:
                what = todo[0]()
                if what:
                    todo.pop(0)
                    self.say(what)
            time.sleep(pause)
        return False

    def say(self, what: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {what}"
        self.said.append(what)
        print(line, flush=True)

    # ------------------------------------------------------------ what came of it

    def wrong(self) -> Iterator[str]:
        """Yield what is not as it should be."""
        assert self.submitter is not None
        if self.submitter.returncode:
            yield f"the submitter ended with {self.submitter.returncode}: see submitter.log"
        collected = self.folder / "collected.json"
        if not collected.exists():
            yield "nothing was collected"
            return
        found = {one["index"]: one for one in json.loads(collected.read_text())}
        for obj in trainings.trainings(self.count, self.folder, self.length, **self.infra):
            one = found.get(obj.index, {})
            if obj.kind == "wrong" and f"training {obj.index} diverges" not in one.get("error", ""):
                yield f"training {obj.index} is to fail by its own error, and gave {one}"
            if obj.kind != "wrong" and one.get("result") != obj.index * 1.5:
                yield f"training {obj.index} gave {one}"
        runs = collections.defaultdict(list)
        for line in self.notes():
            runs[line["index"]].append(line)
        for obj in trainings.trainings(self.count, self.folder, self.length, **self.infra):
            yield from overlaps(obj.index, runs[obj.index])
            began = sum(line["what"] == "began" for line in runs[obj.index])
            lost = len(record(obj).get("attempts", []))
            if began > lost + 1:
                yield f"training {obj.index} began {began} times, and {lost} earlier attempts are in its record"


@dataclasses.dataclass
class SlurmNight(Night):
    """A night on Slurm."""

    cluster: Cluster = dataclasses.field(kw_only=True)

    def faults(self) -> list[Callable[[], str]]:
        """Return one fault of each kind, in an order of their own."""
        cluster = self.cluster
        return [
            self.kill_training,
            cluster.preempt,
            lambda: cluster.failing("squeue"),
            cluster.cancel_job,
            lambda: cluster.lagging("squeue"),
            self.kill_submitter,
            cluster.lose_node,
            lambda: cluster.failing("sacct"),
            cluster.restart,
            lambda: cluster.lagging("sbatch"),
            self.kill_training,
            lambda: cluster.failing("sbatch"),
            lambda: cluster.lagging("sacct"),
        ]


def overlaps(index: int, lines: list[dict[str, tp.Any]]) -> Iterator[str]:
    """Yield runs of a training that both came to an end, one while the other ran."""
    spans = []
    began: dict[int, float] = {}
    for line in lines:
        if line["what"] == "began":
            began[line["pid"]] = line["time"]
        elif line["pid"] in began:
            spans.append((began.pop(line["pid"]), line["time"]))
    spans.sort()
    for (_, end), (start, _) in itertools.pairwise(spans):
        if start < end:
            yield f"training {index} ran twice at once"


def record(obj: trainings.Training) -> dict[str, tp.Any]:
    """Return the record of a training."""
    folder = obj.infra.uid_folder()
    assert folder is not None
    content: dict[str, tp.Any] = json.loads((folder / "job.json").read_text())
    return content


def main(argv: list[str] | None = None) -> int:
    """Run a night; 1 if something came out wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="an empty folder for the cache and all that is noted")
    parser.add_argument("--trainings", type=int, default=300)
    parser.add_argument("--length", type=float, default=2.0, help="of a training: 2 to 8 s times this")
    parser.add_argument("--at-once", type=int, default=8, help="how many jobs run at once")
    parser.add_argument("--rounds", type=int, default=3, help="how often each fault happens")
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between two faults")
    parser.add_argument("--minutes", type=float, default=15.0, help="time for all of it")
    options = parser.parse_args(argv)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(Path(os.environ.get("EXCA_NIGHT_STATE", "/tmp/exca-slurm-night")), folder / "commands")
    start = time.monotonic()
    cluster.up()
    infra = {
        "cluster": "slurm",
        "slurm_partition": "preempt",
        "mem_gb": 0.3,
        "timeout_min": 10,
        "tasks_per_job": 5,
        "concurrent_per_job": 2,
        "retries": 20,
        "retry_on": RETRY_ON,
        "retry_scale": {"mem_gb": 4},
    }
    environment = {**cluster.environment, "PATH": f"{cluster.commands}{os.pathsep}{os.environ['PATH']}"}
    night = SlurmNight(
        *(folder, environment, options.trainings, options.length, options.at_once, infra), cluster=cluster
    )
    try:
        wrong = night.play(options.rounds, options.pause, start + 60 * options.minutes)
    finally:
        cluster.down()
    counts = {command: cluster.calls(command) for command in COMMANDS}
    print(f"the submitter called {counts}")
    return night.report(wrong, start)


if __name__ == "__main__":
    sys.exit(main())
