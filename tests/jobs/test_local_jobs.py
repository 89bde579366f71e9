"""Jobs on this machine: what their states are called, how they end, and what is ended on their behalf."""

import os
import re
import subprocess
import sys
import typing as tp
from pathlib import Path

import cloudpickle
import psutil
import pydantic
import pytest

import elsewhere
import exca
from exca import _files
from exca.claims.owner import Process
from exca.errors import JobError
from exca.jobs import backends, entry, order, paths
from exca.jobs.backends import Submission
from task_models import Sleeper
from waiting import wait_for

Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time


@pytest.fixture
def infra(tmp_path: Path) -> Infra:
    return {"cluster": "local", "folder": tmp_path}


def sweep(tmp_path: Path, infra: Infra, count: int, workers: int) -> list[Sleeper]:
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    with task.infra.job_array(max_workers=workers) as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(count))
    return array


def states_elsewhere(task: Sleeper) -> str:
    """The state of a task's job, as an interpreter says that did not submit it."""
    program = f"""
from task_models import Sleeper
infra = dict(folder={str(task.infra.folder)!r}, cluster="local")
print(Sleeper(gate={str(task.gate)!r}, x={task.x}, infra=infra).infra.job().state)
"""
    return elsewhere.printed(program)


def test_jobs_of_an_array_say_which_of_them_run(tmp_path: Path, infra: Infra) -> None:
    first, second = sweep(tmp_path, infra, 2, workers=1)
    wait_for(first.started().exists, "the first to start")
    assert (first.infra.job().state, second.infra.job().state) == ("RUNNING", "PENDING")
    assert (states_elsewhere(first), states_elsewhere(second)) == ("RUNNING", "PENDING")
    (tmp_path / "gate").touch()
    assert [first.run(), second.run()] == [0, 1]
    assert (first.infra.job().state, second.infra.job().state) == ("COMPLETED", "COMPLETED")


def test_cancelled_before_it_began_is_as_if_never_submitted(tmp_path: Path, infra: Infra) -> None:
    first, second = sweep(tmp_path, infra, 2, workers=1)
    wait_for(first.started().exists, "the first to start")
    job = second.infra.job()
    job.cancel()
    assert job.state == "CANCELLED"
    assert second.infra.status() == "not submitted"
    assert first.infra.status() == "running"
    (tmp_path / "gate").touch()
    assert first.run() == 0
    assert not second.started().exists()
    assert second.run() == 1, "the next call computes"
    assert len(second.started().read_text().split()) == 1


def test_cancelled_while_it_ran_is_kept_as_a_failure(tmp_path: Path, infra: Infra) -> None:
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    job = task.infra.job()
    wait_for(task.started().exists, "the job to start")
    job.cancel()
    wait_for(lambda: task.infra.status() == "failed", "the failure to be kept")
    again = Sleeper(gate=tmp_path / "gate", infra=infra)
    assert again.infra.job().state == "CANCELLED"
    with pytest.raises(JobError, match="It was cancelled"):
        again.run()


def test_a_sweep_that_is_cancelled_starts_nothing_more(tmp_path: Path, infra: Infra) -> None:
    """Whichever is first, the worker that notes that it began or who cancels: one of the two sees the other."""
    array = sweep(tmp_path, infra, 24, workers=2)
    wait_for(lambda: any(t.started().exists() for t in array), "one to start")
    jobs = [t.infra.job() for t in array]
    for job in reversed(jobs):
        job.cancel()
    started = {t.x for t in array if t.started().exists()}
    supervisor = jobs[0].submission.pid
    assert supervisor is not None
    wait_for(lambda: not runs(supervisor), "the supervisor to end")
    assert {t.x for t in array if t.started().exists()} == started
    assert {job.state for job in jobs} == {"CANCELLED"}
    statuses = {t.x: t.infra.status() for t in array}
    assert {x for x, status in statuses.items() if status == "not submitted"} >= set(
        range(24)
    ) - started - set(range(4))
    (tmp_path / "gate").touch()
    left = next(t for t in array if statuses[t.x] == "not submitted")
    assert left.run() == left.x


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def prepared(tmp_path: Path, call: tp.Callable[[], tp.Any]) -> Submission:
    """Write down a job as its submitter does, which no interpreter has started."""
    job_paths = paths.JobPaths(str(tmp_path / "%j"), "one")
    job_paths.folder.mkdir()
    job_paths.submitted_pickle.write_bytes(cloudpickle.dumps(call))
    return Submission("local", "one", job_paths.pattern)


