"""Supervisors of local jobs that stay: which submissions find them, and what is left when processes are killed."""

import contextlib
import os
import socket
import struct
import subprocess
import sys
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import elsewhere
from exca.errors import JobError
from exca.jobs import warm
from exca.jobs.order import Order
from task_models import Double, Failing, Sleeper
from waiting import wait_for

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process is forked"),
]
Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time
NOBODY = 65534


@pytest.fixture
def infra(tmp_path: Path) -> Infra:
    return {"cluster": "local", "folder": tmp_path / "cache"}


@pytest.fixture(autouse=True)
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the sockets of this test; those that stay are ended with it."""
    place = tmp_path / "run"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    monkeypatch.setenv("EXCA_LOCAL_WARM", "30")
    folder = place / f"exca-{os.geteuid()}"
    yield folder
    for pid in residents(folder):
        psutil.Process(pid).kill()


def residents(folder: Path) -> list[int]:
    """The processes that listen in a folder, as the kernel knows them."""
    found = []
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        with socket.socket(socket.AF_UNIX) as other, contextlib.suppress(ConnectionRefusedError):
            here = os.open(folder, os.O_RDONLY)
            try:
                other.connect(f"/proc/self/fd/{here}/{path.name}")
            finally:
                os.close(here)
            found.append(struct.unpack("3i", other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
    return found


def resident(folder: Path) -> int:
    return int(wait_for(lambda: residents(folder), "a supervisor to stay")[0])


def supervisor_of(task: tp.Any) -> int:
    pid = task.infra.job().submission.pid
    assert pid is not None
    return int(pid)


def started_by(pid: int) -> int:
    """The parent of a process that is to live on."""
    return psutil.Process(pid).ppid()


def held(tmp_path: Path, infra: Infra, x: int) -> Sleeper:
    """A task that runs until its gate opens."""
    task = Sleeper(gate=tmp_path / "gate", x=x, infra=infra)
    task.infra.job()
    wait_for(task.started().exists, "the task to start")
    return task


def test_later_submissions_start_no_interpreter(tmp_path: Path, infra: Infra, sockets: Path) -> None:
    assert Double(x=1, infra=infra).compute() == 2
    stays = resident(sockets)
    one, two = held(tmp_path, infra, 1), held(tmp_path, infra, 2)  # at the same time
    assert started_by(supervisor_of(one)) == started_by(supervisor_of(two)) == stays
    pids = {int(task.started().read_text()) for task in (one, two)}
    assert {started_by(pid) for pid in pids} == {supervisor_of(one), supervisor_of(two)}
    (tmp_path / "gate").touch()
    assert [one.run(), two.run()] == [1, 2]
    with one.infra.job_array() as array:
        array.extend(one.infra.clone_obj(x=x) for x in range(3, 6))
    assert [task.run() for task in array] == [3, 4, 5]
    assert "started" in (array[0].infra.job().stdout() or "")
    assert residents(sockets) == [stays]


@pytest.mark.parametrize("what", ["environment", "directory", "umask", "limit", "path", "nice"])
def test_another_environment_finds_no_supervisor(
    tmp_path: Path, infra: Infra, sockets: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    found = find(tmp_path, monkeypatch, "")
    assert found == find(tmp_path, monkeypatch, "") != ""
    assert find(tmp_path, monkeypatch, what) not in ("", found)


def find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> str:
    """The address at which another interpreter looks for a supervisor, in which something is different."""
    program = """
import os, resource
from exca.jobs import local, warm
from exca.jobs.backends import Request
from exca.jobs.resources import Resources
what = sys.argv[1]
if what == "environment":
    os.environ["OMP_NUM_THREADS"] = "17"
elif what == "directory":
    os.chdir("/usr")
elif what == "umask":
    os.umask(0o077)
elif what == "limit":
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
elif what == "path":
    sys.path.append("/usr")
elif what == "nice":
    os.nice(3)
