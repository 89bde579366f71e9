"""Many writers, readers and deleters at once, in threads and processes; forks; processes killed in the middle."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import typing as tp

import numpy as np
import pytest

from exca.cachedict import CacheDict, DumpOptions, folderindex, sideindex
from exca.cachedict.verification import verify_entries


def fresh(folder: pathlib.Path) -> CacheDict[tp.Any]:
    """An object that knows nothing of the folder, as in another process."""
    folderindex._registry.clear()
    return CacheDict[tp.Any](folder)


def start(code: str, *args: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


WRITER = """
import sys, numpy as np
from exca.cachedict import CacheDict
cd, number = CacheDict(sys.argv[1]), int(sys.argv[2])
for part in range(10):
    with cd.write():
        for n in range(part * 100, part * 100 + 100):
            cd[f"{number}-{n}"] = np.full(10, n) if n % 3 == 0 else n
            cd[f"shared-{n}"] = [n]
        if part % 2:
            for n in range(part * 100, part * 100 + 100, 5):
                del cd[f"{number}-{n}"]
print("done")
"""


def test_writers_and_deleters_in_processes(tmp_path: pathlib.Path) -> None:
    processes = [start(WRITER, tmp_path, number) for number in range(4)]
    reader = CacheDict[tp.Any](tmp_path)
    while any(process.poll() is None for process in processes):
        for key, value in reader.items():
            number = int(key.split("-")[1])
            assert np.array_equal(value, expected(key, number)), key
    assert all(process.communicate()[0] == "done\n" for process in processes)
    wanted = {f"{p}-{n}" for p in range(4) for n in range(1000) if not (n // 100 % 2 and n % 5 == 0)}
    wanted |= {f"shared-{n}" for n in range(1000)}
    for cd in (reader, fresh(tmp_path)):
        assert len(cd) == len(wanted)
        assert set(cd) == wanted
        assert all(np.array_equal(cd[key], expected(key, int(key.split("-")[1]))) for key in wanted)
    report = verify_entries(tmp_path)
    assert (report.damaged, report.torn, report.orphans) == ([], {}, [])


def expected(key: str, n: int) -> tp.Any:
    if key.startswith("shared"):
        return [n]
    return np.full(10, n) if n % 3 == 0 else n


def test_threads_of_one_process(tmp_path: pathlib.Path) -> None:
    cd = CacheDict[tp.Any](tmp_path)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        rng = random.Random(number)
        try:
            for _ in range(5):
                with cd.write():
                    for n in range(100):
                        cd[f"{number}-{n}"] = np.full(10, n) if n % 3 == 0 else n
                for _ in range(200):
                    other, n = rng.randrange(4), rng.randrange(100)
                    value = cd.get(f"{other}-{n}")
                    assert value is None or np.array_equal(value, np.full(10, n) if n % 3 == 0 else n)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(cd) == len(fresh(tmp_path)) == 400


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_files_of_its_own(tmp_path: pathlib.Path) -> None:
    cd = CacheDict[tp.Any](tmp_path, options=DumpOptions(flush_seconds=60))
    with cd.write():
        cd["before"] = np.arange(3)
        child = os.fork()
        if child == 0:
            try:
                cd["child"] = np.arange(4)
                cd.flush()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        cd["parent"] = np.arange(5)
    again = fresh(tmp_path)
    assert {key: len(value) for key, value in again.items()} == {"before": 3, "child": 4, "parent": 5}
    assert len(list(tmp_path.glob("*-info.jsonl"))) == 2
    report = verify_entries(tmp_path)
    assert (report.entries, report.damaged) == (3, [])


KILLED = """
import sys, numpy as np
from exca.cachedict import CacheDict
cd = CacheDict(sys.argv[1])
start = int(sys.argv[2])
with cd.write():
    for n in range(start, start + 1_000_000):
        cd[str(n)] = np.full(50, n) if n % 2 else n
        if n % 7 == 0:
            cd[str(n - 3 if n > start + 3 else n)] = "again"
        if n % 500 == 0:
            cd.flush()
            print(n, flush=True)
"""


def test_kill_at_any_moment_loses_the_window_only(tmp_path: pathlib.Path) -> None:
    rng = random.Random(0)
    sure: dict[str, tp.Any] = {}
    for round_ in range(8):
        begin = round_ * 1_000_000
        process = start(KILLED, tmp_path, begin)
        assert process.stdout is not None
        reached = max(int(process.stdout.readline()) for _ in range(rng.randint(2, 8)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        sure.update((str(n), np.full(50, n) if n % 2 else n) for n in range(begin, reached - 3))
    cd = fresh(tmp_path)
    for key, value in sure.items():
        found = cd[key]
        assert np.array_equal(found, value) or (isinstance(found, str) and found == "again")
    assert len(cd) == len(list(cd)) >= len(sure)
    report = verify_entries(tmp_path)
    assert report.damaged == []
    with cd.write():
        cd["later"] = 1
    assert fresh(tmp_path)["later"] == 1


def test_an_entry_that_waits_is_flushed_while_the_next_is_computed(tmp_path: pathlib.Path) -> None:
    code = """
import sys
from exca.cachedict import CacheDict
cd = CacheDict(sys.argv[1])
with cd.write():
    cd["quick"] = 1
    print("set", flush=True)
    sys.stdin.readline()  # a long computation
"""
    process = start(code, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "set\n"
    cd = CacheDict[int](tmp_path)
    while "quick" not in cd:  # the test's timeout is the bound
        threading.Event().wait(0.01)
    assert process.poll() is None
    process.communicate("\n")


def test_many_folders_keep_few_files_open(tmp_path: pathlib.Path) -> None:
    caches = []
    for n in range(300):
        cd = CacheDict[int](tmp_path / str(n))
        with cd.write():
            cd["a"] = n
        assert cd["a"] == n
        caches.append(cd)
    if os.path.isdir("/proc/self/fd"):
        assert len(os.listdir("/proc/self/fd")) < 300
    assert [cd["a"] for cd in caches] == list(range(300))


def test_who_died_while_saving_the_side_index_stops_nobody(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sideindex, "_TURN_LOOKS", 3)
    (tmp_path / sideindex.TURN_NAME).touch()
    cache: CacheDict[int] = CacheDict(tmp_path)
    with cache.write():
        for key in range(5000):
            cache[str(key)] = key
    table = sideindex.Table.load(str(tmp_path))
    assert table is not None
    assert table.keys == 5000
    assert not (tmp_path / sideindex.TURN_NAME).exists()
