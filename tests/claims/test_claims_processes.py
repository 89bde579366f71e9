"""Real processes that are killed, stopped and left as zombies, at every step."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from claimant import Claimant, claim_files
from exca.claims import Claims, Owner, claimfile, owner, protocol
from exca.claims.claimfile import ClaimFolder
from exca.claims.owner import Heart
from waiting import wait_for

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
Start = Callable[..., Claimant]


def test_the_killed_are_taken_over_at_once(folder: Path, start: Start) -> None:
    other = start()
    assert other.ask("acquire", keys=["a", "b"]) == ["a", "b"]
    claims = Claims(folder)
    assert claims.acquire(["a"])[0] is None
    os.kill(other.pid, signal.SIGKILL)  # not reaped: a zombie is dead
    started = time.monotonic()
    claims.wait(["a"], done=lambda: False)
    claim, _ = claims.acquire(["a", "b"])
    assert claim is not None
    assert claim.keys == ("a", "b")
    assert time.monotonic() - started < 5
    claim.release()
    assert claim_files(folder) == []


def test_what_was_sent_where_it_cannot_be_asked_for_is_not_taken_over(folder: Path, start: Start) -> None:
    """No package here has the backend, which alone knows whether the job came into being."""
    other = start()
    other.ask("acquire", keys=["a"])
    other.ask("announce", cluster="of another package")
    other.kill()
    claims = Claims(folder)
    claims.wait(["a"], done=lambda: False, timeout=protocol.GRACE + 1)
    assert claims.acquire(["a"])[0] is None
    assert claims.holders()["a"].alive()


def test_the_stopped_are_not_robbed(folder: Path, start: Start) -> None:
    other = start()
    other.ask("acquire", keys=["a"])
    other.signal(signal.SIGSTOP)
    claims = Claims(folder)
    claims.wait(["a"], done=lambda: False, timeout=0.3)
    assert claims.acquire(["a"])[0] is None
    other.signal(signal.SIGCONT)
    assert other.ask("is_valid")


def test_a_damaged_claim_of_the_dead_is_taken_over_at_once(folder: Path, start: Start) -> None:
    """Whatever bit was flipped: its name says who made it."""
    other = start()
    other.ask("acquire", keys=["a"])
    other.kill()
    (path,) = claim_files(folder)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        claims = Claims(folder)
        claims.wait(["a"], done=lambda: False, timeout=2.0)
        claim, _ = claims.acquire(["a"])
        assert claim is not None, at
        claim.release()


def test_another_process_with_the_same_pid_is_not_the_owner(folder: Path, start: Start) -> None:
    """As after a reboot or many forks: the start time tells."""
    other = start()
    other.ask("acquire", keys=["a"])
    (path,) = claim_files(folder)
    entry = ClaimFolder(folder).read(path.name)
    assert entry is not None
    assert entry.owner is not None
    assert entry.owner.process is not None
    process = entry.owner.process._replace(start=f"1{entry.owner.process.start}")
    host, pid, start_, salt = entry.name.split("-")
    name = f"{host}-{pid}-1{start_}-{salt}"
    ClaimFolder(folder).replace(entry._replace(name=name, owner=entry.owner._replace(process=process)))
    path.unlink()
    claim, _ = Claims(folder).acquire(["a"])
    assert claim is not None
    claim.release()


# each ends in a state where the keys belong to the claimant, or to nobody once it is dead
OPERATIONS: dict[str, list[tuple[str, dict[str, object]]]] = {
    "acquire": [("acquire", {"keys": ["a", "b"]})],
    "acquire the rest": [("acquire", {"keys": ["a", "b", "taken"]})],
    "release": [("acquire", {"keys": ["a", "b"]}), ("release", {})],
    "announce": [("acquire", {"keys": ["a", "b"]}), ("announce", {"cluster": "local"})],
    "split": [("acquire", {"keys": ["a", "b"]}), ("split", {"groups": [["a"], ["b"]]})],
    "adopt": [("adopt", {})],
}


def prepare(claims: Claims, operation: str) -> dict[str, object]:
    """What was there before; for an adoption: the token of a claim that was handed to the process of the test."""
    if operation != "adopt":
        return {}
    claim, _ = claims.acquire(["a", "b"])
    assert claim is not None
    claim.transfer_to(Owner.for_job(cluster="local", job_id=str(os.getpid())))
    return {"token": claim.token}


def run(other: Claimant, operation: str, more: dict[str, object], at: int, *, stop: bool = False) -> None:
    """Run an operation; armed before its last step."""
    *before, (name, arguments) = OPERATIONS[operation]
    for do, args in before:
        other.ask(do, **args)
    other.ask("arm", at=at, stop=stop)
    other.send(name, **arguments, **more)


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_a_crash_at_any_step_leaves_nothing_in_the_way(
    operation: str, folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "GRACE", 0.05)
    claims = Claims(folder)
    held, _ = claims.acquire(["taken"])
    assert held is not None
    for at in range(1, 100):
        more = prepare(claims, operation)
        other = start()
        run(other, operation, more, at)
        crashed = other.answer() is None
        other.kill()
        if more:
            claims.revoke(str(more["token"]))
        claim = wait_for(lambda: claims.acquire(["a", "b"])[0])
        assert claim.keys == ("a", "b")
        claim.release()
        assert len(claim_files(folder)) == 1, f"step {at}"
        if not crashed:
            assert at > 1
            break
    held.release()


@pytest.mark.skipif(
    not os.path.exists("/proc/self/stat"), reason="which process has stopped is read from /proc"
)
@pytest.mark.parametrize("operation", ["acquire", "announce", "split", "adopt"])
def test_stopped_at_any_step_and_resumed_there_is_one_owner(
    operation: str, folder: Path, start: Start
) -> None:
    claims, other = Claims(folder), start()
    for at in range(1, 100):
        more = prepare(claims, operation)
        run(other, operation, more, at, stop=True)
        stopped = not other_answers(other)
        mine, _ = claims.acquire(["a", "b"])
        if operation != "acquire":
            assert mine is None, f"step {at}: robbed"
        if not stopped:
            break
        other.signal(signal.SIGCONT)
        answer = other.answer()
        theirs = other.ask("is_valid") if answer else False
        assert (mine is not None) != bool(theirs), f"step {at}: mine {mine}, theirs {answer}"
        other.ask("arm", at=0, stop=False)
        other.ask("release")
        if mine is not None:
            mine.release()
        if more:
            claims.revoke(str(more["token"]))
        assert claim_files(folder) == []


def other_answers(other: Claimant) -> bool:
    """Wait until it has stopped (False) or answered (True)."""

    def settled() -> str:
        state = Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return "T" if state == "T" else "answered" if other.has_answer() else ""

    return bool(wait_for(settled) != "T")


@pytest.mark.parametrize("kills", [0, 12])
def test_many_processes_compute_each_key_once(kills: int, folder: Path, start: Start) -> None:
    """Killed and stopped at random, they compute each key once, but for those whose owner was killed."""
    rng = random.Random(kills)
    keys = [f"k{i}" for i in range(150 if not kills else 400)]
    workers = [start() for _ in range(6)]
    for i, worker in enumerate(workers):
        worker.send("work", keys=keys, seed=i)
    for i in range(kills):
        victim = rng.choice(workers)
        goal = len(keys) * (i + 1) // (kills + 2)
        while len(list(folder.glob("*.done"))) < goal:
            time.sleep(0.005)
        if i % 3 == 2:
            victim.signal(signal.SIGSTOP)
            time.sleep(rng.uniform(0, 0.02))
            victim.signal(signal.SIGCONT)
        else:
            victim.kill()
            workers.remove(victim)
            workers.append(start())
            workers[-1].send("work", keys=keys, seed=100 + i)
    for worker in workers:
        assert worker.answer() is not None
    assert not (folder / "VIOLATION").exists(), (folder / "VIOLATION").read_text()
    counts = [len((folder / f"{k}.log").read_text().split()) for k in keys]
    assert min(counts) == 1
    assert sum(counts) - len(keys) <= kills
    Claims(folder).sweep()
    assert claim_files(folder) == []


def test_a_local_job_succeeds_its_submitter_that_died_before_handing_over(folder: Path, start: Start) -> None:
    submitter, worker, claims = start(), start(), Claims(folder)
    submitter.ask("acquire", keys=["a"])
    token = submitter.ask("token")
    submitter.ask("announce", cluster="local")
    submitter.kill()
    assert claims.acquire(["a"])[0] is None  # the job may be on its way
    assert worker.ask("adopt", token=token) == ["a"]
    assert claims.acquire(["a"])[0] is None
    worker.kill()
    claims.wait(["a"], done=lambda: False)
    claim, _ = claims.acquire(["a"])
    assert claim is not None
    claim.release()


def test_a_job_that_comes_too_late_is_told(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "GRACE", 0.05)
    submitter, worker, claims = start(), start(), Claims(folder)
    submitter.ask("acquire", keys=["a"])
    token = submitter.ask("token")
    submitter.ask("announce", cluster="local")
    submitter.kill()
    claims.wait(["a"], done=lambda: False)
    claim, _ = claims.acquire(["a"])
    assert claim is not None
    assert worker.ask("adopt", token=token) == []
    assert claim.is_valid()
    claim.release()


def test_handing_over_while_the_job_adopts(folder: Path, start: Start) -> None:
    """Whoever is first, the job has the claim."""
    submitter, worker, claims = start(), start(), Claims(folder)
    for _ in range(40):
        submitter.ask("acquire", keys=["a"])
        token = submitter.ask("token")
        submitter.ask("announce", cluster="local")
        submitter.send("transfer_to", pid=worker.pid)
        worker.send("adopt", token=token)
        assert submitter.answer()
        assert worker.answer() == ["a"]
        assert worker.ask("is_valid")
        assert claims.acquire(["a"])[0] is None
        worker.ask("release")
        assert claim_files(folder) == []


@pytest.fixture
def immutable() -> Iterator[Callable[[Path, bool], None]]:
    """Makes a file one that can't be removed or written, as on a file system that is read-only for a moment."""
    made: set[Path] = set()

    def switch(path: Path, on: bool) -> None:
        done = subprocess.run(
            ["chattr", "+i" if on else "-i", path], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no file can be made immutable here: {done.stderr.strip()}")
        (made.add if on else made.discard)(path)

    yield switch
    for path in list(made):
        switch(path, False)


needs_chattr = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("chattr") is None, reason="needs root and chattr"
)


