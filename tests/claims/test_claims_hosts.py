"""Two hosts on one folder, played by one machine: only heartbeats tell how the other one is."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from claimant import Claimant
from exca.claims import Claims
from exca.claims.claimfile import ClaimFolder
from exca.claims.owner import MISSED, Observer
from waiting import wait_for

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/stat"), reason="heartbeat processes are for Linux, with /proc"
)
Start = Callable[..., Claimant]
BEAT = 0.1  # seconds; a dead owner is known to be after 8 of them


def heartbeat_processes(owner: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            args = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(a.endswith(b"heartbeat_process.py") for a in args) and str(owner).encode() in args:
            found.append(int(path.parent.name))
    return found


def beats(folder: Path) -> set[object]:
    files = ClaimFolder(folder)
    return {files.beat(name) for name in files.names()}


def test_the_dead_of_another_host_are_taken_over(folder: Path, start: Start) -> None:
    other = start("elsewhere", BEAT)
    other.ask("acquire", keys=["a"])
    other.kill()
    claims = Claims(folder)
    assert claims.acquire(["a"])[0] is None  # not at the first look
    claims.wait(["a"], done=lambda: False)
    claim, _ = claims.acquire(["a"])
    assert claim is not None
    claim.release()


@pytest.mark.parametrize("after_beats", [False, True])
def test_the_stopped_of_another_host_are_not(after_beats: bool, folder: Path, start: Start) -> None:
    """Even when stopped right after claiming: the heartbeat process was there before the claim."""
    other = start("elsewhere", BEAT)
    other.ask("acquire", keys=["a"])
    if after_beats:
        wait_for(lambda: beats(folder) != {b"0000000000"})
    other.signal(signal.SIGSTOP)
    claims = Claims(folder)
    claims.wait(["a"], done=lambda: False, timeout=3 * MISSED * BEAT)
    assert claims.acquire(["a"])[0] is None
    other.signal(signal.SIGCONT)
    assert other.ask("is_valid")


def test_the_heartbeat_process_goes_with_its_owner(folder: Path, start: Start) -> None:
    other = start("elsewhere", BEAT)
    assert heartbeat_processes(other.pid) == []  # who claims nothing has none
    other.ask("acquire", keys=["a"])
    wait_for(lambda: heartbeat_processes(other.pid))  # it is a process before it is its program
    (beating,) = heartbeat_processes(other.pid)
    other.ask("acquire", keys=["b"])
    assert heartbeat_processes(other.pid) == [beating]
    other.kill()
    wait_for(lambda: not heartbeat_processes(other.pid))


def test_a_killed_heartbeat_process_is_replaced(folder: Path, start: Start) -> None:
    other = start("elsewhere", BEAT)
    other.ask("acquire", keys=["a"])
    wait_for(lambda: heartbeat_processes(other.pid))  # it is a process before it is its program
    (beating,) = heartbeat_processes(other.pid)
    os.kill(beating, signal.SIGTERM)  # ignored: it is meant for the owner
    os.kill(beating, signal.SIGKILL)
    wait_for(lambda: other.ask("is_valid") and heartbeat_processes(other.pid) not in ([], [beating]))
    before = beats(folder)
    wait_for(lambda: beats(folder) != before)


def test_a_handed_over_claim_is_kept_alive_for_its_worker(folder: Path, start: Start) -> None:
    """The submitter's heartbeat process outlives it for a local job that has not begun, though that died."""
    submitter, worker = start("elsewhere", BEAT), start("elsewhere", BEAT)
    submitter.ask("acquire", keys=["a"])
    token = submitter.ask("token")
    submitter.ask("transfer_to", pid=worker.pid)
    submitter.kill()
    worker.signal(signal.SIGSTOP)
    claims = Claims(folder)
    claims.wait(["a"], done=lambda: False, timeout=2 * MISSED * BEAT)
    assert claims.acquire(["a"])[0] is None
    worker.signal(signal.SIGCONT)
    assert worker.ask("adopt", token=token) == ["a"]
    wait_for(lambda: not heartbeat_processes(submitter.pid))  # the worker has its own now
    worker.kill()
    claims.wait(["a"], done=lambda: False)
    claim, _ = claims.acquire(["a"])
    assert claim is not None
    claim.release()


def test_many_claims_do_not_wake_the_heartbeat_process_each_time(folder: Path, start: Start) -> None:
    """More paths than fit into the pipe are known to it all the same."""
    other = start("elsewhere", BEAT)
    for i in range(1000):
        other.ask("acquire", keys=[f"k{i}"])
    wait_for(lambda: b"0000000000" not in beats(folder))
    assert len(beats(folder)) <= 2  # one beat for all, seen while it goes round


def test_an_observer_learns_nothing_from_a_gap() -> None:
    """It was stopped itself, or its clock jumped: only looks count, one period each at most."""
    clock = [0.0]
    observer = Observer(lambda: clock[0])
    assert not observer.still("x", 1, 5.0)
    clock[0] += 1000.0
    assert not observer.still("x", 1, 5.0)
    looks = 1
    while not observer.still("x", 1, 5.0):
        clock[0] += 1.0
        looks += 1
    assert looks == 1 + 7 * 5
    assert not observer.still("x", 2, 5.0)


def test_hosts_and_processes_are_told_apart(folder: Path, start: Start) -> None:
    here, there = start(), start("elsewhere", BEAT)
    here.ask("acquire", keys=["a"])
    there.ask("acquire", keys=["b"])
    holders = Claims(folder).holders()
    one, two = holders["a"].owner.process, holders["b"].owner.process
    assert one is not None
    assert two is not None
    assert one.host != two.host
    assert one.alive() is True
    assert two.alive() is None
    assert time.time() - holders["a"].since < 60
