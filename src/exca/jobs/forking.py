"""Processes for local jobs that are forked from one that has imported what they need, and as good as new interpreters.

Nothing of the user's project is imported before the fork, only exca and installed packages: what a module of the
project computes, draws or starts when it is imported belongs to each process alone. Forking is safe while this is the
only thread. The threads of OpenBLAS, which stops them before a fork, do not count; those of OpenMP would leave a child
without the threads that it waits for, and a CUDA context does not work in one.
"""

import atexit
import contextlib
import gc
import importlib
import io
import os
import pickletools
import platform
import signal
import sys
import sysconfig
import threading
import typing as tp
import warnings

from . import paths
from .environment import submitit_variables

# what a task imports, of ours and of what we depend on
_OURS = (
    *("cloudpickle", "orjson", "xxhash", "pydantic", "yaml", "socket", "ctypes"),
    *("exca.task", "exca.map", "exca.submit", "exca.claims", "exca.cachedict", "exca.identity"),
    *("exca.engine.call", "exca.engine.record", "exca.engine.items", "exca.engine.code", "exca.jobs.remote_errors"),
    *("exca.codedigest.computing", "exca.codedigest.finding", "pydantic.root_model", "importlib.metadata"),
)  # fmt: skip
_GPU_DEVICES = ("/dev/nvidia", "/dev/kfd")
_MAX_SCANNED = 1 << 20  # bytes of a pickle


def possible() -> bool:
    """Whether this system can do it at all."""
    return sys.platform == "linux" and hasattr(os, "fork") and hasattr(os, "pidfd_open")


# ---------------------------------------------------------------- before the fork


def modules_needed(pickles: tp.Iterable[bytes]) -> list[str]:
    """Installed modules that the classes and functions named in pickles need, as far as this interpreter knows them.

    Modules of the project are gone through, and not listed.
    """
    todo = [name for data in pickles for name in _named_in(data)]
    needed: dict[str, None] = {}
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        module = sys.modules.get(name)
        if name in seen or module is None or name in ("__main__", "__mp_main__", "builtins"):
            continue
        seen.add(name)
        file = getattr(module, "__file__", None)
        if file is None or is_installed(file):
            needed[name] = None
            continue
        if name.partition(".")[0] == "exca":
            continue
        for value in list(vars(module).values()):
            kind = type(value)
            other = value.__name__ if kind is type(sys) else getattr(value, "__module__", None)
            if type(other) is str:
                todo.append(other)
    # in the order in which they were imported here
    return [name for name in list(sys.modules) if name in needed]


def _named_in(data: bytes) -> list[str]:
    """Modules that a pickle names, without loading it."""
    found: dict[str, None] = {}
    texts: list[str] = []
    memo: dict[int, str] = {}
    of_a_module = False  # whether the next text is the name of a module that cloudpickle imports
    try:
        for op, arg, position in pickletools.genops(data):
            if (position or 0) > _MAX_SCANNED:
                break
            if op.name == "MEMOIZE":
                memo[len(memo)] = texts[-1] if texts else ""
            elif "UNICODE" in op.name or op.name in ("BINGET", "LONG_BINGET"):
                texts.append(arg if isinstance(arg, str) else memo.get(tp.cast(int, arg), ""))
                if of_a_module:
                    found[texts[-1]], of_a_module = None, False
            elif op.name == "STACK_GLOBAL" and len(texts) > 1:
                found[texts[-2]] = None
                of_a_module = texts[-1] == "subimport"
    except ValueError:  # no pickle: the job will tell
        pass
    return list(found)


def is_installed(file: str) -> bool:
    """Whether a file belongs to Python or to an installed package, not to a user's project."""
    real = os.path.realpath(file)
    if "site-packages" in real or "dist-packages" in real:
        return True
    return any(real.startswith(place + os.sep) for place in _python_places())


def _python_places() -> set[str]:
    return {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}


