"""The commands that change something, in a folder to which another user may write: alice runs them, bob plants."""

import json
import os
import tempfile
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pytest

from people import ALICE, BOB, Commons
from waiting import wait_for

# what alice keeps: six trainings, and two jobs that run until they are cancelled
STUDY = """
import contextlib, io, json, os, sys, time
from pathlib import Path
import pydantic
import trained
import exca
from exca.cli import main

SHARED, HOME = Path(os.environ["SHARED"]), Path(os.environ["HOME"])

class Slow(pydantic.BaseModel):
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra(cluster="local", retries=0)

    @infra.apply
    def run(self) -> int:
        time.sleep(300)
        return self.x

def say(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return code, out.getvalue() + err.getvalue()
"""


@pytest.fixture(scope="module")
def commons(people: None) -> Iterator[Commons]:
    """One shared folder for all tests here, in which each has a cache of its own."""
    with tempfile.TemporaryDirectory(prefix="exca-commons-", dir="/tmp", ignore_cleanup_errors=True) as place:
        os.chmod(place, 0o755)
        yield Commons(Path(place))


class Alice:
    """An interpreter of alice that runs what it is sent, line by line."""

    def __init__(self, commons: Commons) -> None:
        code = f"{STUDY}\nfor line in sys.stdin: print(json.dumps(eval(line)), flush=True)\n"
        self.process = ALICE.talk_to(commons.home(ALICE), code, SHARED=str(commons.shared))

    def __call__(self, expression: str) -> tp.Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(expression, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        return json.loads(line)

    def say(self, *arguments: object) -> tuple[int, str]:
        """The exit code of a command, and what it prints."""
        code, text = self(f"say(*{[str(argument) for argument in arguments]!r})")
        return code, text


@pytest.fixture(scope="module")
def alice(commons: Commons) -> Iterator[Alice]:
    """Alice, at her desk."""
    found = Alice(commons)
    yield found
    found.process.kill()
    found.process.communicate()


@pytest.fixture
def cache(commons: Commons, alice: Alice, request: pytest.FixtureRequest) -> Path:
    """A cache that alice has filled, in the folder of the team."""
    folder = commons.shared / str(request.node.name)
    alice(f"trained.make(Path({str(folder)!r}))")
    return folder


def plant(folder: Path, name: str, text: str) -> Path:
    """Let bob write a file."""
    if not folder.exists():
        folder.mkdir()
        BOB.owns(folder)
    (folder / name).write_text(text)
    BOB.owns(folder / name)
    return folder / name


def private(commons: Commons) -> Path:
    """A folder that only alice may enter, with something dear to her."""
    folder = commons.home(ALICE) / "private"
    folder.mkdir(exist_ok=True)
    (folder / "diary.txt").write_text("dear")
    for path in (folder, folder / "diary.txt"):
        ALICE.owns(path)
    return folder


def link(path: Path, target: Path) -> None:
    """Let bob put a link at a path."""
    path.symlink_to(target)
    BOB.owns(path)


def test_the_trash_may_be_a_link_of_another_user(commons: Commons, alice: Alice, cache: Path) -> None:
    dear = private(commons)
    link(cache / ".trash", dear)
    code, said = alice.say("rm", "-C", cache, "--state", "failed", "-y")
    assert code == 1
    assert "Not following the link '.trash', which belongs to user" in said
    for command in (["gc", "--trash", "--apply"], ["restore"]):
        code, said = alice.say(*command, "-C", cache)
        assert code != 0
        assert "Not following the link '.trash'" in said
    assert [path.name for path in dear.iterdir()] == ["diary.txt"]


def test_a_method_may_become_a_link_of_another_user(commons: Commons, alice: Alice, cache: Path) -> None:
    method = cache / "trained.Train.loss,1"
    elsewhere = commons.home(ALICE) / "elsewhere"
    alice(f"trained.make(Path({str(elsewhere)!r}))")
    alice.say("rm", "-C", cache, "--state", "failed", "-y")
    method.rename(cache.parent / "away")
    link(method, elsewhere / method.name)
    before = sorted(elsewhere.rglob("*"))
    code, said = alice.say("restore", "-C", cache)
    assert code == 1
    assert "Not following the link 'trained.Train.loss,1'" in said
    assert sorted(elsewhere.rglob("*")) == before


def test_what_another_user_put_into_the_trash_is_not_brought_back_nor_deleted(
    alice: Alice, cache: Path
) -> None:
    alice.say("rm", "-C", cache, "--state", "failed", "-y")
    method = cache / ".trash" / "29990101-000000-ffff" / "trained.Train.loss,1"
    method.mkdir(parents=True)
    planted = plant(method / "rate=7-01234567", "uid.yaml", "rate: 7\n")
    for path in (method.parent, method):
        BOB.owns(path)
    code, said = alice.say("restore", "-C", cache)
    assert code == 1
    assert "was put there by 64322, or others may write to it: left to that user" in said
    code, said = alice.say("gc", "--trash", "--apply", "-C", cache)
    assert code == 1
    assert planted.exists()
    assert len(list((cache / ".trash").iterdir())) == 1


def test_what_is_another_users_is_removed_only_where_that_user_is_named(alice: Alice, cache: Path) -> None:
    theirs = cache / "trained.Train.loss,1" / "rate=7-01234567"
    plant(theirs, "uid.yaml", "rate: 7\n")
    os.chmod(theirs, 0o777)  # so that its place can be changed at all
    code, said = alice.say("rm", "-C", cache, "0123", "-y")
    assert code == 1
    assert "it belongs to 64322: with `--user 64322`, what is of that user is moved" in said
    assert theirs.exists()


def test_no_job_is_ended_on_another_users_word(commons: Commons, alice: Alice, cache: Path) -> None:
    """Neither on that of a sweep's file, nor of a claim and a submission."""
    alice(f"Slow(infra={{'folder': {str(cache)!r}}}).infra.job().job_id")
    wait_for(lambda: "running" in alice.say("ls", "-C", cache, "Slow.run", "--json")[1])
    slow = next(cache.glob("*Slow.run*/default"))

    specification = commons.home(ALICE) / "wide.yaml"
    specification.write_text(
        f"task: trained:Train.loss\nbase: {{infra: {{folder: {cache}}}}}\ngrid: {{rate: [0.5]}}\n"
    )
    uids = [f"{slow.parent.name}/{slow.name}"]
    texts = {
        "version": 1,
        "name": "wide",
        "source": str(specification),
        "target": "t",
        "uids": uids,
        "written": 1,
    }
    plant(cache / ".sweeps", "wide.json", json.dumps(texts))
    os.chmod(cache / ".sweeps", 0o777)
    code, said = alice.say("cancel", "-C", cache, "--sweep", "wide", "-y")
    assert code == 2
    assert (
        "another user may have written which tasks are points of the sweep 'wide', so nothing is done" in said
    )
    code, said = alice.say("gc", "-C", cache, "--keep", "wide", "--older", "0s", "--apply")
    assert code == 2
    code, said = alice.say("sweep", specification, "--cancel-removed")
    assert "no jobs are ended on its word" in said

    theirs = commons.shared / "theirs" / "m.Task.run,0" / "x=1-01234567"
    theirs.parent.mkdir(parents=True)
    plant(theirs, "uid.yaml", "x: 1\n")
    for name in ("submission.json", *(path.name for path in slow.glob("*.claim"))):
        plant(theirs, name, (slow / name).read_text())
    code, said = alice.say("cancel", "-C", commons.shared / "theirs", "Task.run", "-y")
    assert code == 1
    assert "cancelled 0 job(s)" in said
    assert "another user may have written down that local job" in said

    assert "running" in alice.say("ls", "-C", cache, "Slow.run", "--json")[1]
    code, said = alice.say("cancel", "-C", cache, "Slow.run", "-y")
    assert code == 0
    assert "cancelled 1 job(s)" in said
    wait_for(lambda: "running" not in alice.say("ls", "-C", cache, "Slow.run", "--json")[1])


def test_an_import_goes_nowhere_through_links_of_another_user(
    commons: Commons, alice: Alice, cache: Path
) -> None:
    dear, archive = private(commons), commons.home(ALICE) / "a.tar.gz"
    assert alice.say("export", "-C", cache, "-w", "rate < 5", "-o", archive)[0] == 0
    other = commons.shared / "other"
    alice(f"Path({str(other)!r}).mkdir()")
    link(other / "trained.Train.loss,1", dear)
    code, said = alice.say("import", archive, "-C", other)
    assert code == 2
    assert "Not following the link 'trained.Train.loss,1'" in said
    assert [path.name for path in dear.iterdir()] == ["diary.txt"]
    assert [path.name for path in other.iterdir()] == ["trained.Train.loss,1"]


def test_what_may_not_be_read_is_said_and_what_another_user_computes_is_left(
    commons: Commons, alice: Alice, cache: Path
) -> None:
    """A folder that only bob may enter, one that none may list, and a task that bob computes just now."""
    code = f"""
import os, time
from pathlib import Path
from exca.claims import Claims
folder = Path({str(cache)!r}) / "bobs"
for name in ("m.C.run,1/x=1-00000001", "m.C.run,1/x=2-00000002", "closed"):
    (folder / name).mkdir(parents=True)
    (folder / name / "uid.yaml").write_text("x: 1\\n")
    (folder / name / "job.json").write_text("none")
claim, _ = Claims(folder / "m.C.run,1/x=1-00000001").acquire(["task"])
for path in folder.rglob("job.json"):
    path.chmod(0)
(folder / "closed").chmod(0)
folder.chmod(0o777)
print("ready", flush=True)
time.sleep(100)
"""
    bob = BOB.start(commons.home(BOB), code)
    assert bob.stdout is not None
    assert bob.stdout.readline() == "ready\n"
    theirs = cache / "bobs"
    for command in (
        *(
            ["ls"],
            ["ls", "--json"],
            ["show", "0000"],
            ["table"],
            ["du"],
            ["eff"],
            ["logs", "0000"],
            ["verify"],
        ),
        *(["doctor"], ["export", "Train.loss", "-o", commons.home(ALICE) / "x.tar"], ["gc", "--older", "0s"]),
    ):
        where = [theirs] if command[0] in ("verify", "doctor") else ["-C", theirs]
        found, said = alice.say(*command, *where)
        assert found in (0, 1, 2), said
        assert "Traceback" not in said
    assert "running" in alice.say("ls", "-C", theirs)[1]
    found, said = alice.say("cancel", "-C", theirs, "0000", "-y", "-w", "x == 1")
    assert found == 2 or "left: computed by process" in said
    found, said = alice.say("rm", "-C", theirs, "C.run", "-y", "--user", "bob")
    assert "moved 1 folder" not in said
    found, said = alice.say("rm", "-C", theirs, "C.run", "-y")
    assert found == 1
    assert "it belongs to 64322" in said
    bob.kill()
    bob.communicate()
