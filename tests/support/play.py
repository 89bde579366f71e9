"""Runs the scripts of a page one after the other, each as ``python NAME`` in the current directory would.

One interpreter imports what nearly all of them need, and each script runs in a fork of it. What a script prints is in
``NAME.stdout`` and ``NAME.stderr`` in the folder that is named first, and its exit code in ``NAME.code``.
"""

import importlib.machinery
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
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)


def main() -> None:
    folder = Path(sys.argv[1])
    names = sys.argv[2:]
    sys.path[0] = os.getcwd()
    import numpy  # noqa: F401 # for the forks

    import exca

    for name in exca.__all__:  # the names are loaded when first touched
        getattr(exca, name)
    for name in names:
        with open(folder / f"{name}.stdout", "wb") as out, open(folder / f"{name}.stderr", "wb") as err:
            if name.endswith(".sh"):
                code = subprocess.run(["bash", "-eu", name], stdout=out, stderr=err, check=False).returncode
            elif name.startswith("test_"):
                command = [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "--rootdir",
                    ".",
                    name,
                ]
                code = subprocess.run(command, stdout=out, stderr=err, check=False).returncode
            else:
                sys.stdout.flush()
                child = os.fork()
                if child == 0:
                    redirect(out, err)
                    become(name)
                    return
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        (folder / f"{name}.code").write_text(str(code))


if __name__ == "__main__":
    main()
