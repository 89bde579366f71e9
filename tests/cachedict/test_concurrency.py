"""Many writers, readers and deleters at once, in threads and processes; forks; processes killed in the middle."""

import concurrent.futures
import errno
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

import exca
from exca.cachedict import CacheDict, DumpOptions, sideindex
from exca.cachedict import index as cache_index
from exca.errors import CacheWriteError


def fresh(folder: pathlib.Path) -> CacheDict[tp.Any]:
    """An object that knows nothing of the folder, as in another process."""
    cache_index._registry.clear()
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
    (report,) = exca.verify(tmp_path).folders
    assert (report.damaged, report.orphans) == ([], [])


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
    (report,) = exca.verify(tmp_path).folders
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
    (report,) = exca.verify(tmp_path).folders
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


@pytest.fixture
def quick_switches() -> tp.Iterator[None]:
    """Threads that take turns every 10 us."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(work: tp.Callable[[int], tp.Any], number: int = 16) -> list[tp.Any]:
    """What ``work`` returns in threads that start together."""
    barrier = threading.Barrier(number)

    def run(n: int) -> tp.Any:
        barrier.wait()
        return work(n)

    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        return list(pool.map(run, range(number)))


def written_before(folder: pathlib.Path, writer: str, numbers: tp.Iterable[int]) -> None:
    """An index file as an earlier release wrote it."""
    with (folder / f"{writer}-info.jsonl").open("w") as file:
        file.writelines(f'{{"content":{n},"#type":"Json","#key":"{n}"}}\n' for n in numbers)


ADDER = """
import sys
from exca.cachedict import CacheDict
cd = CacheDict(sys.argv[1])
for line in sys.stdin:
    with cd.write():
        for key in line.split():
            cd[key] = key
    print("added", flush=True)
"""


def adds(process: "subprocess.Popen[str]", keys: list[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(" ".join(keys) + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "added\n"


@pytest.mark.usefixtures("quick_switches")
@pytest.mark.parametrize("apart", [False, True])
def test_threads_see_what_another_process_has_just_added(tmp_path: pathlib.Path, apart: bool) -> None:
    """All threads miss the key in memory, one of them reads what is new, and each has an answer to give."""
    process = start(ADDER, tmp_path)
    shared = CacheDict[str](tmp_path)
    for round_ in range(100):
        keys = [f"{round_}-{n}" for n in range(4)]
        adds(process, keys)

        def ask(number: int, keys: list[str] = keys) -> list[str]:
            cd = CacheDict[str](tmp_path) if apart else shared
            missing = [key for key in keys[:2] if key not in cd]
            missing += [key for key in keys[2:3] if cd.get(key) != key]
            return missing + cd.missing(keys)

        assert at_once(ask) == [[]] * 16
    process.communicate()


@pytest.mark.usefixtures("quick_switches")
@pytest.mark.parametrize("apart", [False, True])
def test_threads_that_open_a_folder_at_once_find_what_is_there(tmp_path: pathlib.Path, apart: bool) -> None:
    with CacheDict[int](tmp_path).write() as written:
        for n in range(5000):  # enough for a side index
            written[str(n)] = n
    for round_ in range(40):
        if round_ == 20:
            (tmp_path / sideindex.FILE_NAME).unlink()
        shared = fresh(tmp_path)

        def ask(number: int, shared: CacheDict[tp.Any] = shared) -> bool:
            cd = CacheDict[tp.Any](tmp_path) if apart else shared
            if number % 3 == 0:
                return str(number) in cd
            return bool(cd[str(number)] == number if number % 3 == 1 else not cd.missing([str(number)]))

        assert at_once(ask) == [True] * 16


@pytest.mark.long
@pytest.mark.usefixtures("quick_switches")
def test_a_million_entries_without_a_side_index(tmp_path: pathlib.Path) -> None:
    """They move to a table while they are read, and threads look for them all the while."""
    total = 1_000_000
    written_before(tmp_path, "host-1", range(total))
    cd = CacheDict[int](tmp_path)

    def ask(number: int) -> list[int]:
        wanted = range(number, total, total // 50)
        return [n for n in wanted if (cd.get(str(n)) != n if n % 2 else str(n) not in cd)]

    assert at_once(ask) == [[]] * 16
    assert len(cd) == total


@pytest.mark.usefixtures("quick_switches")
@pytest.mark.parametrize("flush_entries", [1, 1000])
def test_a_key_is_there_while_it_is_replaced(tmp_path: pathlib.Path, flush_entries: int) -> None:
    cd = CacheDict[int](tmp_path, options=DumpOptions(flush_entries=flush_entries))
    keys = [str(n) for n in range(20)]
    with cd.write():
        for key in keys:
            cd[key] = -1
    done = threading.Event()

    def replace() -> None:
        try:
            with cd.write():
                for n in range(100):
                    for key in keys:
                        cd[key] = n
        finally:
            done.set()

    def ask(number: int) -> list[str]:
        missing: list[str] = []
        while not done.is_set():
            missing += [key for key in keys if (key not in cd if number % 2 else cd.get(key) is None)]
            missing += cd.missing(keys)
            missing += [] if number else set(keys) - set(cd.keys())
        return missing

    thread = threading.Thread(target=replace)
    thread.start()
    assert at_once(ask, 4) == [[]] * 4
    thread.join()


REPLACER = """
import sys
from exca.cachedict import CacheDict
cd = CacheDict(sys.argv[1])
with cd.write():
    for n in range(300):
        for key in range(5):
            cd[str(key)] = n
        cd.flush()
