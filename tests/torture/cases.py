"""The cases: who is asked for what, what befalls them meanwhile, and what must have come of it."""

import contextlib
import ctypes.util
import dataclasses
import functools
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing as tp
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from computing import now, same
from crowd import HERE, Crowd, PersonsZygote, Zygote
from score import Score, judge, lost_answers
from worker import Plan, forget

import exca
from exca.cachedict import CacheDict
from exca.cachedict.sideindex import FILE_NAME
from exca.claims import Claims
from people import ALICE, BOB, Commons

DEADLINE = 60.0  # seconds after the last blow within which all must be done
ELSEWHERE, BEAT = "elsewhere", 0.1


class Stage:
    """Where cases are played: a folder, processes to fork from, and a source of chance.

    Parameters
    ----------
    place
        an empty folder
    seed
        of all choices
    """

    def __init__(self, place: Path, seed: int) -> None:
        self.place = place
        self.rng = random.Random(seed)
        self.zygote = Zygote()
        self._runs = 0

    def crowd(self) -> Crowd:
        """A crowd in a folder of its own."""
        self._runs += 1
        return Crowd(self.place / f"run{self._runs}", self.rng)

    def close(self) -> None:
        """End what was started."""
        self.zygote.close()

    def finish(self, score: Score, crowd: Crowd, wanted: int, cache: Path | None = None) -> None:
        """Wait for a crowd, verify its cache, and add what came of it to the score."""
        crowd.join(DEADLINE)
        counts = crowd.outcomes()
        score.answers += counts.get("answers", 0)
        score.wrong += counts.get("wrong", 0)
        score.stuck += crowd.stuck
        score.failures += crowd.failed
        judge(score, crowd.journal, crowd.killed, wanted)
        found = exca.verify(cache or crowd.place / "cache")
        totals = found.totals()
        if totals["damaged"] or totals["entries"] < wanted:
            score.failures.append(f"{wanted} entries should be there:\n{found}")
        if score.good:
            shutil.rmtree(crowd.place, ignore_errors=True)


@dataclasses.dataclass
class Blows:
    """What befalls a crowd that asks for the same things.

    Parameters
    ----------
    case: name of the case
    kills: processes to kill, in all runs together
    workers, threads: processes at once, and threads in each
    tasks, items, steps, needing: how many of them
    seconds: that one computation takes, at most
    hosts: on which the workers are in turn, with the seconds between two beats
    folders: by host, the cache folder as it is seen there; made by the run otherwise
    clock: seconds by which every second worker's clock is wrong
    runs: at least
    """

    case: str
    kills: int
    workers: int = 4
    threads: int = 1
    tasks: int = 8
    items: int = 16
    steps: int = 6
    needing: int = 0
    seconds: float = 0.02
    hosts: tuple[tuple[str, float], ...] = (("", 5.0),)
    folders: dict[str, Path] = dataclasses.field(default_factory=dict)
    clock: float = 0.0
    runs: int = 1


def played(stage: Stage, blows: Blows, second: Zygote | None = None) -> Score:
    """Processes ask for the same, overlapping things, are killed at random, and others come in their place."""
    score = Score(blows.case)
    zygotes = (stage.zygote, second or stage.zygote)
    while score.runs < blows.runs or score.killed < blows.kills:
        crowd, started = stage.crowd(), 0
        cache = f"cache{score.runs}" if blows.folders else "cache"

        def start(crowd: Crowd = crowd, cache: str = cache) -> None:
            nonlocal started
            host, beat = blows.hosts[started % len(blows.hosts)]
            folder = blows.folders.get(host, crowd.place) / cache
            clock = blows.clock * (started % 2)
            crowd.start(
                zygotes[started % 2],
                folder=str(folder),
                tasks=list(range(blows.tasks)),
                items=list(range(blows.items)),
                steps=list(range(blows.steps)),
                needing=list(range(blows.needing)),
                threads=blows.threads,
                seconds=blows.seconds,
                host=host,
                beat=beat,
                clock=0.0 if second else clock,
            )
            started += 1

        for _ in range(blows.workers):
            start()
        while score.killed + len(crowd.killed) < blows.kills and crowd.alive:
            time.sleep(stage.rng.uniform(0.005, 0.08))
            crowd.reap()
            if crowd.alive:
                busy = crowd.busy() if stage.rng.random() < 0.7 else []
                crowd.kill(stage.rng.choice(busy or list(crowd.alive)))
                start()
        seen = next(iter(blows.folders.values()), crowd.place)
        wanted = blows.tasks + blows.items + blows.steps + 2 * blows.needing
        stage.finish(score, crowd, wanted, seen / cache)
    return score


