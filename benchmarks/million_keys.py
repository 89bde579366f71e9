"""Write 1,000,000 keys from 4 processes at once, read every one back, and say what it took.

python benchmarks/million_keys.py [--keys N] [--writers N] [--folder DIR]
"""

import argparse
import multiprocessing
import pathlib
import subprocess
import sys
import tempfile
import time

from exca.cachedict import CacheDict

FIRST = """
import resource, sys, time
from exca.cachedict import CacheDict
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
cd = CacheDict(sys.argv[1])
value = cd[sys.argv[2]]
took = time.perf_counter() - start
assert value == int(sys.argv[2]) / 2, value
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
number = len(cd)
counted = time.perf_counter() - start
start = time.perf_counter()
for _ in range(10_000):
    assert "nope" not in cd
missed = (time.perf_counter() - start) / 10_000
memory = f"{peak / 1024:.1f} {(peak - before) / 1024:.1f}"
print(f"{took * 1e3:.2f} {memory} {counted * 1e3:.2f} {number} {missed * 1e6:.2f}")
"""


def write(folder: str, writer: int, writers: int, keys: int) -> float:
    """Write every so many-th key; returns the seconds it took."""
    cd = CacheDict[float](folder)
    start = time.perf_counter()
    with cd.write():
        for number in range(writer, keys, writers):
            cd[str(number)] = number / 2
    return time.perf_counter() - start


def main() -> None:
    """Run the whole and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--folder", type=pathlib.Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        start = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(args.writers) as pool:
            jobs = [(folder, writer, args.writers, args.keys) for writer in range(args.writers)]
            seconds = pool.starmap(write, jobs, chunksize=1)
        total = time.perf_counter() - start
        print(f"{args.keys:,} keys from {args.writers} processes: {total:.2f} s in all")
        print(f"put, each process: {max(seconds) / (args.keys / args.writers) * 1e6:.2f} us a key")
        for name in ("first", "next"):  # the first reader merges what the writers left apart
            command = [sys.executable, "-c", FIRST, folder, str(args.keys // 3)]
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            took, peak, more, counted, number, missed = line
            print(
                f"{name} process: open and get one key {took} ms ({peak} MB, {more} MB of it beyond the imports)"
            )
            print(f"{name} process: len {counted} ms, a miss {missed} us")
            assert int(number) == args.keys, number
        cd = CacheDict[float](folder)
        keys = [str(number) for number in range(args.keys)]
        start = time.perf_counter()
        assert cd.missing(keys) == []
        print(f"missing, all keys: {(time.perf_counter() - start) / args.keys * 1e6:.2f} us a key")
        start = time.perf_counter()
        for position, value in enumerate(cd.iter_values(keys)):
            assert value == position / 2
        print(f"read back, every key: {(time.perf_counter() - start) / args.keys * 1e6:.2f} us a key")
        start = time.perf_counter()
        assert sum(value for _, value in cd.items()) == sum(number / 2 for number in range(args.keys))
        print(
            f"items, in the order of the files: {(time.perf_counter() - start) / args.keys * 1e6:.2f} us a key"
        )


if __name__ == "__main__":
    main()