env = local._environment(Request([], Resources(), "logs", "name"))
print(warm.address(sys.executable, env))
"""
    return elsewhere.printed(program, what)


PACKAGE = "VALUE = {value}\n"
PROJECT = """
import pydantic
import exca
import its_package
OWN = {own}
class Model(pydantic.BaseModel):
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra(code="off")
    @infra.apply
    def run(self) -> list[int]:
        return [its_package.VALUE, OWN]
"""
CALL = """
sys.path.insert(0, sys.argv[2])
import its_project
print(its_project.Model(x=int(sys.argv[1]), infra=dict(cluster="local", folder=sys.argv[2] + "/cache")).run())
"""


def test_edited_files_count_at_once(tmp_path: Path, sockets: Path) -> None:
    package, project = tmp_path / "site-packages" / "its_package.py", tmp_path / "its_project.py"
    package.parent.mkdir()
    package.write_text(PACKAGE.format(value=1))
    project.write_text(PROJECT.format(own=10))

    def call(x: int) -> str:
        env = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(package.parent)}
        return elsewhere.printed(CALL, str(x), str(tmp_path), **env)

    assert call(1) == "[1, 10]"
    first = resident(sockets)
    project.write_text(PROJECT.format(own=200))
    assert call(2) == "[1, 200]"
    assert residents(sockets) == [first], "the project is imported by each task"
    package.write_text(PACKAGE.format(value=300))
    assert call(3) == "[300, 200]"
    wait_for(lambda: residents(sockets) not in ([], [first]), "another one to stay")


LEARN = """
import pydantic, exca
if sys.argv[1] == "more":
    import xml.dom.minidom
class Model(pydantic.BaseModel):
    x: str
    infra: exca.TaskInfra = exca.TaskInfra()
    @infra.apply
    def run(self) -> str:
        return xml.dom.minidom.__name__ if self.x == "more" else self.x
print(Model(x=sys.argv[1], infra=dict(cluster="local", folder=sys.argv[2])).run())
"""


def test_it_learns_what_later_submissions_need(tmp_path: Path, sockets: Path) -> None:
    assert elsewhere.printed(LEARN, "less", str(tmp_path)) == "less"
    stays = resident(sockets)
    assert elsewhere.printed(LEARN, "more", str(tmp_path)) == "xml.dom.minidom"
    assert elsewhere.printed(LEARN, "again", str(tmp_path)) == "again"
    assert residents(sockets) == [stays]


def test_it_ends_some_time_after_its_last_task(
    tmp_path: Path, infra: Infra, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXCA_LOCAL_WARM", "0.5")
    task = held(tmp_path, infra, 1)
    stays = psutil.Process(resident(sockets))
    (tmp_path / "gate").touch()
    assert task.run() == 1
    wait_for(lambda: not stays.is_running() or stays.status() == psutil.STATUS_ZOMBIE, "it to end")
    assert list(sockets.iterdir()) == []


def test_none_stays_where_that_is_not_wanted(
    infra: Infra, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXCA_LOCAL_WARM", "0")
    assert Double(x=1, infra=infra).compute() == 2
    assert not sockets.exists()


@pytest.mark.parametrize("value", ["1000", "long", "-1"])
def test_it_never_stays_for_long(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EXCA_LOCAL_WARM", value)
    assert 0 <= warm.seconds() <= 30


# ---------------------------------------------------------------- killed


def test_killed_processes_leave_the_others_alone(tmp_path: Path, infra: Infra, sockets: Path) -> None:
    assert Double(x=1, infra=infra).compute() == 2
    first = resident(sockets)
    task = held(tmp_path, infra, 1)
    psutil.Process(
        first
    ).kill()  # the one that stays: what it forked goes on, and another one takes its place
    other = held(tmp_path, infra, 2)
    assert started_by(supervisor_of(other)) != first
    psutil.Process(supervisor_of(other)).kill()  # a supervisor: its task goes on
    assert task.infra.status() == other.infra.status() == "running"
    (tmp_path / "gate").touch()
    assert [task.run(), other.run()] == [1, 2]
    with pytest.raises(JobError, match="SIGKILL"):
        Failing(kind="kill", infra=infra).run()
    assert Double(x=2, infra=infra).compute() == 4


def test_a_killed_submitter_leaves_its_task_running(tmp_path: Path, infra: Infra, sockets: Path) -> None:
    assert Double(x=1, infra=infra).compute() == 2
    resident(sockets)
    program = """