def stopped(
    stage: Stage, case: str, *, runs: int, hold: float, hosts: tuple[tuple[str, float], ...]
) -> Score:
    """A process is stopped in the middle of a computation, others wait for it, and it goes on."""
    score = Score(case)
    while score.runs < runs:
        crowd = stage.crowd()
        for k in range(3):
            host, beat = hosts[k % len(hosts)]
            fields = {"folder": str(crowd.place / "cache"), "host": host, "beat": beat, "seconds": 0.2}
            crowd.start(stage.zygote, tasks=[1, 2], items=list(range(4)), **fields)
        deadline = now() + DEADLINE
        while not crowd.busy() and now() < deadline:
            time.sleep(0.001)
        busy = crowd.busy()
        if busy:
            pid = busy[0]
            os.kill(pid, signal.SIGSTOP)
            time.sleep(hold)
            score.stopped += pid in crowd.busy()  # it was really in the middle of something
            os.kill(pid, signal.SIGCONT)
        stage.finish(score, crowd, 6)
    return score


def wrong_clocks(stage: Stage, kills: int) -> Score:
    """Every second process believes that it is yesterday."""
    blows = Blows("clock set back by a day", kills, clock=-86_400.0)
    try:
        library = built(stage, "yesterday")
    except RuntimeError as e:
        score = played(stage, blows)
        score.note = f"time.time() replaced: {e}"
        return score
    second = Zygote({"LD_PRELOAD": str(library)})
    try:
        score = played(stage, blows, second)
        score.note = "by a preloaded library"
        return score
    finally:
        second.close()


