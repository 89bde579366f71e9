"""Time and memory limits of local jobs, measured and enforced from outside: by the process that looks after a job.

Memory is what the processes of a job hold in RAM together, never address space: an interpreter with CUDA maps far more
than it uses. Pages that processes share by a fork count once.
"""

import contextlib
import os
import signal
import time
import typing as tp
from pathlib import Path

from . import paths

TIMEOUT, OUT_OF_MEMORY = "TIMEOUT", "OUT_OF_MEMORY"  # how a job ended that was ended here
WARN_AT = 0.9  # of the memory limit
EVERY = 0.25  # seconds between two looks at the memory
SHARE = 0.05  # of its time that a supervisor spends at most on looking
GRACE = 3.0  # seconds between the signal that asks processes to end and the one that ends them
_GIB = 1 << 30
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class Limits:
    """The limits of one job, and its processes.

    Parameters
    ----------
    seconds: float
        how long it may run; 0 for no limit
    memory: int
        how many bytes its processes may hold in RAM together; 0 for no limit
    log: Path
        its stderr, where the limits are told
    """

    def __init__(self, seconds: float, memory: int, log: Path) -> None:
        self.seconds: float = seconds
        self.memory: int = memory
        self.log: Path = log
        self.pids: list[int] = []  # its first processes
        self.word: str = ""  # which limit ended it
        self.said: str = ""  # of that
        self._began = self._looked = time.monotonic()
        self._warned = False
        self._kill_at: float | None = None

    def due(self) -> float | None:
        """How many seconds from now it wants to look; None for never."""
        now = time.monotonic()
        times: list[float] = []
        if self._kill_at is not None:
            times.append(self._kill_at)
        elif not self.word:
            times += [self._began + self.seconds] if self.seconds else []
            times += [self._looked + _recent.every()] if self.memory else []
        return max(0.0, min(times) - now) if times else None

    def look(self) -> None:
        """Enforce the limits, if it is time to."""
        if self.due() != 0:
            return
        now = self._looked = time.monotonic()
        if self._kill_at is not None:
            self._kill_at = None
            self._signal(_KILL)
            return
        if self.memory:
            self._look_at_memory()
        if self.seconds and not self.word and now - self._began >= self.seconds:
            self.said = f"time limit of {self.seconds / 60:g} min reached (timeout_min), ending the job"
            self._tell(self.said)
            self.word = TIMEOUT
            self.end()

    def end(self) -> None:
        """Ask the processes to end; those that have not some seconds later are killed."""
        self._kill_at = time.monotonic() + GRACE
        self._signal(signal.SIGTERM)

    def _look_at_memory(self) -> None:
        used = resident(self.pids, self.memory)
        if used > self.memory:
            self.said = (
                f"the job holds {used / _GIB:.3g} GiB in memory, more than its limit of {self.memory / _GIB:.3g} GiB "
                "(mem_gb), ending the job"
            )
            self._tell(self.said)
            self.word = OUT_OF_MEMORY
            self._signal(_KILL)
        elif used > WARN_AT * self.memory and not self._warned:
            self._warned = True
            self._tell(
                f"the job holds {used / _GIB:.3g} GiB in memory, close to its limit of {self.memory / _GIB:.3g} GiB "
                "(mem_gb), beyond which it is ended"
            )

    def _tell(self, text: str) -> None:
        with contextlib.suppress(OSError), paths.open_log(self.log) as log:
            log.write(f"exca: {text}\n".encode())

    def _signal(self, number: int) -> None:
        for pid in tree(self.pids):
            with contextlib.suppress(OSError):
                os.kill(pid, number)


class _Seen(tp.NamedTuple):
    """A process as a list of all processes has it."""

    parent: int
    session: int
    resident: int  # bytes


class _Recent:
    """The processes of this machine as they were a moment ago: one look serves all jobs of a supervisor."""

    def __init__(self) -> None:
        self.processes: dict[int, _Seen] = {}
        self._at = -EVERY
        self._took = 0.0

    def every(self) -> float:
        """Seconds between two looks: where there are very many processes they become rare."""
        return max(EVERY, self._took / SHARE)

    def look(self) -> dict[int, _Seen]:
        """Look, unless that was just done."""
        start = time.monotonic()
        if start - self._at >= self.every() / 2:
            self.processes = _processes()
            self._at = time.monotonic()
            self._took = self._at - start
        return self.processes


def _processes() -> dict[int, _Seen]:
    """All processes of this machine that are not dead."""
    if not os.path.exists("/proc/self/stat"):
        return _processes_psutil()
    page = os.sysconf("SC_PAGE_SIZE")
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            fd = os.open(f"/proc/{name}/stat", os.O_RDONLY)
            try:
                text = os.read(fd, 4096)
            finally:
                os.close(fd)
        except OSError:  # it has ended
            continue
        fields = text[text.rfind(b")") + 2 :].split(b" ")
        if fields[0] not in b"ZX":
            found[int(name)] = _Seen(int(fields[1]), int(fields[3]), int(fields[21]) * page)
    return found


def _processes_psutil() -> dict[int, _Seen]:
    import psutil

    found = {}
    for process in psutil.process_iter(["ppid", "memory_info"]):
        memory = process.info["memory_info"]
        found[process.pid] = _Seen(process.info["ppid"] or 0, 0, 0 if memory is None else memory.rss)
    return found


def _descendants(roots: tp.Iterable[int], all_of_them: tp.Mapping[int, _Seen]) -> list[int]:
    """The roots, their descendants, and what is left of sessions that they began."""
    roots = set(roots)
    children: dict[int, list[int]] = {}
    for pid, seen in all_of_them.items():
        children.setdefault(seen.parent, []).append(pid)
    todo = [pid for pid, seen in all_of_them.items() if pid in roots or seen.session in roots]
    found: dict[int, None] = {}
    while todo:
        pid = todo.pop()
        if pid not in found:
            found[pid] = None
            todo += children.get(pid, ())
    return list(found)


_recent = _Recent()


def tree(roots: tp.Iterable[int]) -> list[int]:
    """The ids of processes, of their descendants, and of what else runs in sessions that they began."""
    return _descendants(roots, _processes())


def resident(roots: tp.Iterable[int], limit: int) -> int:
    """How many bytes a process tree holds in RAM; what processes share counts once where that decides about a limit."""
    everything = _recent.look()
    pids = _descendants(roots, everything)
    simple = sum(everything[pid].resident for pid in pids)
    if len(pids) < 2 or simple <= WARN_AT * limit:
        return simple
    # of two values that are never more than the truth the greater: the parts of what each process shares with others
    # (which may be outside of the tree), and all of the largest process with what the others have alone
    parts = [_rollup(pid, everything[pid].resident) for pid in pids]
    proportional = sum(part[1] for part in parts)
    largest = max(parts)
    return max(proportional, largest[0] + sum(part[2] for part in parts) - largest[2])


def _rollup(pid: int, simple: int) -> tuple[int, int, int]:
    """Memory of a process in bytes: all that it sees, its part of what it shares, what it has alone."""
    values = dict.fromkeys(("Rss", "Pss", "Private_Clean", "Private_Dirty"), 0)
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if name in values:
                    values[name] = int(rest.split()[0]) << 10
    except (FileNotFoundError, ProcessLookupError):
        return (0, 0, 0) if os.path.exists("/proc/self/smaps_rollup") else (simple, simple, simple)
    except (OSError, ValueError):  # of another user by now
        return simple, simple, simple
    return values["Rss"], values["Pss"], values["Private_Clean"] + values["Private_Dirty"]
