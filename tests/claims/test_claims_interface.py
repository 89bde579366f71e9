"""What a caller sees of claims, within one process."""

import gc
import json
import logging
import os
import stat
import subprocess
import sys
import threading
import typing as tp
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claimant import claim_files
from exca.claims import Claim, Claims, Owner, claimfile, owner, protocol
from exca.claims.claimfile import Announcement, ClaimFolder, Wait, fresh_entry
from exca.errors import ClaimLostError, ReentrantClaimError


def won(claim: Claim | None) -> Claim:
    assert claim is not None
    return claim


def test_claims_what_nobody_holds(folder: Path) -> None:
    first, none = Claims(folder).acquire(["a", "b", "a"])
    second, held = Claims(folder).acquire(["b", "c"])
    assert won(first).keys == ("a", "b")
    assert none == {}
    assert won(second).keys == ("c",)
    assert held.keys() == {"b"}
    assert held["b"].token == won(first).token
    assert held["b"].alive()
    assert held["b"].owner == Owner.current()
    assert Claims(folder).acquire(["a", "c"])[0] is None
    assert Claims(folder).acquire([]) == (None, {})


def test_release_gives_back_and_leaves_nothing(folder: Path) -> None:
    claim = won(Claims(folder).acquire(["a"])[0])
    assert len(claim_files(folder)) == 1
    claim.release()
    claim.release()
    assert claim_files(folder) == []
    assert not claim.is_valid()
    with won(Claims(folder).acquire(["a"])[0]):
        assert Claims(folder).acquire(["a"])[0] is None
    assert claim_files(folder) == []


def test_a_claim_nobody_refers_to_is_released(folder: Path) -> None:
    claims = Claims(folder)
    claims.acquire(["a"])
    gc.collect()
    assert claims.holders() == {}


def test_one_small_readable_file_whatever_the_number_of_keys(folder: Path) -> None:
    claim = won(Claims(folder).acquire([f"key {i}" for i in range(1000)])[0])
    (path,) = claim_files(folder)
    head, keys, rest = path.read_text().split("\n")
    assert json.loads(head)["owner"]["process"]["pid"] == os.getpid()
    assert json.loads(keys) == list(claim.keys)
    assert rest == ""


@given(keys=st.lists(st.text(st.characters()), min_size=1, max_size=8, unique=True))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_keys_may_be_any_text(folder: Path, keys: list[str]) -> None:
    claims = Claims(folder)
    with won(claims.acquire(keys)[0]) as claim:
        assert claim.keys == tuple(keys)
        assert claims.holders().keys() == set(keys)
        assert claims.holders(keys[:1]).keys() == {keys[0]}
        assert claims.acquire(keys)[0] is None


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_umask_is_respected(folder: Path) -> None:
    folder = folder / "made by the claim"
    before = os.umask(0o027)
    try:
        claim = won(Claims(folder).acquire(["a"])[0])
    finally:
        os.umask(before)
    assert stat.S_IMODE(claim_files(folder)[0].stat().st_mode) == 0o640
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    claim.release()


def test_folders_are_made_when_needed(tmp_path: Path) -> None:
    with won(Claims(tmp_path / "new" / "one").acquire(["a"])[0]) as claim:
        assert claim.is_valid()


def test_split_leaves_no_key_unowned_and_releases_the_rest(folder: Path) -> None:
    claims = Claims(folder)
    whole = won(claims.acquire(["a", "b", "c", "d"])[0])
    one, two = whole.split([["a", "c"], ["b"]])
    assert (one.keys, two.keys) == (("a", "c"), ("b",))
    assert len({one.token, two.token, whole.token}) == 3
    assert claims.holders().keys() == {"a", "b", "c"}
    with pytest.raises(ClaimLostError, match=r"Claim .* is not held by this process any more"):
        whole.announce("slurm")
    one.release()
    assert claims.holders().keys() == {"b"}
    for groups in ([["b"], ["b"]], [["x"]]):
        with pytest.raises(ValueError, match="is split into groups that overlap or hold keys it has not got"):
            two.split(groups)
    two.release()


