"""Tasks in a folder that alice and bob share: what bob puts there does no harm to alice."""

import re
import stat
from pathlib import Path

import pytest

from people import ALICE, BOB, Commons

START = "from shared_models import *\n"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_results_are_shared(commons: Commons) -> None:
    """With umask 002, each reads what the other computed, and computes nothing again."""
    code = START + "print(task(3).run(), task(3, 'array').run()[0], task(3).infra.status())"
    assert commons.run(BOB, code) == "6.0 3 completed\n"
    before = {p: p.stat().st_mtime_ns for p in commons.shared.rglob("job.json")}
    assert commons.run(ALICE, code) == "6.0 3 completed\n"
    assert len(before) == 2
    assert before == {p: p.stat().st_mtime_ns for p in commons.shared.rglob("job.json")}


def test_a_folder_of_another_is_used_under_umask_077(commons: Commons) -> None:
    """Bob made the cache; alice, who shows nobody anything, computes in it, and reads both."""
    commons.run(BOB, START + "task(1).run()")
    assert (
        commons.run(ALICE, START + "print(task(1).run(), task(2).run(), task(2).run())", 0o077)
        == "2.0 4.0 4.0\n"
    )


def test_rights_of_what_is_written(commons: Commons) -> None:
    """Data and folders follow umask and setgid; what decides is never writable to the group, nothing to everybody."""
    commons.run(ALICE, START + "task(1, 'array').run(); task(1, 'pickle').run()", 0o000)
    cache = commons.shared / "cache"
    found = {path: mode(path) for path in cache.rglob("*")}
    assert not [path for path, rights in found.items() if rights & 0o002]
    assert all(path.stat().st_gid == commons.shared.stat().st_gid for path in found)
    folders = [path for path in found if path.is_dir()]
    assert {found[path] for path in folders} == {0o2775}
    assert {found[path] for path in found if path.name == "job.json"} == {0o644}
    assert {found[path] for path in found if path.suffix == ".data"} == {0o664}
    assert {found[path] for path in found if path.suffix in (".pkl", ".pkls")} == {0o644}


@pytest.mark.parametrize("place", ["method", "uid"])
@pytest.mark.parametrize("kind", ["float", "array"])
def test_a_folder_that_became_a_link_is_not_followed(commons: Commons, place: str, kind: str) -> None:
    """Bob exchanges a folder for a link into alice's home, where her private results are."""
    commons.run(
        ALICE, START + f"import os; os.environ['SHARED'] = os.path.expanduser('~'); task(5, {kind!r}).run()"
    )
    commons.run(BOB, START + f"task(5, {kind!r}).run()")
    before = commons.content(ALICE)
    [record] = commons.shared.rglob("job.json")
    folder = record.parent if place == "uid" else record.parent.parent
    inside = commons.home(ALICE) / folder.relative_to(commons.shared)
    commons.run(
        BOB,
        f"import os; old, new = {str(folder)!r}, {str(inside)!r}; os.rename(old, old + '-'); os.symlink(new, old)",
    )
    code = f"""
from shared_models import *
for ask in (lambda: task(5, {kind!r}, mode="read-only").run(), lambda: task(5, {kind!r}).infra.clear_job(),
            lambda: task(6, {kind!r}).run() if {place!r} == "method" else task(5, {kind!r}, mode="force").run()):
    try:
        print("gave", ask())
    except PermissionError as e:
        print("refused", e)
"""
    answers = commons.run(ALICE, code).splitlines()
    assert [line.partition(" ")[0] for line in answers] == ["refused"] * 3
    assert "link" in answers[0]
    assert str(BOB.uid) in answers[0]
    assert commons.content(ALICE) == before


def test_a_link_of_ones_own_is_followed(commons: Commons) -> None:
    """Alice moved a method folder to a larger disk, and left a link to it."""
    commons.run(ALICE, START + "task(5, 'array').run()")
    [record] = commons.shared.rglob("job.json")
    method = record.parent.parent
    (commons.home(ALICE) / "disk").mkdir()
    ALICE.owns(commons.home(ALICE) / "disk")
    code = f"import os, shutil; old = {str(method)!r}; shutil.move(old, 'disk/moved')"
    commons.run(ALICE, code + "; os.symlink(os.path.abspath('disk/moved'), old)")
    code = (
        START + "print(task(5, 'array').infra.status(), task(5, 'array').run()[0], task(6, 'array').run()[0])"
    )
    assert commons.run(ALICE, code) == "completed 5 6\n"
    assert len(list(commons.home(ALICE).rglob("job.json"))) == 2


def test_a_record_of_anothers_unpickles_nothing(commons: Commons) -> None:
    """A failure carries its error as a pickle: bob's is told, not unpickled."""
    code = """
from shared_models import *
import base64, cloudpickle
from exca.engine import record
from exca.jobs import remote_errors
folder = task(1).infra.uid_folder(create=True)
error = remote_errors.error_content(ValueError("planted"))
record.publish(folder, {"version": 1, "state": "failed", "attempt": "",
    "error": {**error, "pickle": base64.b64encode(cloudpickle.dumps(Evil())).decode()}}, durable=False)
"""
    commons.run(BOB, code)
    told = commons.run(ALICE, START + "try: task(1).run()\nexcept Exception as e: print(type(e).__name__, e)")
    assert told.startswith("JobError ValueError: planted")
    assert commons.content(ALICE) == {}