@needs_chattr
def test_a_claim_that_cannot_be_removed_locks_nothing(
    folder: Path, immutable: Callable[[Path, bool], None]
) -> None:
    """What no object holds is free for this very process, however long the file stays."""
    claims = Claims(folder)
    claim, _ = claims.acquire(["a"])
    assert claim is not None
    (path,) = claim_files(folder)
    immutable(path, True)
    claim.release()
    assert claim_files(folder) == [path]
    again, held = claims.acquire(["a", "b"])
    assert again is not None
    assert (again.keys, held) == (("a", "b"), {})
    assert claims.acquire(["a"])[0] is None  # held anew, under a file of its own
    again.release()


@needs_chattr
def test_a_claim_that_could_not_be_removed_goes_later(
    folder: Path, start: Start, immutable: Callable[[Path, bool], None]
) -> None:
    """Its process lives on and does nothing about it, yet others get the keys."""
    other = start(heartbeat=0.1)
    assert other.ask("acquire", keys=["a"]) == ["a"]
    (path,) = claim_files(folder)
    immutable(path, True)
    other.ask("release")
    assert Claims(folder).acquire(["a"])[0] is None  # from outside it can't be told from one that is held
    immutable(path, False)
    wait_for(lambda: claim_files(folder) == [])
    claim, _ = Claims(folder).acquire(["a"])
    assert claim is not None
    assert other.process.poll() is None


