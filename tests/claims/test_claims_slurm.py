"""Jobs of a real Slurm as owners."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import claimant
from claimant import Claimant, claim_files
from exca.claims import Claim, Claims, Owner
from exca.jobs import slurm_queue
from exca.jobs.slurm_queue import job_states
from waiting import wait_for

pytestmark = pytest.mark.slurm
Start = Callable[..., Claimant]
Submit = Callable[..., str]


@pytest.fixture
def submit(folder: Path) -> Iterator[Submit]:
    """Submits shell commands and returns job ids; cancels what is left."""
    ids: list[str] = []

    def run(command: str, *options: str) -> str:
        args = ["sbatch", "--parsable", f"--output={folder}/%j.out", *options, f"--wrap={command}"]
        ids.append(subprocess.run(args, check=True, capture_output=True, text=True).stdout.strip())
        return ids[-1]

    yield run
    subprocess.run(["scancel", *ids], check=False, capture_output=True)


def state(job_id: str) -> str:
    return job_states([job_id])[job_id].state


def won(claim: Claim | None) -> Claim:
    assert claim is not None
    return claim


def test_states_of_jobs(submit: Submit) -> None:
    failed = submit("exit 3")
    waiting = submit("true", "--hold")
    array = submit("sleep 60", "--array=0-1")
    wait_for(lambda: state(failed) == "FAILED" and state(f"{array}_1") == "RUNNING")
    subprocess.run(["scancel", f"{array}_1"], check=True)
    wait_for(lambda: state(f"{array}_1") == "CANCELLED")
    ids = [failed, waiting, array, f"{array}_0", f"{array}_1", f"{array}_7", "999999999"]
    found = [job_states(ids)[i] for i in ids]
    states = ["FAILED", "PENDING", "RUNNING", "RUNNING", "CANCELLED", "UNKNOWN", "UNKNOWN"]
    assert [s.state for s in found] == states
    assert [s.alive for s in found] == [False, True, True, True, False, False, False]
    assert found[0].exit_code == "3:0"
    assert found[0].reason == "NonZeroExitCode"
    assert found[1].reason == "JobHeldUser"
    assert [s.job_id for s in found] == ids
    assert [job_states([i])[i].state for i in ids] == states


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets a line for each call of squeue."""
    real = shutil.which("squeue")
    counting = tmp_path / "bin" / "squeue"
    counting.parent.mkdir()
    counting.write_text(f'#!/bin/sh\necho x >> {tmp_path}/asked\nexec {real} "$@"\n')
    counting.chmod(0o755)
    monkeypatch.setenv("PATH", f"{counting.parent}:{os.environ['PATH']}")
    return tmp_path / "asked"