def run_worker(submission: Submission, seconds: float = 0) -> int:
    command = [
        sys.executable,
        "-m",
        "exca.jobs.worker",
        submission.logs,
        submission.job_id,
        "0",
        "1",
        "1",
    ]
    content = paths.JobPaths(submission.logs, submission.job_id).submitted_pickle.read_bytes()
    command += [str(seconds), _files.digest(content)]
    return subprocess.run(command, check=False, timeout=60, capture_output=True).returncode


def test_a_worker_that_finds_itself_cancelled_runs_nothing(tmp_path: Path) -> None:
    submission = prepared(tmp_path, lambda: os.mkdir(tmp_path / "it ran"))
    backend = backends.get("local")
    backend.cancel([submission])
    assert run_worker(submission) != 0
    assert not (tmp_path / "it ran").exists()
    assert backend.state(submission) == "CANCELLED"


def test_a_time_limit_is_a_state(tmp_path: Path) -> None:
    submission = prepared(tmp_path, lambda: __import__("time").sleep(60))
    assert run_worker(submission, 0.2) == order.TIMED_OUT
    backend = backends.get("local")
    assert backend.state(submission) == "TIMEOUT"
    assert "raise timeout_min" in backend.ending(submission).text


def test_a_process_is_ended_only_if_it_is_the_one_that_was_noted(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "100"])
    try:
        submission = prepared(tmp_path, lambda: None)
        job_paths = paths.JobPaths(submission.logs, submission.job_id)
        now = Process.of(bystander.pid)
        earlier = Process(
            now.host, now.hostname, now.pid, str(int(now.start) - 100)
        )  # its number was used again
        entry.note_process(job_paths.folder / entry.BEGAN, earlier)
        backend = backends.get("local")
        backend.cancel([submission])
        assert bystander.poll() is None
        (job_paths.folder / entry.BEGAN).write_text(str(bystander.pid))  # no start time at all
        backend.cancel([submission])
        assert bystander.poll() is None
        (job_paths.folder / entry.CANCELLED).unlink()
        entry.note_process(job_paths.folder / entry.BEGAN, now)
        backend.cancel([submission])
        assert bystander.wait(timeout=60) != 0
    finally:
        bystander.kill()
        bystander.wait()


def test_a_process_that_a_stranger_noted_is_not_ended(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to somebody else")
    bystander = subprocess.Popen(["sleep", "100"])
    try:
        submission = prepared(tmp_path, lambda: None)
        noted = paths.JobPaths(submission.logs, submission.job_id).folder / entry.BEGAN
        entry.note_process(noted, Process.of(bystander.pid))
        os.chown(noted, 65534, 65534)
        backends.get("local").cancel([submission])
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


class Ranks(pydantic.BaseModel):
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        import time

        if os.environ["SUBMITIT_LOCAL_GLOBALID"] == "1":
            raise LookupError("rank 1 has lost its way")
        time.sleep(600)
        return 0


def test_a_rank_that_raises_ends_the_job_and_is_the_error(infra: Infra) -> None:
    task = Ranks(infra=infra | {"tasks_per_node": 2})
    with pytest.raises(LookupError, match="rank 1 has lost its way") as caught:
        task.run()
    assert "process 1 of 2" in "\n".join(caught.value.__notes__)
    job = task.infra.job()
    said = (job.paths.folder / f"{job.job_id}_1_log.err").read_text()
    assert "rank 1 has lost its way" in said
    assert re.search(r"Process 1 of .*Ranks.* failed", said)


@pytest.mark.parametrize("text", ["a\nb", "a\tb", "a\x00b", "a\x1b[31mb"])
@pytest.mark.parametrize(
    "field", ["job_name", "slurm_partition", "slurm_constraint", "slurm_account", "slurm_qos"]
)
def test_control_characters_are_refused(field: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"{field} holds a control character"):
        exca.TaskInfra.model_validate({field: text})
    with pytest.raises(ValueError, match="slurm_additional_parameters holds a control character"):
        exca.TaskInfra.model_validate({"slurm_additional_parameters": {"comment": text}})
    with pytest.raises(ValueError, match="slurm_additional_parameters holds a control character"):
        exca.TaskInfra.model_validate({"slurm_additional_parameters": {text: 1}})
