"""Configurations whose tasks tell what kind of process they are in."""

import atexit
import gc
import locale
import logging
import os
import random
import signal
import sys
import threading
import time
import typing as tp
import warnings
from pathlib import Path

import numpy as np
import pydantic

import exca

IMPORTED_BY: int = os.getpid()
DRAWN: float = random.random()


def _status(*names: str) -> dict[str, str]:
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    return {name: rest.strip() for name, _, rest in (line.partition(":") for line in lines) if name in names}


class Observer(pydantic.BaseModel):
    """Returns what can be seen of its process, without what is another in every process."""

    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> dict[str, tp.Any]:
        numbers = (signal.SIGKILL, signal.SIGSTOP)
        main = sys.modules["__main__"]
        pid = os.getpid()
        return {
            "is a fork": "forks" in Path("/proc/self/cmdline").read_text(),
            "signals": {
                s.name: str(signal.getsignal(s))
                for s in signal.valid_signals()
                if s not in numbers and hasattr(s, "name")
            },
            "status": _status(
                *("Umask", "SigBlk", "SigIgn", "SigCgt", "Uid", "Gid", "Groups", "CapEff", "NoNewPrivs")
            ),
            "python threads": [thread.name for thread in threading.enumerate()],
            "main thread": threading.current_thread() is threading.main_thread(),
            "wakeup": signal.set_wakeup_fd(-1),
            "timer": signal.getitimer(signal.ITIMER_REAL),
            "environment": {k: v for k, v in os.environ.items() if k != "SUBMITIT_LOCAL_JOB_ID"},
            "cwd": os.getcwd(),
            "argv": [len(sys.argv), sys.argv[0], sys.argv[3:7]],
            "orig_argv": [len(sys.orig_argv), sys.orig_argv[1:3], sys.orig_argv[5:9]],
            "path": sys.path,
            "main": [
                main.__name__,
                main.__spec__.name if main.__spec__ else None,
                getattr(main, "__file__", None),
            ],
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
            "limits": Path("/proc/self/limits").read_text(),
            "leader": [os.getsid(0) == pid, os.getpgid(0) == pid],
            "descriptors": sorted(_targets()),
            "stdin": os.readlink("/proc/self/fd/0"),
            "streams": [
                [s.fileno(), s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty()]
                for s in (tp.cast(tp.Any, sys.stdout), tp.cast(tp.Any, sys.stderr))
            ],
            "filters": [str(f) for f in warnings.filters],
            "handlers": [
                str(type(h)) for h in logging.getLogger().handlers + logging.getLogger("exca").handlers
            ],
            "levels": [logging.getLogger().level, logging.getLogger("exca").level],
            "gc": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 10_000],
            "flags": str(sys.flags),
            "limits of python": [sys.getrecursionlimit(), sys.getswitchinterval()],
            "hooks": [sys.excepthook is sys.__excepthook__, sys.gettrace() is None, sys.getprofile() is None],
            "locale": locale.setlocale(locale.LC_ALL),
            "imported here": pid == IMPORTED_BY,
            "cpus": sorted(os.sched_getaffinity(0)),
        }


def _targets() -> tp.Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # that of the listing
            continue
        yield target.split(":")[0] if ":" in target else Path(target).name.partition("_")[2] or target


class Drawer(pydantic.BaseModel):
    """Draws from every global generator."""

    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> dict[str, float]:
        drawn = {"random": random.random(), "numpy": float(np.random.mtrand.random_sample()), "module": DRAWN}
        if "torch" in sys.modules:
            drawn["torch"] = float(sys.modules["torch"].rand(1))
        return drawn


class Ending(pydantic.BaseModel):
    """Leaves things to the end of its process."""

    place: Path
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        print("printed, not flushed")
        sys.stderr.write("to stderr\n")
        left_open = (self.place / "left-open").open("w")
        left_open.write("whole")
        _held.extend([left_open, _Finalized(self.place / "finalized")])
        atexit.register((self.place / "atexit").touch)
        threading.Thread(target=self._late).start()
        return self.x

    def _late(self) -> None:
        time.sleep(0.2)
        (self.place / "thread").touch()


class _Finalized:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __del__(self) -> None:
        self.path.touch()


_held: list[object] = []


class Threads(pydantic.BaseModel):
    """Multiplies matrices in several threads, and returns the limits of threads."""

    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> dict[str, str | None]:
        a = np.ones((300, 300))
        assert float((a @ a)[0, 0]) == 300
        return {
            name: value
            for name, value in os.environ.items()
            if name.endswith(("_THREADS", "_MAXIMUM_THREADS"))
        }


class Greedy(pydantic.BaseModel):
    """Holds memory, itself or in child processes, until a file is there or it is ended."""

    place: Path
    mib: int = 50
    children: int = 0
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        import mmap

        # address space only
        reserved = mmap.mmap(-1, 64 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
        held = b"x" * (self.mib << 20)
        for _ in range(self.children):
            if os.fork() == 0:  # shares what is held
                try:
                    while not (self.place / "gate").exists():
                        time.sleep(0.02)
                finally:
                    os._exit(0)
        (self.place / f"holds-{self.x}").touch()
        while not (self.place / "gate").exists():
            time.sleep(0.02)
        reserved.close()
        return len(held) >> 20