def test_a_job_owns_what_it_was_given(folder: Path) -> None:
    claims = Claims(folder)
    claim = won(claims.acquire(["a", "b"])[0])
    tag = claim.announce("local")
    assert claim.token in tag
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    claim.transfer_to(Owner.for_job(cluster="local", job_id=str(worker.pid)))
    claim.release()  # of no effect: the job owns it
    holder = claims.holders()["a"]
    assert holder.token == claim.token
    assert (holder.owner.kind, holder.job_id) == ("job", str(worker.pid))
    assert holder.alive()
    assert f"local job {worker.pid}" in holder.describe()
    assert claims.acquire(["a"])[0] is None
    worker.communicate()
    assert not holder.alive()
    with won(claims.acquire(["a"])[0]):
        pass


def test_adopt_puts_this_process_behind_the_job(folder: Path) -> None:
    claims = Claims(folder)
    claim = won(claims.acquire(["a", "b"])[0])
    claim.transfer_to(Owner.for_job(cluster="local", job_id=str(os.getpid())))
    adopted = won(Claims(folder).adopt(claim.token))
    assert adopted.keys == ("a", "b")
    assert adopted.token == claim.token
    assert adopted.is_valid()
    assert len(claim_files(folder)) == 1
    again = won(claims.adopt(claim.token))  # the job was requeued: the newest worker counts
    assert again.is_valid()
    assert not adopted.is_valid()
    adopted.release()
    assert again.is_valid()
    again.release()
    assert claims.adopt(claim.token) is None


def test_adopting_before_the_submitter_handed_over(folder: Path) -> None:
    """The job may be faster than the one who submitted it."""
    claims = Claims(folder)
    claim = won(claims.acquire(["a"])[0])
    claim.announce("local")
    adopted = won(claims.adopt(claim.token))
    claim.transfer_to(Owner.for_job(cluster="local", job_id=str(os.getpid())))
    assert adopted.is_valid()
    adopted.release()
    assert claim_files(folder) == []


def test_a_claim_that_is_handed_over_during_the_look_for_it_is_adopted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that was listed is gone when it is read: another one has taken its place."""
    claim = won(Claims(folder).acquire(["a"])[0])
    claim.announce("local")
    job = Claims(folder)
    names = job._claim_files.names
    looks: list[list[str]] = []

    def overtaken() -> list[str]:
        found = names()
        if not looks:
            claim.transfer_to(Owner.for_job(cluster="local", job_id=str(os.getpid())))
        looks.append(found)
        return found

    monkeypatch.setattr(job._claim_files, "names", overtaken)
    adopted = won(job.adopt(claim.token))
    assert looks[0] != [claim_files(folder)[0].name]
    adopted.release()
    assert claim_files(folder) == []


def test_successions_of_different_keys_do_not_wait_for_each_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the submitter hands one claim of an array over while the job of another one adopts its own."""
    monkeypatch.setattr(protocol, "LONG_PATIENCE", 0.0)
    claim = won(Claims(folder).acquire(["a"])[0])
    claim.announce("local")
    asking = fresh_entry(["b"], Owner.current())
    ClaimFolder(folder).replace(asking)
    adopted = won(Claims(folder).adopt(claim.token))
    assert {path.name for path in claim_files(folder)} == {asking.name, *ClaimFolder(folder).names()}
    adopted.release()
    ClaimFolder(folder).remove(asking.name)


def test_revoked_and_lost_claims_are_known_to_be(folder: Path) -> None:
    claims = Claims(folder)
    claim = won(claims.acquire(["a"])[0])
    claims.revoke(claim.token)
    assert not claim.is_valid()
    with pytest.raises(ClaimLostError, match="taken over"):
        claim.announce("slurm")
    assert claims.adopt(claim.token) is None
    assert claim_files(folder) == []