def test_one_query_for_all_threads(submit: Submit, asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [submit("true", "--hold") for _ in range(3)]
    monkeypatch.setattr(slurm_queue, "REMEMBER", 0.0)
    job_states(ids)  # all are known to be wanted
    before = asked.read_text()
    monkeypatch.undo()
    monkeypatch.setenv("PATH", f"{asked.parent}/bin:{os.environ['PATH']}")
    time.sleep(slurm_queue.REMEMBER)  # what is remembered has to become old
    threads = [threading.Thread(target=job_states, args=([i],)) for i in ids * 4]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert asked.read_text() == before + "x\n"


def test_a_job_is_known_as_soon_as_it_is_submitted(submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer from before says nothing about it, though it was about all jobs."""
    monkeypatch.setattr(slurm_queue, "REMEMBER", 60.0)
    for _ in range(4):
        assert job_states([submit("true", "--hold")]).popitem()[1].alive


def test_few_queries_for_many_jobs_asked_about_one_by_one(
    submit: Submit, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_queue, "REMEMBER", 60.0)
    array = submit("true", "--hold", "--array=0-99")
    ids = [submit("true", "--hold") for _ in range(3)]
    for job_id in [*(f"{array}_{i}" for i in range(100)), *ids]:
        assert state(job_id) == "PENDING"
    assert len(asked.read_text().split()) <= 2


def test_a_scheduler_that_cannot_be_asked_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(slurm_queue, "REMEMBER", 0.0)
    (found,) = job_states(["888888888"]).values()
    assert (found.state, found.alive) == ("UNKNOWN", None)


def test_a_job_owns_its_claim_until_it_ends(folder: Path, submit: Submit) -> None:
    claims = Claims(folder)
    claim = won(claims.acquire(["a"])[0])
    tag = claim.announce("slurm")
    job_id = submit("sleep 60", f"--comment={tag}")
    claim.transfer_to(Owner.for_job(cluster="slurm", job_id=job_id))
    assert Claims(folder).acquire(["a"])[0] is None
    holder = claims.holders()["a"]
    assert holder.job_id == job_id
    assert f"squeue -j {job_id}" in holder.describe()
    wait_for(lambda: state(job_id) == "RUNNING")
    subprocess.run(["scancel", job_id], check=True)
    started = time.monotonic()
    claims.wait(["a"], done=lambda: False)
    with won(claims.acquire(["a"])[0]):
        assert time.monotonic() - started < 5
    assert claim_files(folder) == []


def test_a_submitter_that_dies_after_submitting_is_succeeded_by_its_job(
    folder: Path, start: Start, submit: Submit
) -> None:
    other = start()
    other.ask("acquire", keys=["a"])
    tag = other.ask("announce", cluster="slurm")
    job_id = submit("sleep 60", f"--comment={tag}")
    other.kill()  # before it could say which job it is
    claims = Claims(folder)
    claims.wait(["a"], done=lambda: False, timeout=4)
    assert claims.acquire(["a"])[0] is None
    holder = claims.holders()["a"]
    assert holder.alive()
    assert holder.job_id == job_id
    subprocess.run(["scancel", job_id], check=True)
    claims.wait(["a"], done=lambda: False)
    with won(claims.acquire(["a"])[0]):
        pass


def test_a_submitter_that_dies_before_submitting_is_taken_over(folder: Path, start: Start) -> None:
    other = start()
    other.ask("acquire", keys=["a"])
    other.ask("announce", cluster="slurm")
    other.kill()
    claims = Claims(folder)
    started = time.monotonic()
    claims.wait(["a"], done=lambda: False)
    with won(claims.acquire(["a"])[0]):
        assert time.monotonic() - started < 5


def test_a_job_adopts_what_its_dead_submitter_announced_also_after_a_requeue(
    folder: Path, start: Start, submit: Submit
) -> None:
    other = start()
    other.ask("acquire", keys=["a", "b"])
    token = other.ask("token")
    tag = other.ask("announce", cluster="slurm")
    os.mkfifo(folder / "orders")
    order = f'{{"do": "adopt", "token": "{token}"}}'
    program = f"(echo '{order}'; cat {folder}/orders) | {sys.executable} {claimant.__file__} {folder}"
    src = Path(sys.modules["exca"].__path__[0]).parent
    job_id = submit(
        f"export PYTHONPATH={src}; {program}", f"--comment={tag}", "--requeue", "--open-mode=append"
    )
    other.kill()
    output = folder / f"{job_id}.out"
    wait_for(lambda: output.exists() and output.read_text().count('["a", "b"]') == 1)
    claims = Claims(folder)
    holder = claims.holders()["b"]
    assert (holder.token, holder.job_id) == (token, job_id)
    assert holder.owner.process is not None
    subprocess.run(["scontrol", "requeue", job_id], check=True)
    wait_for(lambda: holder.owner.process is not None and not holder.owner.process.alive())
    assert claims.holders()["a"].alive()
    assert claims.acquire(["a"])[0] is None
    wait_for(lambda: output.read_text().count('["a", "b"]') == 2)
    assert claims.acquire(["b"])[0] is None
    assert len(claim_files(folder)) == 1
    (folder / "orders").write_text('{"do": "release"}\n')
    wait_for(lambda: not claims.holders())