@needs_chattr
@pytest.mark.skipif(
    not os.path.exists("/proc/self/stat"), reason="the heartbeat process is for Linux, with /proc"
)
def test_a_keeper_that_was_killed_leaves_the_removal_to_the_next(
    folder: Path, immutable: Callable[[Path, bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXCA_HEARTBEAT", "0.1")
    beating = Heart()
    for module in ("claimfile", "claims", "protocol"):
        monkeypatch.setattr(f"exca.claims.{module}.heart", beating)
    claims = Claims(folder)
    claim, _ = claims.acquire(["a"])
    assert claim is not None
    (path,) = claim_files(folder)
    immutable(path, True)
    claim.release()
    pid = beating._child_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    immutable(path, False)
    other, _ = claims.acquire(["b"])
    assert other is not None
    wait_for(lambda: path not in claim_files(folder))
    other.release()
    beating._close()


def test_claims_of_one_process_differ_also_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start time that psutil gives has a dot, and a token ends at the first dot of a file's name."""
    monkeypatch.setattr(owner, "_HAS_PROC", False)
    owner._process_with_host.cache_clear()
    try:
        entries = [claimfile.fresh_entry(["a"], Owner.current()) for _ in range(2)]
        assert entries[0].token != entries[1].token
        assert [claimfile.revision_of(entry.name)[0] for entry in entries] == [0, 0]
        assert entries[0].maker() is not None
        assert entries[0].maker_is(owner.Process.current())
    finally:
        owner._process_with_host.cache_clear()