def test_damaged_and_foreign_files_stop_nobody_for_ever(folder: Path) -> None:
    claims = Claims(folder)
    claim = won(claims.acquire(["a"])[0])
    path = claim_files(folder)[0]
    host, _, start, rand = path.name.split(".")[0].split("-")
    dead = f"{host}-999999999-{start}-{rand}"  # no such process
    for name, content in (
        (f"{dead}.0.aaaaaa.claim", b""),
        (f"{dead}.1.aaaaaa.claim", b"\xff{"),
        ("notes.txt", b"hi"),
    ):
        (folder / name).write_bytes(content)
    (folder / f".{dead}.0.bbbbbb.claim.tmp").write_bytes(b"{")
    assert len(claims.stale()) == 2
    other = won(claims.acquire(["b"])[0])
    assert {p.name for p in claim_files(folder)} == {path.name, *ClaimFolder(folder).names()}
    assert len(ClaimFolder(folder).names()) == 2
    assert claims.sweep() == 0
    claim.release()
    other.release()


def test_waiting_ends_when_it_is_done_or_the_holder_goes(folder: Path) -> None:
    claims = Claims(folder)
    claims.wait(["a"], done=lambda: False)  # nobody to wait for
    claim = won(claims.acquire(["a"])[0])
    done = threading.Event()
    ended: list[str] = []

    def wait(name: str, condition: threading.Event) -> None:
        claims.wait(["a"], done=condition.is_set)
        ended.append(name)

    first = threading.Thread(target=wait, args=("done", done))
    first.start()
    claims.wait(["a"], done=lambda: True)
    done.set()
    first.join()
    second = threading.Thread(target=wait, args=("released", threading.Event()))
    second.start()
    claim.release()
    second.join()
    assert ended == ["done", "released"]


def test_waiting_is_logged_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    claims = Claims(folder)
    claim = won(claims.acquire(["a"])[0])
    with caplog.at_level(logging.INFO, "exca"):
        thread = threading.Thread(
            target=claims.wait, args=(["a"],), kwargs={"done": lambda: False, "timeout": 1.6}
        )
        thread.start()
        thread.join()
        thread = threading.Thread(
            target=claims.wait, args=(["a"],), kwargs={"done": lambda: False, "timeout": 1.2}
        )
        thread.start()
        thread.join()
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"Waiting for a result in {folder}, being computed by process {os.getpid()}"
    )
    assert "since" in record.getMessage()
    assert "look with" in record.getMessage()
    claim.release()


