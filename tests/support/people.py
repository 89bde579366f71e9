"""Users who share a folder: processes of alice and bob, on the real file system, with the rights that these have.

They have numbers and no entries in the lists of users and groups, so nothing of the machine is changed. Where an
interpreter is in a folder that only root may enter, the processes see that folder with other rights, in a mount
namespace of their own.
"""

import dataclasses
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

TEAM = 64_330  # a group to which both belong
_ENTER = """
set -e
mount --make-rprivate / 2> /dev/null || true
mkdir -p "$SPARE" && mount --bind "$HIDDEN/$FIRST" "$SPARE"
mount -t tmpfs -o mode=755 tmpfs "$HIDDEN"
mkdir "$HIDDEN/$FIRST" && mount --move "$SPARE" "$HIDDEN/$FIRST"
exec "$@"
"""


@dataclasses.dataclass(frozen=True)
class Person:
    """Somebody who runs Python.

    Parameters
    ----------
    name
        login name
    uid
        number of the user, and of a group of its own
    """

    name: str
    uid: int

    def start(
        self, folder: Path, code: str, umask: int = 0o002, **environment: str
    ) -> "subprocess.Popen[str]":
        """Start an interpreter of this person.

        Parameters
        ----------
        folder
            where it works
        code
            what it runs
        umask
            as the person has set it
        environment
            more variables
        """
        return self._start(folder, code, umask, None, environment)

    def talk_to(self, folder: Path, code: str, **environment: str) -> "subprocess.Popen[str]":
        """Start an interpreter as `start` does, with a pipe to its stdin."""
        return self._start(folder, code, 0o002, subprocess.PIPE, environment)

    def _start(
        self, folder: Path, code: str, umask: int, stdin: int | None, environment: dict[str, str]
    ) -> "subprocess.Popen[str]":
        env = {k: v for k, v in os.environ.items() if not k.startswith(("EXCA_", "XDG_"))}
        env |= {"LOGNAME": self.name, "USER": self.name, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        # the latter chooses another source
        paths = (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))
        # what they find out of code is kept nowhere: their homes are looked through
        env |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "EXCA_CACHE_DIR": "none", **environment}
        groups = ["--reuid", str(self.uid), "--regid", str(self.uid), "--groups", str(TEAM)]
        command = ["setpriv", *groups, sys.executable, "-c", textwrap.dedent(code)]
        hidden = _hidden(Path(sys.base_prefix))
        if hidden is not None:
            env |= {"HIDDEN": str(hidden[0]), "FIRST": hidden[1], "SPARE": f"/tmp/.exca-people-{os.getpid()}"}
            command = ["unshare", "--mount", "sh", "-c", _ENTER, "sh", *command]
        return subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            umask=umask,
            text=True,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, folder: Path, code: str, umask: int = 0o002, **environment: str) -> str:
        """Run code to its end and return what it printed; an error of it fails the test."""
        process = self.start(folder, code, umask, **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, f"{self.name}: {err}"
        return out

    def owns(self, path: Path) -> None:
        """Give a file, a link or a folder to this person."""
        os.lchown(path, self.uid, self.uid)


ALICE, BOB = Person("alice", 64_321), Person("bob", 64_322)


def _hidden(prefix: Path) -> tuple[Path, str] | None:
    """The first folder above the interpreter that others may not enter, and what follows in it."""
    above = [*reversed(prefix.parents), prefix]
    for folder, below in itertools.pairwise(above):
        if not folder.stat().st_mode & 0o001:
            return folder, below.name
    return None


def missing_because() -> str | None:
    """Why nothing can be run as other users here; None where it can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root, to run processes of other users"
    missing = [name for name in ("setpriv", "unshare", "mount") if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    try:
        ALICE.run(Path("/"), "import exca, pydantic, numpy")
    except (AssertionError, subprocess.SubprocessError) as e:
        return f"no process of another user can run Python here: {e}"
    return None


@pytest.fixture(scope="session")
def people() -> None:
    """Skip where there is nothing that could be run as other users."""
    reason = missing_because()
    if reason is not None:
        pytest.skip(reason)


class Commons:
    """Folders of two people.

    Parameters
    ----------
    place
        a folder that everybody may enter
    """

    def __init__(self, place: Path) -> None:
        self.shared = place / "shared"  # of the team: setgid, writable to the group
        self.shared.mkdir()
        os.chown(self.shared, 0, TEAM)
        self.shared.chmod(0o2775)
        self.homes = {}
        for person in (ALICE, BOB):
            self.homes[person] = home = place / person.name
            home.mkdir(mode=0o700)
            person.owns(home)

    def home(self, person: Person) -> Path:
        """A folder that only this person may enter."""
        return self.homes[person]

    def run(self, person: Person, code: str, umask: int = 0o002, **environment: str) -> str:
        """Run code of a person, which finds the folders as ``SHARED`` and ``HOME`` in its environment."""
        return person.run(self.homes[person], code, umask, SHARED=str(self.shared), **environment)

    def start(
        self, person: Person, code: str, umask: int = 0o002, **environment: str
    ) -> "subprocess.Popen[str]":
        """Start code of a person, as `run` does."""
        return person.start(self.homes[person], code, umask, SHARED=str(self.shared), **environment)

    def content(self, person: Person) -> dict[str, bytes | None]:
        """All that is in the home of a person, the bytes of files included."""
        home = self.homes[person]
        found = sorted(home.rglob("*"))
        return {str(p.relative_to(home)): p.read_bytes() if p.is_file() else None for p in found}


@pytest.fixture
def commons(people: None) -> Iterator[Commons]:
    """A folder that alice and bob share, and a home for each; not below pytest's own, which is root's alone."""
    place = Path(tempfile.mkdtemp(prefix="exca-commons-", dir="/tmp"))
    place.chmod(0o755)
    yield Commons(place)
    shutil.rmtree(place, ignore_errors=True)
