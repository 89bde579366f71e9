"""Heartbeats across hosts: giving them (through a heartbeat process) and reading them.

When it starts. A claimant may be stopped (SIGSTOP, a debugger, a frozen cgroup) at any moment, so from
another host "stopped just after claiming" and "died just after claiming" look the same unless another process on the
claimant's host is there to tell. Therefore it is spawned *before* a process's first claim file appears, and
knows of each claim before its file appears (one write into a pipe, 1 us). Spawning is one posix_spawn (about 1 ms, once
a process); its own start (10 ms) goes on beside the claimant. It ends when its owner ends.

How it is read. An observer remembers the counter it saw and for how long it has seen it stand still, on its own
monotonic clock, and counts no more than one period per look: an observer that was itself stopped, or whose clock
jumped, learns nothing from the gap. ``MISSED`` periods without a beat mean dead: 40 s by default.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
import typing as tp

from . import heartbeat_process
from .owner import Process

MISSED = 8
MAX_REMEMBERED = 100_000
MAX_STARTED = 5  # in a process's life: after so many killed ones, a thread does it
PATIENCE = 2.0  # seconds for a full pipe to be read


def period() -> float:
    """Seconds between two beats of this process's claims (``EXCA_HEARTBEAT``, default 5)."""
    try:
        return max(0.05, float(os.environ.get("EXCA_HEARTBEAT", "5")))
    except ValueError:
        return 5.0


class Heart:
    """Gives the beats for the claims of this process; one per process."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._pipe: int | None = None
        self._child_pid: int | None = None
        self._local: heartbeat_process.Beats | None = None
        self._spawned = 0
        self.watched: dict[str, Process] = {}
        # names of the files in `watched`: a folder may be spelled in several ways
        self.held: set[str] = set()
        self.unwanted: set[str] = set()  # files that are given up and could not be removed

    def watch(self, path: str, process: Process, remember: bool = True) -> None:
        """Beat for this claim file, which is about to appear, while the process lives.

        Not to `remember` is for a worker of ours, which soon has a heartbeat process of its own.
        """
        if remember:
            self.watched[path] = process
            self.held.add(os.path.basename(path))
        self._tell(f"+ {process.pid} {process.start} {path}\n")

    def forget(self, path: str) -> None:
        """Stop beating for this claim file."""
        self._drop(path, f"- {path}\n")

    def discard(self, path: str) -> None:
        """Stop beating for this claim file, which could not be removed: the heartbeat process tries again."""
        if len(self.unwanted) < MAX_REMEMBERED:
            self.unwanted.add(path)
        if self._local is not None:
            self._local.unwanted.add(path)
        self._drop(path, f"x {path}\n")

    def _drop(self, path: str, order: str) -> None:
        self.held.discard(os.path.basename(path))
        if self.watched.pop(path, None) is not None and self._pipe is not None:
            # a dead heartbeat process is replaced when it is needed, not here: the garbage collector may be the caller
            with contextlib.suppress(OSError):
                _write(self._pipe, os.fsencode(order))

    def ensure(self) -> None:
        """Replace a heartbeat process that was killed."""
        if self._pipe is not None and self.watched:
            self._tell("\n")

    def _tell(self, line: str) -> None:
        if self._local is not None:
            return
        pipe = self._pipe
        try:
            if pipe is None:
                raise BrokenPipeError
            _write(pipe, os.fsencode(line))  # below PIPE_BUF: lines of several threads never mix
        except OSError:
            self._start(pipe, line)

    def _start(self, broken: int | None, line: str) -> None:
        with self._lock:
            if self._pipe is not None and self._pipe != broken:
                _write(self._pipe, os.fsencode(line))  # another thread was faster
                return
            self._close()
            while self._spawned < MAX_STARTED:
                self._spawned += 1
                pipe = self._spawn()
                if pipe is None:
                    break
                try:
                    _write(pipe, self._all())
                except OSError:
                    os.close(pipe)
                    continue
                self._pipe = pipe  # only now: other threads' lines must not get into the middle
                return
            self._local = heartbeat_process.Beats()
            self._local.unwanted.update(self.unwanted)
            threading.Thread(target=self._beat_here, name="exca-heartbeat", daemon=True).start()

    def _all(self) -> bytes:
        lines = [f"+ {p.pid} {p.start} {path}\n" for path, p in list(self.watched.items())]
        lines += [f"x {path}\n" for path in list(self.unwanted)]
        return os.fsencode("".join(lines))

    def _spawn(self) -> int | None:
        """Start a heartbeat process and return the pipe to it; None where there is no way to."""
        python = "" if getattr(sys, "frozen", False) else sys.executable
        if not python or not os.path.exists("/proc/self/stat") or not hasattr(os, "posix_spawn"):
            return None
        me = Process.current()
        read, write = os.pipe()
        os.set_blocking(write, False)
        args = [python, "-I", "-S", heartbeat_process.__file__, str(period()), str(me.pid), me.start]
        actions: list[tuple[tp.Any, ...]] = [(os.POSIX_SPAWN_DUP2, read, 0)]
        actions += [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
        # no LD_PRELOAD: what bends the owner's clock must not bend the heartbeat process's
        env = {k: os.environ[k] for k in ("PATH", "LD_LIBRARY_PATH") if k in os.environ}
        try:
            self._child_pid = os.posix_spawn(python, args, env, file_actions=actions, setsid=True)
        except (OSError, NotImplementedError):
            os.close(write)
            return None
        finally:
            os.close(read)
        return write

    def _close(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        if self._child_pid is not None:
            try:
                os.kill(self._child_pid, signal.SIGKILL)  # it is dead already, or stopped and useless
                os.waitpid(self._child_pid, 0)
            except OSError:
                pass
            self._child_pid = None

    def _beat_here(self) -> None:
        """Where no heartbeat process can be spawned, a thread beats: right as long as this process is not stopped."""
        beats = self._local
        assert beats is not None
        while True:
            time.sleep(period())
            beats.count += 1
            digits = beats.digits()
            for path, process in list(self.watched.items()):
                if process.alive() is not False:
                    heartbeat_process.beat_file(path, digits)
            beats.remove()

    def after_fork(self) -> None:
        """In a forked child: the parent's claims and heartbeat process are not ours."""
        if self._pipe is not None:
            os.close(self._pipe)
        self._reset()  # with a new lock: a thread that the child has not got may hold the old one


def _write(pipe: int, data: bytes) -> None:
    """Write everything; raises BrokenPipeError when the heartbeat process is gone or does not read any more."""
    while data:
        try:
            data = data[os.write(pipe, data) :]
        except BlockingIOError:
            if not select.select([], [pipe], [], PATIENCE)[1]:
                raise BrokenPipeError("the heartbeat process does not read") from None


class Observer:
    """Remembers how long each claim's counter has not changed, by a clock that never goes back."""

    def __init__(self, clock: tp.Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[tp.Hashable, float, float]] = {}

    def still(self, path: str, counter: tp.Hashable, every: float) -> bool:
        """Whether this counter, just read, has been the same for long enough to call its owner dead."""
        now = self._clock()
        before, credit, last = self._seen.get(path, (None, 0.0, now))
        if before != counter:
            credit = 0.0
        else:
            credit += min(now - last, every)
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.clear()  # forgetting only delays
        self._seen[path] = (counter, credit, now)
        return credit >= MISSED * every


heart: Heart = Heart()
observer: Observer = Observer()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=heart.after_fork)
