"""The command line: its start, and a listing of 100,000 tasks."""

import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from registry import row, seconds
from rows_tasks import trainer

TASKS = 100_000
STARTS = 7


def command(*arguments: str) -> str:
    """Run Python with arguments in a process of its own, and return what it prints."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def start(*arguments: str) -> float:
    """Return the seconds that a process takes, the median of some."""
    command(*arguments)
    return statistics.median(seconds(lambda: command(*arguments)) for _ in range(STARTS))


@row("python -c pass", beside=False, rounds=3)
def python(folder: Path) -> float:
    """What all commands take at least."""
    return start("-c", "pass")


@row("exca --help", limit=0.120, beside=False, rounds=3)
def helped(folder: Path) -> float:
    return start("-m", "exca", "--help")


def many(folder: Path) -> None:
    """Make the folders of many tasks: copies of one that was computed, with addresses of their own."""
    trainer(folder, 0).run()
    record = next(folder.rglob("job.json"))
    files = {name: (record.parent / name).read_bytes() for name in ("job.json", "uid.yaml", "full-uid.yaml")}
    copy(record.parent, files)


def many_of_earlier_releases(folder: Path) -> None:
    """Make the same as the releases before wrote it: the configuration is in a YAML file alone."""
    trainer(folder, 0).run()
    record = next(folder.rglob("job.json"))
    copy(record.parent, {"job.pkl": b"", "uid.yaml": (record.parent / "uid.yaml").read_bytes()})


def copy(pattern: Path, files: dict[str, bytes]) -> None:
    """Put the folder of a task beside itself, under many addresses."""
    shutil.rmtree(pattern)
    for seed in range(TASKS):
        place = pattern.with_name(f"data.seed={seed}-{seed:08x}")
        place.mkdir()
        for name, data in files.items():
            (place / name).write_bytes(data)


def listing(folder: Path) -> float:
    """Return the seconds of a listing of all tasks, in a new process."""
    said: list[str] = []
    took = seconds(lambda: said.append(command("-m", "exca", "ls", os.fspath(folder))))
    assert f"{TASKS} tasks: " in said[0]
    return took


def forget(folder: Path) -> None:
    """Remove what an earlier listing has kept."""
    for kept in folder.glob("*/.exca-rows"):
        kept.unlink()


@row("exca ls of 100,000 tasks, for the first time", limit=10, stage=many, beside=False, rounds=1)
def first_listing(folder: Path) -> float:
    forget(folder)
    return listing(folder)


@row("exca ls of 100,000 tasks, again", limit=1, stage=many, beside=False, rounds=3)
def next_listing(folder: Path) -> float:
    listing(folder)
    return listing(folder)


@row(
    "exca ls of 100,000 tasks of earlier releases, for the first time",
    limit=30,
    stage=many_of_earlier_releases,
    beside=False,
    rounds=1,
)
def first_listing_of_earlier(folder: Path) -> float:
    forget(folder)
    return listing(folder)
