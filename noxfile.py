"""The tests on all interpreters found here, and without what not every machine has: make matrix.

An interpreter that is not found is printed as not tried. Sessions that need more than a machine offers say so and are
skipped (case-insensitive paths need root and FUSE). ``make matrix ARGS="-s bare"`` runs a single one, ``ARGS=--list``
names them, and tests behind ``--`` are run in place of a session's own. Each runs two tests at a time, so that it can
go on beside other work.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nox

ROOT = Path(__file__).parent
VERSIONS = ("3.11", "3.12", "3.13")
CONSTRAINTS = "requirements-dev.lock"
# what runs in this process, or in jobs and pools of this machine
IN_PROCESS = [
    *(
        f"tests/{name}.py"
        for name in ("test_confdict", "test_utils", "test_helpers", "test_submit", "test_files")
    ),
    *(
        f"tests/{name}"
        for name in ("identity", "cachedict", "claims", "functions", "task", "map", "infra", "steps")
    ),
    *(f"tests/{name}" for name in ("catalog", "verifying", "engine")),
]
SHORT = [
    "tests/test_confdict.py",
    "tests/identity",
    "tests/cachedict",
    "tests/task/test_task.py",
    "tests/map/test_map.py",
]
# the file system that is mounted writes as root, whoever asks it
CASELESS = "not (umask or permissions or others or cannot_be_written)"
PYTEST = (
    "python",
    "-m",
    "pytest",
    "-p",
    "no:cacheprovider",
    "--numprocesses",
    "2",
    "-m",
    "not (slurm or long or torture)",
    "--deselect",
    "tests/test_helpers.py::test_type_checkers_see_through_the_helpers",
)

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.options.stop_on_first_error = False


def runs(python: Path, version: str) -> bool:
    """Whether an interpreter is of a version; a stand-in of pyenv, which runs none, is not."""
    code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == version


def interpreter(version: str) -> Path | None:
    """Find an interpreter: on the path, or among those of pyenv and uv."""
    name = f"python{version}"
    on_path = shutil.which(name)
    places = [Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"]
    places.append(Path.home() / ".local" / "share" / "uv" / "python")
    installed = [path for place in places for path in sorted(place.glob(f"*/bin/{name}"), reverse=True)]
    found = [Path(on_path), *installed] if on_path else installed
    return next((path for path in found if runs(path, version)), None)


FOUND = {version: path for version in VERSIONS if (path := interpreter(version)) is not None}
for missing in sorted(set(VERSIONS) - set(FOUND)):
    print(f"matrix: Python {missing} is not tried: it is not installed here", file=sys.stderr)
os.environ["PATH"] = os.pathsep.join([*(str(path.parent) for path in FOUND.values()), os.environ["PATH"]])
OLDEST = min(FOUND, key=VERSIONS.index)


def install(session: nox.Session, extras: str, *constraints: str) -> None:
    """Install exca into the environment of a session."""
    session.install("--quiet", *constraints, "--editable", f".[{extras}]")


def play(session: nox.Session, *tests: str, **env: str) -> None:
    """Run tests in a session, or what the command line asks for in their place."""
    with tempfile.TemporaryDirectory(prefix="exca-matrix-") as folder:
        os.chmod(folder, 0o711)  # noqa: S103 # other users take part in some tests
        session.run(*PYTEST, f"--basetemp={folder}/tests", *(session.posargs or tests), env=env)


@nox.session(python=list(FOUND))
def newest(session: nox.Session) -> None:
    """Run the tests with the newest versions of all dependencies."""
    install(session, "tables,neuro,test")
    play(session, *IN_PROCESS)


@nox.session(python=list(FOUND))
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions of all dependencies, where these can be had for an interpreter."""
    if session.python != OLDEST:
        session.skip(f"the lowest versions have no wheels for Python {session.python}")
    constraints = Path(session.create_tmp()) / "constraints.txt"
    text = subprocess.run(
        [sys.executable, ROOT / "scripts/lowest.py"], capture_output=True, text=True, check=True
    )
    constraints.write_text(text.stdout, encoding="utf-8")
    install(session, "tables,test", "--constraint", str(constraints))
    # "typed" cases hold what pydantic 2.14 makes of them
    play(session, *SHORT, "-k", "not typed")


@nox.session(python=OLDEST)
def bare(session: nox.Session) -> None:
    """Run the tests with no extra installed."""
    install(session, "test", "--constraint", CONSTRAINTS)
    play(session, *SHORT, "tests/functions", "tests/steps")


@nox.session(python=OLDEST)
def extras(session: nox.Session) -> None:
    """Take the packages of each extra away, one after the other."""
    install(session, "completion,dask,plot,search,tables,ui,test", "--constraint", CONSTRAINTS)
    session.run("python", "scripts/matrix/extras.py")


@nox.session(python=OLDEST)
@nox.parametrize("what", ["fcntl,fork,nofollow,proc", "proc"], ids=["all", "proc"])
def without(session: nox.Session, what: str) -> None:
    """Run the tests without fcntl, os.fork, os.O_NOFOLLOW and /proc; and without /proc alone, as on macOS."""
    install(session, "tables,test", "--constraint", CONSTRAINTS)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(str(session.run("python", "-I", "-c", code, silent=True)).strip())
    shutil.copy(ROOT / "scripts/matrix/taken_away.py", packages / "sitecustomize.py")
    (packages / "without.txt").write_text(what, encoding="utf-8")
    play(session, *IN_PROCESS)


@nox.session(python=OLDEST)
def caseless(session: nox.Session) -> None:
    """Run the tests in a folder whose names differ in more than case."""
    install(session, "tables,test", "--constraint", CONSTRAINTS)
    session.install("--quiet", "--constraint", CONSTRAINTS, "mfusepy")
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        session.skip("case-insensitive paths are not tried: mounting them needs root and FUSE")
    with tempfile.TemporaryDirectory(prefix="exca-matrix-") as folder:
        session.run(
            "python",
            "scripts/matrix/caseless_fs.py",
            folder,
            *PYTEST,
            *(session.posargs or SHORT),
            "-k",
            CASELESS,
        )
