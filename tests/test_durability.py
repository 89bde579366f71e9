"""What a power failure leaves: a publication is recorded call by call, and what was not synced is dropped."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import disk
from durable_task import Task
from exca.cachedict import CacheDict

STRACE = shutil.which("strace")
pytestmark = pytest.mark.skipif(STRACE is None, reason="needs strace, which records the system calls")
SIZE = 1000


def recorded(tmp_path: Path, script: str) -> list[disk.Call]:
    """Run a script, and return its system calls on files."""
    assert STRACE is not None
    log = tmp_path / "calls"
    command = [STRACE, "-y", "-xx", "-s", "10000000", "-o", str(log), "-e", "trace=" + ",".join(disk.CALLS)]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            filter(None, [os.environ.get("PYTHONPATH"), str(Path(disk.__file__).parent)])
        ),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    ran = subprocess.run(
        [*command, sys.executable, "-c", script],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in ran.stderr:
        pytest.skip(f"no process can be traced here: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    return list(disk.calls(log.read_text(), tmp_path))


def read_task(folder: Path) -> int:
    """Return how much of the task is there: 1 when it has its result, and never another result."""
    task = Task.model_validate({"x": SIZE, "infra": {"folder": folder, "mode": "cached"}})
    if task.infra.status() == "not submitted":
        return 0
    text, array = task.run()
    assert text == "done"
    np.testing.assert_array_equal(array, np.arange(SIZE))
    return 1


def read_entries(folder: Path) -> int:
    """Return how many entries are there, none of them wrong."""
    if not folder.exists():
        return 0
    cache = CacheDict[object](folder)
    for key, value in cache.items():
        np.testing.assert_array_equal(value, np.full(SIZE, int(key)))
    return len(cache)


TASK_SCRIPT = f"""
import durable_task
from exca.engine import record

record.DURABLE_SECONDS = -1.0  # as if each computation took longer
durable_task.Task(x={SIZE}, infra={{"folder": "a/cache"}}).run()
"""
ENTRIES_SCRIPT = f"""
import numpy
from exca.cachedict import CacheDict, DumpOptions

cache = CacheDict("a/cache", options=DumpOptions(fsync=True))
for start in (0, 2):
    with cache.write():
        for k in (start, start + 1):
            cache[str(k)] = numpy.full({SIZE}, k)
"""
SCRIPTS = {"task": (TASK_SCRIPT, read_task), "entries": (ENTRIES_SCRIPT, read_entries)}
COUNTS = {"task": 1, "entries": 4}


@pytest.mark.parametrize("what", SCRIPTS)
def test_a_power_failure_takes_nothing_that_was_published(tmp_path: Path, what: str) -> None:
    """After each system call: what is there is whole; after the last, all is there."""
    script, read = SCRIPTS[what]
    calls = recorded(tmp_path, script)
    places = (tmp_path / f"left-{number}" for number in itertools.count())
    model = disk.Disk(tmp_path)
    steps = 0
    for call in calls:
        if not model.take(call):
            continue
        steps += 1
        for names, content in ((False, False), (True, False), (False, True), (True, True)):
            place = next(places)
            model.leave(place, names=names, content=content)
            read(place / "a" / "cache")
            shutil.rmtree(place)
    assert steps > 10
    place = next(places)
    model.leave(place, names=False, content=False)
    assert read(place / "a" / "cache") == COUNTS[what]


def test_what_is_published_keeps_its_configuration(tmp_path: Path) -> None:
    """A result that no configuration stands beside is found by no listing."""
    model = disk.Disk(tmp_path)
    for call in recorded(tmp_path, SCRIPTS["task"][0]):
        model.take(call)
    model.leave(tmp_path / "left", names=False, content=False)
    task = Task.model_validate({"x": SIZE, "infra": {"folder": tmp_path / "left" / "a" / "cache"}})
    assert [found.x for found in task.infra.iter_cached()] == [SIZE]
    folder = task.infra.uid_folder()
    assert folder is not None
    assert (folder / "full-uid.yaml").read_text().startswith(f"x: {SIZE}\n")


def test_the_model_forgets_what_was_not_synced(tmp_path: Path) -> None:
    """The disk of these tests is strict: without a sync neither a name nor a byte is left."""
    script = """
import os
os.mkdir("kept"); os.mkdir("lost")
for folder, name, sync in (("kept", "whole", True), ("kept", "empty", False), ("lost", "gone", True)):
    fd = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"content")
    if sync: os.fsync(fd)
    os.close(fd)
for folder in ("kept", "."):
    fd = os.open(folder, os.O_RDONLY); os.fsync(fd); os.close(fd)
os.rename("kept/whole", "kept/new")
"""
    model = disk.Disk(tmp_path)
    for call in recorded(tmp_path, script):
        model.take(call)
    model.leave(tmp_path / "left", names=False, content=False)
    left = {p.relative_to(tmp_path / "left").as_posix(): p for p in (tmp_path / "left").rglob("*")}
    assert sorted(left) == ["kept", "kept/empty", "kept/whole", "lost"]
    assert (left["kept/whole"].read_bytes(), left["kept/empty"].read_bytes()) == (b"content", b"")