def built(stage: Stage, source: str) -> Path:
    """A library to be preloaded, made from a source beside this file.

    Raises
    ------
    RuntimeError
        there is no C compiler
    """
    library = stage.place / f"{source}.so"
    build = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / f"{source}.c"), "-ldl"]
    try:
        subprocess.run(build, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as e:
        raise RuntimeError("there is no C compiler") from e
    return library


def hiccups(stage: Stage, runs: int, odds: int = 300) -> Score:
    """Calls of the file system fail at random; then they do not, and what was answered before is all there."""
    score, errors = Score("EIO, EMFILE, ESTALE, ENOSPC at random"), 0
    try:
        library = built(stage, "hiccups")
    except RuntimeError as e:
        score.note = f"not run: {e}"
        return score
    for _ in range(runs):
        crowd = stage.crowd()
        folder = crowd.place / "cache"
        env = {"LD_PRELOAD": str(library), "HICCUP_UNDER": str(folder), "HICCUP_ODDS": str(odds)}
        zygote = Zygote(env)
        try:
            numbers = {"tasks": list(range(20)), "items": list(range(60)), "steps": list(range(10))}
            for _ in range(6):
                crowd.start(zygote, folder=str(folder), tolerant=True, seconds=0.01, **numbers)
            crowd.join(DEADLINE)
        finally:
            zygote.close()
        errors += crowd.outcomes().get("errors", 0)
        since = now()
        for _ in range(2):
            crowd.start(stage.zygote, folder=str(folder), **numbers)
        crowd.join(DEADLINE)
        lost = lost_answers(crowd.journal, since)
        score.lost += len(lost)
        score.failures += [f"answered, and computed again: {lost}"] if lost else []
        add_up(score, crowd, folder, 90)
    score.note = f"{errors} clear errors"
    return score


PLANTED = 1000  # from this number on, another user has planted what is asked for
PLANT = f"""
import json, os, pathlib, pickle, sys, time
import xxhash

class Payload:
    def __init__(self, target): self.target = target
    def __reduce__(self): return os.system, ("touch " + self.target,)

cache, stop, target = map(pathlib.Path, (os.environ[name] for name in ("CACHE", "STOP", "TARGET")))
data = pickle.dumps(Payload(str(target)))
while not stop.exists():
    for folder in cache.glob("*/*"):
        try:
            (folder / "data").mkdir(exist_ok=True)
            (folder / "data" / "planted.pkl").write_bytes(data)
            if "Number.compute" in folder.parent.name and "{PLANTED}" in folder.name:
                (folder / "job.pkl").write_bytes(data)
            with open(folder / "bob-1-00000000-info.jsonl", "ab") as file:
                for key in range({PLANTED}, {PLANTED} + 4):
                    entry = {{"#type": "Pickle", "filename": "data/planted.pkl", "#key": str(key)}}
                    line = json.dumps(entry, separators=(",", ":"))[:-1].encode()
                    file.write(b'%b,"#xxh":"%016x"}}\\n' % (line, xxhash.xxh3_64_intdigest(line)))
        except OSError:
            pass
    for folder in cache.glob("*"):
        for name in ("n={PLANTED}-00000000", "data", "logs"):
            try:
                os.symlink(target.parent, folder / name)
            except OSError:
                pass
    time.sleep(0.02)
"""


def two_users(stage: Stage, kills: int) -> Score:
    """Processes of two users ask for the same in a folder of their group, while one of the two plants things in it."""
    score = Score("two users, one of whom plants pickles and links")
    place = Path(tempfile.mkdtemp(prefix="exca-torture-", dir="/tmp"))
    place.chmod(0o755)
    commons = Commons(place)
    crowd = Crowd(place / "run", stage.rng)
    for folder in (crowd.place, crowd.journal):
        folder.chmod(0o777)
    home, cache, stop = commons.home(ALICE), commons.shared / "cache", place / "stop"
    (home / "thesis").write_text("years of work")
    ALICE.owns(home / "thesis")
    before = commons.content(ALICE)
    zygotes = [PersonsZygote(person, commons.home(person)) for person in (ALICE, BOB)]
    target = str(home / "hijacked")
    planter = BOB.start(commons.home(BOB), PLANT, CACHE=str(cache), STOP=str(stop), TARGET=target)
    wanted: dict[str, tp.Any] = {"tasks": list(range(6)), "items": list(range(12)), "seconds": 0.02}
    started = 0

    def start() -> None:
        nonlocal started
        crowd.start(zygotes[started % 2], folder=str(cache), **wanted)
        started += 1

    try:
        for _ in range(4):
            start()
        while score.killed + len(crowd.killed) < kills:
            time.sleep(stage.rng.uniform(0.005, 0.08))
            crowd.reap()
            if crowd.alive:
                crowd.kill(stage.rng.choice(list(crowd.alive)))
            start()
            asked = range(PLANTED, PLANTED + 4)
            crowd.start(zygotes[0], folder=str(cache), tolerant=True, tasks=[*asked], items=[*asked])
        crowd.join(DEADLINE)
        stop.touch()
        planter.communicate()
        judge(score, crowd.journal, crowd.killed, 18)
        score.runs -= 1
        score.hijacked += commons.content(ALICE) != before
        score.note = f"{crowd.outcomes().get('errors', 0)} clear errors over what was planted"
        add_up(score, crowd, cache, 18, planted=True)
    finally:
        stop.touch()
        for zygote in zygotes:
            zygote.close()
        if score.good:
            shutil.rmtree(place, ignore_errors=True)
    return score


def add_up(score: Score, crowd: Crowd, folder: Path, wanted: int, *, planted: bool = False) -> None:
    """Add what came of a run whose computations may have failed."""
    counts = crowd.outcomes()
    score.runs += 1
    score.wanted += 0 if planted else wanted  # else counted already
    score.answers += counts.get("answers", 0)
    score.wrong += counts.get("wrong", 0)
    score.stuck += crowd.stuck
    score.failures += crowd.failed
    found = exca.verify(folder)
    totals = found.totals()
    if (totals["damaged"] and not planted) or totals["entries"] < wanted:
        score.failures.append(f"{wanted} entries should be there:\n{found}")
    if score.good:
        shutil.rmtree(crowd.place, ignore_errors=True)


@contextlib.contextmanager
def late_mounts(place: Path, seconds: float, names: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Mount one folder several times, each mount seeing late what the others change; their places by name.

    Raises
    ------
    RuntimeError
        with the reason why it is not possible here
    """
    missing = [what for what, there in MOUNTS_NEED.items() if not there()]
    if missing:
        raise RuntimeError(f"no {' and no '.join(missing)}")
    real = place / "server"
    real.mkdir(parents=True)
    processes, mounts = [], {}
    try:
        for number, name in enumerate(names):
            mounts[name] = mount = place / f"client{number}"
            mount.mkdir()
            command = [sys.executable, str(HERE / "late_fs.py"), str(real), str(mount), str(seconds)]
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        for mount in mounts.values():
            until(mount.is_mount, 20)
            if not mount.is_mount():
                raise RuntimeError(f"no file system of our own can be mounted at {mount}")
        yield mounts
    finally:
        for mount in mounts.values():
            subprocess.run(["umount", "-l", str(mount)], check=False, capture_output=True)
        for process in processes:
            process.wait()


MOUNTS_NEED: dict[str, Callable[[], bool]] = {
    "right to mount (root)": lambda: hasattr(os, "geteuid") and os.geteuid() == 0,
    "/dev/fuse": lambda: os.path.exists("/dev/fuse"),
    "Python package mfusepy": lambda: importlib.util.find_spec("mfusepy") is not None,
    "libfuse": lambda: any(map(ctypes.util.find_library, ("fuse3", "fuse"))),
}


def late(stage: Stage, kills: int, seconds: float = 2.0) -> Score:
    """Two hosts on a folder of which each sees the other's changes late."""
    name = f"two hosts, changes seen up to {seconds:g} s late"
    try:
        with late_mounts(stage.crowd().place / "late", seconds, ["", ELSEWHERE]) as mounts:
            blows = Blows(
                name, kills, hosts=(("", BEAT), (ELSEWHERE, BEAT)), folders=mounts, tasks=4, items=8
            )
            score = played(stage, blows)
            score.note = "FUSE, with the rules of NFS"
    except RuntimeError as e:
        score = Score(name, note=f"not run: {e}")
    return score


# ---------------------------------------------------------------- files


def damaged(stage: Stage, rounds: int) -> Score:
    """A random file is damaged in a random way, then all is asked for, by a reader who knows nothing yet."""
    score = Score("damaged reads: bits, garbage, cuts, losses")
    crowd = stage.crowd()
    halves = (rounds // 2, rounds - rounds // 2)
    for k, part in enumerate(halves):
        folder = str(crowd.place / f"cache{k}")
        fields = {"tasks": list(range(3)), "items": list(range(6)), "rounds": part}
        crowd.start(stage.zygote, folder=folder, kind="damage", **fields)
    crowd.journal.joinpath("1-0.log").touch()
    crowd.join(DEADLINE + rounds / 10)
    counts = crowd.outcomes()
    score.runs, score.answers = rounds, counts.get("answers", 0)
    score.wrong, score.stuck, score.failures = counts.get("wrong", 0), crowd.stuck, crowd.failed
    score.note = f"{counts.get('refused', 0)} refused since a configuration file said something else"
    return score


def derived_deleted(stage: Stage, runs: int, items: int = 6000) -> Score:
    """Derived files vanish again and again while several processes use them."""
    score, count = Score("derived files deleted while in use"), 0
    for _ in range(runs):
        crowd = stage.crowd()
        folder = crowd.place / "cache"
        for _ in range(3):
            crowd.start(stage.zygote, folder=str(folder), tasks=[1, 2], items=list(range(items)))
        deadline = now() + DEADLINE
        while crowd.alive and now() < deadline:
            crowd.reap()
            for place in folder.glob("*Numbers*/*"):
                forget()
                len(CacheDict[tp.Any](place))  # makes the side index anew
                for name in (FILE_NAME, ".identity.json"):
                    count += (place / name).exists()
                    (place / name).unlink(missing_ok=True)
        stage.finish(score, crowd, items + 2)
    score.note = f"{count} files deleted"
    return score


def disk_full(stage: Stage, runs: int) -> Score:
    """The disk fills up in the middle of writing; once there is room again, all goes on by itself."""
    score, errors = Score("disk full, then not"), 0
    for _ in range(runs):
        crowd = stage.crowd()
        disk = crowd.place / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
        try:
            errors += _fill_and_free(stage, crowd, disk)
            score.runs += 1
            counts = crowd.outcomes()
            score.answers += counts["answers"]
            score.wrong += counts["wrong"]
            score.stuck += crowd.stuck
            score.failures += crowd.failed
            if not errors:
                score.failures.append("the disk was never full")
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)
    score.note = f"{errors} clear errors while it was full"
    return score


def _fill_and_free(stage: Stage, crowd: Crowd, disk: Path) -> int:
    ask = functools.partial(crowd.start, stage.zygote, folder=str(disk / "cache"), tolerant=True)
    ask(tasks=list(range(6)), items=list(range(40)))
    crowd.join(DEADLINE)
    ballast = disk / "ballast"
    room = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    ballast.write_bytes(bytes(max(0, room - stage.rng.randrange(1, 12) * 4096)))
    before = crowd.outcomes()["errors"]
    for _ in range(2):
        ask(tasks=list(range(30)), items=list(range(400)))
    crowd.join(DEADLINE)
    errors = crowd.outcomes()["errors"] - before
    ballast.unlink()
    before = crowd.outcomes()["errors"]
    for _ in range(2):
        ask(tasks=list(range(30)), items=list(range(400)))
    crowd.join(DEADLINE)
    if crowd.outcomes()["errors"] != before:
        crowd.failed.append("errors after there was room again: it needed a hand")
    return errors


# ---------------------------------------------------------------- jobs


def submitters_killed(stage: Stage, cluster: str, runs: int, tasks: int = 2) -> Score:
    """The process that submits is killed while it does so, or right after; others come and ask for the same."""
    score = Score(f"submitter of {cluster} jobs killed")
    while score.runs < runs:
        crowd = stage.crowd()
        fields: dict[str, tp.Any] = {"folder": str(crowd.place / "cache"), "cluster": cluster}
        fields |= {"tasks": list(range(tasks)), "seconds": 0.3}
        pid = crowd.start(stage.zygote, kind="submit", **fields)
        # at times in the middle of a submission, at times when the first job is under way
        late = stage.rng.random() < 0.5
        delay = now() + stage.rng.uniform(0.0, 0.4)
        until(functools.partial(submitted, crowd) if late else functools.partial(passed, delay))
        crowd.reap()
        if pid in crowd.alive:
            crowd.kill(pid)
        for _ in range(2):
            crowd.start(stage.zygote, **fields)
        stage.finish(score, crowd, tasks)
    return score


FAULTY = """#!/bin/bash
# a command of Slurm that is late, fails, says nothing or hangs, each one time in {odds}
turn=$((RANDOM % {odds}))
[ $turn -gt 3 ] || echo "$(basename "$0") $turn" >> {log}
case $turn in
  0) sleep 2 ;;
  1) echo "$(basename "$0"): error: Unable to contact slurm controller (connect failure)" >&2; exit 1 ;;
  2) {first}; exit {code} ;;
  3) {first}; exec sleep 600 ;;
esac
exec {real} "$@"
"""


def scheduler_faults(stage: Stage, runs: int, tasks: int = 3, odds: int = 6) -> Score:
    """The commands of Slurm are late, fail, say nothing or hang at random, while several ask for the same jobs."""
    score, errors = Score("squeue, sacct, sbatch, scontrol late, failing, silent, hanging"), 0
    folder = stage.place / "slurm-bin"
    folder.mkdir()
    (folder / "log").touch()
    for command in ("squeue", "sacct", "sbatch", "scontrol"):
        real = shutil.which(command) or command
        # an sbatch that says nothing, or hangs, has submitted all the same
        first, code = (f'{real} "$@" > /dev/null', "$((RANDOM % 2))") if command == "sbatch" else (":", "0")
        text = FAULTY.format(odds=odds, first=first, code=code, real=real, log=folder / "log")
        (folder / command).write_text(text)
        (folder / command).chmod(0o755)
    zygote = Zygote({"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"})
    try:
        while score.runs < runs:
            crowd = stage.crowd()
            fields: dict[str, tp.Any] = {"folder": str(crowd.place / "cache"), "cluster": "slurm"}
            fields |= {"tasks": list(range(tasks)), "items": list(range(4)), "seconds": 0.3}
            for _ in range(3):
                crowd.start(zygote, tolerant=True, patience=3.0, **fields)
            crowd.join(3 * DEADLINE)
            since = now()
            errors += crowd.outcomes().get("errors", 0)
            crowd.start(stage.zygote, **fields)
            crowd.join(DEADLINE)
            lost = lost_answers(crowd.journal, since)
            score.lost += len(lost)
            judge(score, crowd.journal, crowd.killed, tasks + 4)
            score.runs -= 1
            score.wanted -= tasks + 4
            add_up(score, crowd, crowd.place / "cache", tasks + 4)
    finally:
        zygote.close()
    faults = (folder / "log").read_text().splitlines()
    submitted = sum(line in ("sbatch 2", "sbatch 3") for line in faults)
    score.note = (
        f"{len(faults)} faults, {submitted} of them submissions without an answer, {errors} clear errors"
    )
    score.failures += [] if faults else ["no command of Slurm was at fault"]
    return score


def passed(moment: float) -> bool:
    """Whether it is later than this."""
    return now() > moment


def submitted(crowd: Crowd) -> bool:
    """Whether a job was noted as submitted."""
    return any("J " in path.read_text() for path in crowd.journal.iterdir()) or not crowd.alive


def until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Wait for a condition, for so long at most."""
    deadline = now() + seconds
    while not condition() and now() < deadline:
        time.sleep(0.002)


def cost_per_item(place: Path, items: int = 100_000) -> float:
    """Seconds that claiming and releasing costs an item, claimed in bulk."""
    claims, keys = Claims(place / "cost"), [f"item-{n}" for n in range(items)]
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        claim, _ = claims.acquire(keys)
        assert claim is not None
        claim.release()
        best = min(best, time.perf_counter() - start)
    return best / items


__all__ = ["Plan", "same"]