@pytest.mark.parametrize("plant", ["link", "fifo", "folder", "damaged", "open"])
def test_a_record_that_is_none_is_passed_over(commons: Commons, plant: str) -> None:
    """It is reported, counts as not there, and is neither followed nor set aside."""
    code = f"""
from shared_models import *
path = task(1).infra.uid_folder(create=True) / "job.json"
match {plant!r}:
    case "link":
        path.symlink_to({str(commons.home(ALICE) / "secret")!r})
    case "fifo":
        os.mkfifo(path)
    case "folder":
        path.mkdir()
    case "damaged":
        path.write_text("damaged")
    case "open":
        task(1).run()
        path.chmod(0o666)
"""
    (commons.home(ALICE) / "secret").write_text("secret")
    ALICE.owns(commons.home(ALICE) / "secret")
    commons.run(BOB, code)
    told = commons.run(
        ALICE, START + "print(task(1).infra.status(), [p.name for p in uid_folder().glob('job.json*')])"
    )
    assert told == "not submitted ['job.json']\n"
    if plant != "folder":
        assert commons.run(ALICE, START + "print(task(1).run(), task(1).infra.status())") == "2.0 completed\n"
    assert (commons.home(ALICE) / "secret").read_text() == "secret"


def test_no_pickle_is_checked_by_path_and_opened_later(commons: Commons) -> None:
    """Bob exchanges a link to a pickle of alice's for a pickle of his own, again and again, while she reads it."""
    commons.run(ALICE, START + "import pickle; (shared() / 'good.pkl').write_bytes(pickle.dumps(1))")
    code = """
from shared_models import *
import itertools, pickle
(shared() / "evil.pkl").write_bytes(pickle.dumps(Evil()))
path = shared() / "job.pkl"
print("ready", flush=True)
for n in itertools.count():
    if (shared() / "done").exists():
        break
    draft = shared() / f"draft-{n % 2}"
    draft.symlink_to(shared() / "good.pkl") if n % 2 else os.link(shared() / "evil.pkl", draft)
    os.replace(draft, path)
print(n)
"""
    reader = """
from shared_models import *
from exca.cachedict import is_trusted
from exca.engine import legacy
outcomes = set()
for n in range(3000):
    try:
        legacy._load(shared() / "job.pkl")
        outcomes.add("loaded")
    except PermissionError:
        outcomes.add("refused")
    except FileNotFoundError:
        pass
(shared() / "done").touch()
print(outcomes)
"""
    bob = commons.start(BOB, code)
    assert bob.stdout is not None
    assert bob.stdout.readline() == "ready\n"
    assert commons.run(ALICE, reader) == "{'refused'}\n"
    out, err = bob.communicate(timeout=60)
    assert int(out) > 10, err
    assert commons.content(ALICE) == {}


def test_a_pickle_that_is_refused_says_how_to_accept_it(commons: Commons) -> None:
    commons.run(BOB, START + "task(1, 'pickle').run()")
    code = START + "try: print(task(1, 'pickle').run().x)\nexcept PermissionError as e: print(e)"
    told = commons.run(ALICE, code)
    assert re.search(
        rf"Not unpickling {commons.shared}/\S+: it belongs to {BOB.uid}.*EXCA_TRUSTED_USERS={BOB.uid}", told
    )
    assert commons.run(ALICE, code, EXCA_TRUSTED_USERS=str(BOB.uid)) == "1\n"
    assert len(list(commons.shared.rglob("job.json"))) == 1


def test_nothing_is_cancelled_on_the_word_of_another(commons: Commons) -> None:
    """Bob's claim and submission name a process of alice's as the job to be ended."""
    sleeper = commons.start(ALICE, "import os, signal; print(os.getpid(), flush=True); signal.pause()")
    assert sleeper.stdout is not None
    pid = int(sleeper.stdout.readline())
    code = f"""
from shared_models import *
import json
from exca.claims import Claims, Owner
folder = task(1).infra.uid_folder(create=True)
from exca.engine.record import KEY
claim, _ = Claims(folder).acquire([KEY])
claim.transfer_to(Owner.for_job(cluster="local", job_id=str({pid})))
(folder / "submission.json").write_text(json.dumps(
    {{"cluster": "local", "job_id": "0123abcd", "logs": "logs", "pid": {pid}, "attempt": claim.token}}))
"""
    commons.run(BOB, code)
    told = commons.run(ALICE, START + "try: task(1).infra.clear_job()\nexcept PermissionError as e: print(e)")
    assert told.startswith(
        "Not cancelling local job 0123abcd: another user may have written down that it is the one"
    )
    assert sleeper.poll() is None
    sleeper.kill()
    sleeper.communicate()


def test_a_claim_that_is_a_link_or_a_fifo_holds_nothing(commons: Commons) -> None:
    code = """
from shared_models import *
folder = task(1).infra.uid_folder(create=True)
(folder / "0123abcd-1-1-ffffffffffff.0.abcdef.claim").symlink_to("/etc/passwd")
os.mkfifo(folder / "0123abcd-1-1-fffffffffffe.0.abcdef.claim")
(folder / "0123abcd-1-1-fffffffffffd.0.abcdef.claim").mkdir()
"""
    commons.run(BOB, code)
    assert commons.run(ALICE, START + "print(task(1).run(), task(1).infra.status())") == "2.0 completed\n"
