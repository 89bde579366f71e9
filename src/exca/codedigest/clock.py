"""When this process began to run Python: a file that has not changed since is what it imported."""

import functools
import os
import time

_FORKED = 0x40  # PF_FORKNOEXEC: it goes on with what its parent imported
_MARGIN = 100_000_000  # ns: file systems take their times from a clock that is some milliseconds late


def unchanged_since_start(status: os.stat_result) -> bool:
    """Whether a file is as it was when this process began. Its ``ctime`` can't be set back, unlike its ``mtime``."""
    return max(status.st_ctime_ns, status.st_mtime_ns) < began() - _MARGIN


@functools.lru_cache(maxsize=1)
def began() -> int:
    """When this process began, in nanoseconds since 1970; for a forked one, when the process that it goes on from did.

    0 where this can't be known.
    """
    pid = os.getpid()
    try:
        for _ in range(64):
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            if int(fields[6]) & _FORKED:
                pid = int(fields[1])
                continue
            now, running = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            return now - running + int(fields[19]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        pass
    return _elsewhere()


def _elsewhere() -> int:
    import psutil

    try:
        if os.path.exists(
            "/proc/self/stat"
        ):  # Linux, where /proc hides other processes: whether it forked is unknown
            return 0
        return int(psutil.Process().create_time() * 1e9)
    except psutil.Error:
        return 0
