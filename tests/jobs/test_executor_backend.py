"""What the executor backend has of its own: how an executor is given, and jobs that end with their submitter."""

import concurrent.futures
import os
import pickle
import signal
import subprocess
import sys
import typing as tp
from pathlib import Path

import psutil
import pydantic
import pytest

import engine_models
from exca import steps
from exca.errors import JobError, SubmissionError
from exca.testing.backend_models import BEGAN, Task
from waiting import wait_for


def task(folder: Path, executor: object, **fields: tp.Any) -> Task:
    infra = {"folder": folder / "cache", "cluster": "executor", "futures_executor": executor}
    return Task.model_validate({"folder": folder, "infra": infra, **fields})


def test_an_executor_is_made_by_a_callable_once_per_process(tmp_path: Path) -> None:
    assert task(tmp_path, "engine_models:make", x=1).compute() == 2
    assert task(tmp_path, "engine_models:make", x=2).compute() == 4


def test_an_object_is_in_no_file_and_in_no_pickle(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        one = task(tmp_path, pool, x=3)
        assert one.infra.clone_obj({"x": 4}).compute() == 8
        assert one.compute() == 6
    (again,) = [found for found in one.infra.iter_cached() if found.x == 3]
    assert again.compute() == 6
    again = pickle.loads(pickle.dumps(task(tmp_path, pool, x=5)))
    with pytest.raises(SubmissionError, match="given as an object, which does not travel"):
        again.compute()
    assert again.infra.status() == "not submitted"


@pytest.mark.parametrize(
    ("executor", "words"),
    [
        (3, "futures_executor=3 is no executor: give an object with a method submit"),
        (concurrent.futures.ThreadPoolExecutor, "is no executor"),
        ("engine_models", "names no callable: write 'module:callable'"),
        ("engine models:make", "names no callable"),
    ],
)
def test_what_can_be_no_executor_is_refused(tmp_path: Path, executor: object, words: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=words):
        task(tmp_path, executor)
    with pytest.raises(pydantic.ValidationError, match=words):
        steps.backends.Executor(folder=tmp_path, executor=executor)


@pytest.mark.parametrize(
    ("executor", "words"),
    [
        (None, r"cluster='executor' needs futures_executor=\.\.\."),
        ("no_such_module:make", "cannot make the executor of .*: ModuleNotFoundError: No module named"),
        ("engine_models:other", "AttributeError: module 'engine_models' has no attribute 'other'"),
        ("engine_models:make_wrongly", "OSError: there are no threads today. Nothing was submitted"),
        ("engine_models:make_nothing", "made None, which has no method submit"),
    ],
)
def test_an_executor_that_cannot_be_made_is_told_at_submission(
    tmp_path: Path, executor: object, words: str
) -> None:
    one = task(tmp_path, executor)
    with pytest.raises(SubmissionError, match=words):
        one.compute()
    assert one.infra.status() == "not submitted"
    assert not list(tmp_path.rglob("*.claim"))


def test_an_executor_that_is_shut_down_takes_nothing(tmp_path: Path) -> None:
    pool = engine_models.make()
    pool.shutdown()
    tasks = [task(tmp_path, pool, x=x) for x in range(2)]
    with (
        pytest.raises(
            SubmissionError, match=r"ThreadPoolExecutor did not take .*RuntimeError: cannot schedule"
        ),
        tasks[0].infra.job_array() as array,
    ):
        array.extend(tasks)
    assert [one.infra.status() for one in tasks] == ["not submitted"] * 2


def test_a_job_ends_with_its_submitter(tmp_path: Path) -> None:
    command = [sys.executable, engine_models.__file__, str(tmp_path), str(tmp_path / "cache")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as submitter:
        wait_for((tmp_path / BEGAN).exists)
        pid = int((tmp_path / BEGAN).read_text())
        one = task(tmp_path, "engine_models:make", how="wait")
        assert (one.infra.status(), one.infra.job().state) == ("running", "RUNNING")
        submitter.send_signal(signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert one.infra.status() == "not submitted"
    (tmp_path / "go").touch()
    assert one.compute() == 4, "it is no failure of the computation, so it is computed again"


def test_without_retries_a_job_whose_submitter_ended_is_failed(tmp_path: Path) -> None:
    command = [sys.executable, engine_models.__file__, str(tmp_path), str(tmp_path / "cache"), "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as submitter:
        wait_for((tmp_path / BEGAN).exists)
        submitter.send_signal(signal.SIGKILL)
    one = task(tmp_path, "engine_models:make", how="wait")
    with pytest.raises(JobError, match="The process that submitted it, and held its executor, ended before"):
        one.compute()
    assert one.infra.status() == "failed"


def test_a_caller_that_is_interrupted_hears_that_the_jobs_end_with_it(tmp_path: Path) -> None:
    command = [sys.executable, engine_models.__file__, str(tmp_path), str(tmp_path / "cache")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as submitter:
        wait_for((tmp_path / BEGAN).exists)
        submitter.send_signal(signal.SIGINT)
        (tmp_path / "go").touch()
        said = submitter.communicate()[1]
    assert "goes on only as long as this interpreter" in said


def test_a_lost_worker_is_the_end_of_its_job(tmp_path: Path) -> None:
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        worker = pool.submit(os.getpid).result()
        one = task(tmp_path, pool, how="wait")
        job = one.infra.job()
        wait_for((tmp_path / BEGAN).exists)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(JobError, match="the executor lost the job: BrokenProcessPool"):
            job.result()
        assert one.infra.status() == "failed"


def test_a_job_that_waits_for_a_worker_is_cancelled(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first, second = task(tmp_path, pool, how="wait"), task(tmp_path, pool, x=7)
        first.infra.job()
        wait_for((tmp_path / BEGAN).exists)
        job = second.infra.job()
        assert job.state == "PENDING"
        job.cancel()
        assert second.infra.status() == "not submitted"
        (tmp_path / "go").touch()
        assert first.compute() == 4
        assert second.compute() == 14


def test_a_time_limit_ends_a_job(tmp_path: Path) -> None:
    """It is as long as a minute, so the launch is called with a shorter one."""
    import dataclasses

    from exca.jobs.executor import BACKEND

    one = task(tmp_path, "engine_models:make", how="wait")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        real = pool.submit
        pool.submit = lambda launch: real(dataclasses.replace(launch, seconds=0.5))  # type: ignore[method-assign,assignment] # what is in between is the executor's
        one = task(tmp_path, pool, how="wait")
        with pytest.raises(JobError, match=r"It reached its time limit: raise timeout_min\."):
            one.compute()
        assert one.infra.job().state == "TIMEOUT"
    assert BACKEND.outlive_submitter is False


def test_a_job_waits_for_others_of_the_same_process(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = task(tmp_path, pool, x=3, how="wait")
        second, third = task(tmp_path, pool, x=4), task(tmp_path, pool, x=5)
        job = second.infra.job(after=[first])
        last = third.infra.job(after=[job])
        wait_for((tmp_path / BEGAN).exists, "the first to begin")
        assert (job.state, last.state, job.began()) == ("PENDING", "PENDING", False)
        last.cancel()
        (tmp_path / "go").touch()
        assert job.result() == 8
        assert last.exception() is not None
        assert third.infra.status() == "not submitted"
