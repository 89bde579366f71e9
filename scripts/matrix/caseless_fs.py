"""Run a command whose folder for temporary files has names that differ in more than case, as on macOS and Windows.

Runs as ``python caseless_fs.py FOLDER COMMAND...``: the file system is mounted by FUSE over a folder below FOLDER,
keeps the case that a name was first written in, and finds it by any other.
"""

import os
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

import mfusepy

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "torture"))
from late_fs import LateFolder  # the search path is set just above


class CaselessFolder(LateFolder):
    """A folder in which ``a`` and ``A`` are one name; nothing is late in it."""

    def _real(self, path: str) -> str:
        real = self.folder
        for name in filter(None, path.split("/")):
            exact = f"{real}/{name}"
            if not os.path.lexists(exact) and os.path.isdir(real):
                wanted = name.casefold()
                exact = next(
                    (f"{real}/{each}" for each in os.listdir(real) if each.casefold() == wanted), exact
                )
            real = exact
        return real

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Write at once: the file may be read by another name."""
        return os.pwrite(fh, data, offset)


def mount(real: str, place: str) -> None:
    """Mount the file system, until it is unmounted."""
    settings: dict[str, tp.Any] = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
    mfusepy.FUSE(
        CaselessFolder(real, 0.0), place, foreground=True, use_ino=True, allow_other=True, **settings
    )


def main(folder: str, *command: str) -> int:
    """Run the command with such a folder, and return its exit status."""
    real, place = f"{folder}/real", f"{folder}/caseless"
    for each in (real, place):
        os.makedirs(each)
    mounted = subprocess.Popen([sys.executable, __file__, "--mount", real, place])
    try:
        while not os.path.ismount(place):
            if mounted.poll() is not None:
                print("caseless_fs: the file system cannot be mounted here: not tried", file=sys.stderr)
                return 0
            time.sleep(0.05)
        Path(f"{place}/Case").touch()
        if not os.path.exists(f"{place}/cASE"):
            print("caseless_fs: the file system that was mounted tells names apart by case", file=sys.stderr)
            return 1
        env = {**os.environ, "TMPDIR": place}
        return subprocess.run([*command, f"--basetemp={place}/tests"], env=env, check=False).returncode
    finally:
        subprocess.run(["umount", "--lazy", place], check=False)
        mounted.wait()


if __name__ == "__main__":
    if sys.argv[1] == "--mount":
        mount(*sys.argv[2:])
    else:
        sys.exit(main(*sys.argv[1:]))
