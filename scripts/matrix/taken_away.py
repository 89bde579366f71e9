"""Take away what not every platform has, in each interpreter that imports this as its ``sitecustomize``.

The file ``without.txt`` beside it names what, separated by commas: fcntl, fork, nofollow, proc, and names of packages.
Windows has none of the four, macOS has no ``/proc``. A stand-in for these systems: what else they do differently is not
played here. It is copied into an environment (and not put on ``PYTHONPATH``), so that processes which start with
variables of their own do without the same.
"""

import builtins
import functools
import io
import os
import sys
import typing as tp
from pathlib import Path

WITHOUT = set(Path(__file__).with_name("without.txt").read_text(encoding="utf-8").strip().split(","))


def hidden(function: tp.Callable[..., tp.Any]) -> tp.Callable[..., tp.Any]:
    """Have a function find nothing below /proc, unless psutil asks, which has other sources elsewhere."""

    @functools.wraps(function)
    def looking(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        path = args[0] if args else kwargs.get("path", kwargs.get("file"))
        if isinstance(path, (str, bytes, os.PathLike)) and (os.fsdecode(path) + "/").startswith("/proc/"):
            asking = sys._getframe(1).f_globals.get("__name__", "")  # the caller's module
            if not asking.startswith("psutil"):
                raise FileNotFoundError(2, "No such file or directory", path)
        return function(*args, **kwargs)

    return looking


for module in WITHOUT - {"fork", "nofollow", "proc"}:
    sys.modules[module] = tp.cast(tp.Any, None)  # importing it is an ImportError
if "fork" in WITHOUT:
    del os.fork, os.forkpty
if "nofollow" in WITHOUT:
    del os.O_NOFOLLOW
if "proc" in WITHOUT:
    for name in ("open", "stat", "lstat", "listdir", "scandir", "readlink", "access"):
        setattr(os, name, hidden(getattr(os, name)))
    for name in ("exists", "isfile", "isdir", "lexists"):  # implemented in C by some versions
        present = getattr(os.path, name)
        setattr(
            os.path,
            name,
            lambda path, present=present: not str(path).startswith("/proc/") and present(path),
        )
    builtins.open = io.open = hidden(io.open)