"""


def test_a_key_is_there_while_another_process_replaces_it(tmp_path: pathlib.Path) -> None:
    """The old line is blank before the folder's mtime tells that there is a new one."""
    cd = CacheDict[int](tmp_path)
    keys = [str(n) for n in range(5)]
    with cd.write():
        for key in keys:
            cd[key] = -1
    process = start(REPLACER, tmp_path)
    missing: list[str] = []
    while process.poll() is None:
        cache_index._registry.clear()
        cd = CacheDict[int](tmp_path)
        for _ in range(20):
            missing += [key for key in keys if key not in cd or cd.get(key) is None]
    process.communicate()
    assert missing == []


def test_no_key_is_skipped_while_another_process_replaces_it(tmp_path: pathlib.Path) -> None:
    """Its line is found blank, and the new one is behind what is gone through."""
    cd = CacheDict[int](tmp_path)
    keys = [str(n) for n in range(5)]
    with cd.write():
        for key in keys:
            cd[key] = -1
    process = start(REPLACER, tmp_path)
    wrong: list[tp.Any] = []
    while process.poll() is None:
        looks: list[tp.Any] = []
        for cache in (cd, fresh(tmp_path)):
            looks += [sorted(cache), sorted(key for key, _ in cache.items())]
            looks += [sorted({*keys} - {*cache.missing(keys)}), keys[: len(cache)]]
        wrong += [look for look in looks if look != keys]
    process.communicate()
    assert wrong == []
    assert dict(cd.items()) == dict.fromkeys(keys, 299)


def test_forgetting_all_while_keys_are_gone_through_loses_none(tmp_path: pathlib.Path) -> None:
    written_before(tmp_path, "host-1", range(10_000))
    written_before(tmp_path, "host-2", range(10_000, 20_000))
    cd = CacheDict[int](tmp_path)
    iterator = iter(cd)
    seen = [next(iterator)]
    cd._index.reset()
    assert [*seen, *iterator] == [str(n) for n in range(20_000)]


def test_a_frozen_folder_is_read_again_once_it_was_forgotten(tmp_path: pathlib.Path) -> None:
    cd = CacheDict[int](tmp_path)
    with cd.write():
        cd["a"] = 1
    with cd.frozen_cache_folder():
        cd._index.reset()
        assert "a" in cd
        cd._index.reset()
        assert cd.missing(["a", "b"]) == ["b"]


def test_older_values_are_found_where_newer_ones_could_not_be_written(tmp_path: pathlib.Path) -> None:
    cd = CacheDict[int](tmp_path)
    with cd.write():
        cd["a"] = 1
    cd._index.asked(1000)  # all is in memory
    assert cd._index.in_memory is not None
    with pytest.raises(CacheWriteError):
        replace_on_a_full_disk(cd)
    assert cd["a"] == 1


def replace_on_a_full_disk(cd: CacheDict[int]) -> None:
    def full(data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch, cd.write():
        cd["a"] = 2
        patch.setattr(cd._writer, "_append", full)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_a_thread_reads_finds_what_is_there(tmp_path: pathlib.Path) -> None:
    written_before(tmp_path, "host-1", range(5000))
    written_before(tmp_path, "host-2", range(5000, 10_000))
    assert len(CacheDict[int](tmp_path)) == 10_000
    assert (tmp_path / sideindex.FILE_NAME).exists()
    cd = fresh(tmp_path)
    halfway, go_on = threading.Event(), threading.Event()
    still_true = cache_index.FolderIndex._is_still_true

    def slow(self: cache_index.FolderIndex, file: tp.Any, mark: tp.Any, seen: tp.Any) -> bool:
        if file.name.startswith("host-2"):
            halfway.set()
            go_on.wait()
        return still_true(self, file, mark, seen)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_index.FolderIndex, "_is_still_true", slow)
        thread = threading.Thread(target=lambda: cd.get("1"))
        thread.start()
        halfway.wait()
        child = os.fork()
        if child == 0:
            go_on.set()
            os._exit(0 if cd.get("1") == 1 and "9999" in cd else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        go_on.set()
        thread.join()