from task_models import Sleeper
import os, signal
task = Sleeper(gate=sys.argv[1] + "/gate", infra=dict(cluster="local", folder=sys.argv[1] + "/cache"))
task.infra.job()
os.kill(os.getpid(), signal.SIGKILL)
"""
    elsewhere.run(program, str(tmp_path))
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    wait_for(task.started().exists, "the task to start")
    assert task.infra.status() == "running"
    (tmp_path / "gate").touch()
    assert task.run() == 1
    assert len(task.started().read_text().split()) == 1


def test_a_stopped_one_is_done_without(tmp_path: Path, infra: Infra, sockets: Path) -> None:
    assert Double(x=1, infra=infra).compute() == 2
    stays = psutil.Process(resident(sockets))
    stays.suspend()
    try:
        task = held(tmp_path, infra, 1)
        (tmp_path / "gate").touch()
        assert task.run() == 1
    finally:
        stays.resume()
    wait_for(
        lambda: not stays.is_running() or stays.status() == psutil.STATUS_ZOMBIE, "it to find itself replaced"
    )
    assert len(task.started().read_text().split()) == 1, "it did not take the order that was withdrawn"


# ---------------------------------------------------------------- other users


def an_order() -> Order:
    return Order(
        logs="/nowhere/%j", base="one", size=0, workers=1, processes=1, seconds=0, digest="", forks=True
    )


@pytest.mark.parametrize("kind", ["open", "link", "other user"])
def test_a_folder_that_others_can_enter_is_not_used(
    tmp_path: Path, infra: Infra, sockets: Path, kind: str
) -> None:
    if kind == "other user" and os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    if kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        sockets.symlink_to(tmp_path / "elsewhere")
    else:
        sockets.mkdir(mode=0o700)
        sockets.chmod(0o755 if kind == "open" else 0o700)
        if kind == "other user":
            os.chown(sockets, NOBODY, NOBODY)
    task = held(tmp_path, infra, 1)
    (tmp_path / "gate").touch()
    assert task.run() == 1
    assert list(sockets.iterdir()) == []


def test_another_users_process_gets_no_orders(sockets: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    sockets.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(sockets, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/name")
        os.close(here)
        program = "import os, socket, sys; os.setuid(65534); s = socket.socket(fileno=int(sys.argv[1])); s.listen();\n"
        program += "print('listens', flush=True); c = s.accept()[0]; print(len(c.recv(100000)))"
        other = subprocess.Popen(
            [sys.executable, "-c", program, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
    assert other.stdout is not None
    assert other.stdout.readline() == "listens\n"
    assert warm.ask("name", an_order()) is None
    assert other.communicate(timeout=60)[0] == "0\n", "nothing was sent"


def test_another_users_orders_are_not_taken(tmp_path: Path, infra: Infra, sockets: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    assert Double(x=1, infra=infra).compute() == 2
    resident(sockets)
    (name,) = [path.name for path in sockets.iterdir()]
    program = f"""
import os, socket
os.chdir({str(sockets)!r})
os.setresuid({NOBODY}, {NOBODY}, 0)
with socket.socket(socket.AF_UNIX) as other:
    other.connect({name!r})
    try:
        other.sendall({an_order().text()!r}.encode() + b"\\n")
        print(len(other.recv(100)))
    except OSError:
        print(0)
"""
    for folder, mode in ((sockets, 0o711), (sockets / name, 0o666)):  # else it would not come that far
        folder.chmod(mode)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "0\n", done.stderr


def test_a_side_that_hangs_up_in_the_middle_of_a_line_is_an_error() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"half")
        one.shutdown(socket.SHUT_WR)
        with pytest.raises(ValueError, match="the other side has hung up, or does not stop talking"):
            warm._line(other)