def prepare(modules: tp.Iterable[str]) -> bool:
    """Import what tasks need; returns whether this process may be forked afterwards."""
    missing = [name for name in (*_OURS, *modules) if name not in sys.modules]
    for name in missing:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as e:
            if e.name is None or not f"{name}.".startswith(f"{e.name}."):
                return False
            # else nothing has happened: it is not in this environment, or was no file where the task was submitted
        except BaseException:  # whatever it does when it is imported: the task will see it, by itself
            return False
    if not is_alone():
        return False
    if missing:
        platform.python_version()  # slow only once, and in every record
        gc.collect()
        gc.freeze()  # a collection in a child would write into every page
    return True


def is_alone() -> bool:
    """Whether nothing runs in this process, or is open, that a forked child could not go on with."""
    if threading.active_count() > 1 or has_open(*_GPU_DEVICES):
        return False
    if _threads() == 1:
        return True
    pid = fork()  # before which OpenBLAS ends its threads, and no other library does
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return _threads() == 1


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def has_open(*devices: str) -> bool:
    """Whether this process has a device open whose path begins so, as a context of CUDA keeps that of its driver."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith(devices):
                    return True
    return False


def fork() -> int:
    """Fork, with empty buffers."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():  # threads, of which `is_alone` knows more
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


# ---------------------------------------------------------------- after it


def become(own: paths.JobPaths, processes: int, arguments: tp.Sequence[str]) -> None:
    """Make a process that was just forked what an interpreter is that was just started for a job."""
    os.setsid()
    redirect(own)
    os.environ.update(submitit_variables(own, own.rank, processes))
    sys.argv[1:] = arguments
    sys.orig_argv[-1:] = arguments  # in the place of the order
    forget_the_parent()


def forget_the_parent() -> None:
    """Draw other numbers than the process that this one was forked from, and warn of what that was warned of."""
    # random has seeded itself
    if "numpy.random" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()
    importlib.invalidate_caches()
    warnings.onceregistry.clear()  # type: ignore[attr-defined] # typeshed leaves it out
    getattr(warnings, "_filters_mutated", lambda: None)()  # what was warned of while importing is forgotten


def redirect(own: paths.JobPaths) -> None:
    """Let what is printed go to the logs of a job."""
    for number, path in ((1, own.stdout), (2, own.stderr)):
        with paths.open_log(path) as log:
            os.dup2(log.fileno(), number)


def run_to_the_end(call: tp.Callable[[], int], inherited: tp.Container[str]) -> tp.NoReturn:
    """Call, and end this process as an interpreter ends, short of taking apart what was there before the fork.

    That would write into every page of it, which takes ten times as long as all else.
    """
    code = 1
    try:
        code = call()
    except SystemExit as e:
        code = _exit_code(e)
    except KeyboardInterrupt as e:
        sys.excepthook(type(e), e, e.__traceback__)
        _finish(inherited)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException as e:
        sys.excepthook(type(e), e, e.__traceback__)
    try:
        _finish(inherited)
    finally:
        os._exit(code & 0xFF)


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    sys.stderr.write(f"{error.code}\n")
    return 1


def _finish(inherited: tp.Container[str]) -> None:
    ctypes: tp.Any = None
    with contextlib.suppress(ImportError):  # some Pythons are built without it
        import ctypes

    threading._shutdown()  # type: ignore[attr-defined] # waits for threads that are no daemons
    atexit._run_exitfuncs()
    _flush_streams()
    for value in gc.get_objects():  # which has none of before the fork: they are frozen
        if type(value) in (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom):
            with contextlib.suppress(Exception):
                if not value.closed:
                    value.flush()
    # what the job imported goes, and what only that held
    modules = [sys.modules.pop(name) for name in list(sys.modules) if name not in inherited]
    gc.collect()
    for module in reversed(modules):
        content: dict[str, tp.Any] = getattr(module, "__dict__", {})
        for private in (True, False):  # in the order of the interpreter
            for name in [
                name for name in content if name.startswith("_") == private and name != "__builtins__"
            ]:
                content[name] = None
    gc.collect()
    _flush_streams()
    if ctypes is not None:
        ctypes.CDLL(None).fflush(None)  # what libraries printed by themselves


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the interpreter has no more to say then, either
            stream.flush()
