"""Runs the scripts of pages, each as ``python NAME`` in the folder of its page would.

One interpreter imports what nearly all of them need; each page, and each script of it, runs in a fork of it. A line of
JSON on stdin orders a page: the folder it is played in, the folder that takes what comes of it, the names of its
scripts, and the environment. What a script prints is then in ``NAME.stdout`` and ``NAME.stderr``, and its exit code in
``NAME.code``. A line on stdout tells that the page has ended.
"""

import importlib.machinery
import json
import os
import subprocess
import sys
import types
import typing as tp
from pathlib import Path


def become(name: str) -> None:
    """Run a script as the main module of this process."""
    path = os.path.abspath(name)
    sys.argv = [name]
    main = types.ModuleType("__main__")
    vars(main).update(
        __file__=path, __loader__=importlib.machinery.SourceFileLoader("__main__", path), __spec__=None
    )
    sys.modules["__main__"] = main
    exec(compile(Path(path).read_text(encoding="utf-8"), path, "exec"), vars(main))


def redirect(out: tp.IO[bytes], err: tp.IO[bytes]) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)


def play(came: Path, names: list[str]) -> bool:
    """Run scripts one after the other; return whether this process is one of them, which has run."""
    for name in names:
        with open(came / f"{name}.stdout", "wb") as out, open(came / f"{name}.stderr", "wb") as err:
            child = os.fork()
            if child == 0:
                redirect(out, err)
                if name.endswith(".sh"):
                    os.execvp("bash", ["bash", "-eu", name])
                if name.startswith("test_"):
                    options = ["-q", "-p", "no:cacheprovider", "--rootdir", "."]
                    os.execv(sys.executable, [sys.executable, "-m", "pytest", *options, name])
                become(name)
                return True
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        (came / f"{name}.code").write_text(str(code))
    return False


def main() -> None:
    import numpy  # noqa: F401 # for the forks

    # a module that a script rewrites within a second, at the same length, would be taken from its bytecode
    sys.dont_write_bytecode = True

    import exca

    for name in exca.__all__:  # the names are loaded when first touched
        getattr(exca, name)
    for line in sys.stdin:
        order = json.loads(line)
        page = os.fork()
        if page == 0:
            os.chdir(order["folder"])
            os.environ.clear()
            os.environ.update(order["environment"])
            sys.path[0] = order["folder"]
            play(Path(order["came"]), order["names"])
            return
        print(os.waitstatus_to_exitcode(os.waitpid(page, 0)[1]), flush=True)


class Player:
    """The interpreter that plays pages, for one process of the tests."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def play(self, folder: Path, came: Path, names: list[str], environment: dict[str, str]) -> None:
        """Run scripts of a page."""
        order = {"folder": str(folder), "came": str(came), "names": names, "environment": environment}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        ended = self._process.stdout.readline()
        assert ended == "0\n", f"the player ended with {ended!r}"

    def close(self) -> None:
        """End the interpreter."""
        self._process.communicate()


if __name__ == "__main__":
    main()