def test_a_thread_does_not_wait_for_itself(folder: Path) -> None:
    claims = Claims(folder)
    with won(claims.acquire(["a"])[0]), pytest.raises(ReentrantClaimError, match="its own result"):
        claims.wait(["a"], done=lambda: False)
    with won(claims.acquire(["a"], thread_bound=False)[0]):
        claims.wait(["a"], done=lambda: False, timeout=0.01)  # others do the work


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_holds_nothing_of_its_parent(folder: Path) -> None:
    claims = Claims(folder)
    claim = won(claims.acquire(["a"])[0])
    pid = os.fork()
    if pid == 0:
        try:
            claim.release()
            ok = (
                not claim.is_valid()
                and claims.acquire(["a"])[0] is None
                and claims.acquire(["b"])[0] is not None
            )
            os._exit(0 if ok else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert claim.is_valid()
    with won(claims.acquire(["b"])[0]):  # the child is dead
        pass
    claim.release()


def test_threads_compute_each_key_once(folder: Path) -> None:
    claims = Claims(folder)
    computed: list[str] = []
    keys = [f"k{i}" for i in range(30)]

    def work() -> None:
        while todo := [k for k in keys if k not in computed]:
            claim, _ = claims.acquire(todo[:7])
            if claim is None:
                claims.wait(todo[:7], done=lambda: len(computed) == len(keys))
                continue
            with claim:
                computed.extend(k for k in claim.keys if k not in computed)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(computed) == sorted(keys)


def test_some_keys_are_given_back_and_the_others_stay(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    claim = won(claims.acquire(["a", "b", "c"])[0])
    claim.give_back(["b", "nothing of ours"])
    assert claim.keys == ("a", "c")
    other, held = claims.acquire(["a", "b", "c"])
    assert won(other).keys == ("b",)
    assert {holder.token for holder in held.values()} == {claim.token}
    claim.give_back(["a", "c"])
    assert claims.holders(["a", "c"]) == {}
    claim.release()
    won(other).release()
    assert claims.holders() == {}


def test_a_claim_notes_what_its_keys_wait_for(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    claim = won(claims.acquire(["a", "b"])[0])
    claim.note_wait(1, Wait(["a"], "/elsewhere", ["x"]))
    claim.note_wait(2, Wait(["b"], "/elsewhere", ["y"]))
    (entry,) = protocol.look(claims._claim_files)
    assert [(wait.keys, wait.wanted) for wait in entry.waits] == [(["a"], ["x"]), (["b"], ["y"])]
    claim.give_back(["b"])
    claim.note_wait(1, None)
    claim.note_wait(1, None)
    (entry,) = protocol.look(claims._claim_files)
    assert (entry.keys, [wait.keys for wait in entry.waits]) == (("a",), [["b"]])
    claim.release()


def test_a_waiter_leaves_when_a_missing_key_is_given_back_though_another_is_kept(folder: Path) -> None:
    """What is kept may be there already: then no other process would ever compute what was given back."""
    claims = Claims(folder)
    claim = won(claims.acquire(["a", "b"])[0])

    def missing(keys: list[str]) -> list[str]:
        return [key for key in keys if key == "b"]

    waiter = threading.Thread(
        target=claims.wait,
        args=(["a", "b"],),
        kwargs={"done": lambda: False, "missing": missing},
        daemon=True,
    )
    waiter.start()
    claim.give_back(["b"])
    waiter.join(60)
    assert not waiter.is_alive()
    assert won(claims.acquire(["a", "b"])[0]).keys == ("b",)


def test_a_claim_replaced_while_a_thread_looks_is_not_taken_for_given_up(folder: Path) -> None:
    """The thread has listed the file that stood before its successor, and reads it once it is gone."""
    files, claims = ClaimFolder(folder), Claims(folder)
    claim = won(claims.acquire(["a", "b"])[0])
    [name] = files.names()
    listed = files.read(name)
    assert listed is not None
    claim.give_back(["b"])
    assert files.names() != [name]
    assert protocol.alive(files, listed)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"user": 3}, "owns nothing"),
        ({"kind": "queue"}, "owns nothing"),
        ({"process": None}, "owns nothing"),
        ({"process": {"host": "a", "hostname": "a", "pid": 0, "start": "1"}}, "is no process"),
        ({"process": {"host": "a", "hostname": "a", "pid": 5, "start": 1}}, "is no process"),
    ],
)
def test_what_cannot_own_a_claim(changed: dict[str, tp.Any], words: str) -> None:
    owner = Owner.current().to_json()
    assert Owner.from_json(owner) == Owner.current()
    with pytest.raises(ValueError, match=words):
        Owner.from_json({**owner, **changed})


@pytest.mark.parametrize(
    "wait", [Wait(["a"], tp.cast(str, 3), ["b"]), Wait(["a"], "f", tp.cast(list[str], [3]))]
)
def test_what_is_no_wait_for_other_keys(wait: Wait) -> None:
    with pytest.raises(ValueError, match="waits for nothing"):
        claimfile._checked_wait(wait)


@pytest.mark.parametrize(
    "announced", [Announcement("slurm", tp.cast(str, 3)), Announcement("a", "b", tp.cast(int, "c"))]
)
def test_what_announces_no_job(announced: Announcement) -> None:
    with pytest.raises(ValueError, match="announces nothing"):
        claimfile._checked_announcement(announced)


def test_a_heartbeat_process_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "PATIENCE", 0.01)
    read, write = os.pipe()
    try:
        os.set_blocking(write, False)
        with pytest.raises(BrokenPipeError, match="the heartbeat process does not read"):
            owner._write(write, bytes(1 << 20))
    finally:
        os.close(read)
        os.close(write)
