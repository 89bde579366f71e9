"""Waiting for many jobs: those that are done come as they are done, and few questions are asked."""

import asyncio
import signal
import subprocess
import threading
import time
import typing as tp
from pathlib import Path

import pydantic
import pytest

import elsewhere
import exca
from exca.errors import SubmissionError
from exca.jobs import slurm_queue, watching
from exca.jobs.backends import Submission
from exca.jobs.job import CallJob
from slurm_faults import Faults
from slurm_limits import Qos
from task_models import Double, Failing, HalvesOrCalls, Sleeper
from waiting import wait_for

Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time


class WaitsWithin(pydantic.BaseModel):
    double: Double
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def process(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        for item in items:
            [job] = exca.wait([self.double.infra.job()]).done
            yield job.result() + item


class Counted(CallJob[None]):
    """A job that counts how often its outcome is looked for."""

    looks = 0

    def _finished(self) -> bool | None:
        Counted.looks += 1
        return super()._finished()


@pytest.fixture
def infra(tmp_path: Path) -> Infra:
    return {"cluster": "local", "folder": tmp_path}


def sleepers(tmp_path: Path, infra: Infra, count: int) -> list[Sleeper]:
    """Tasks of which each waits for a gate of its own, submitted."""
    tasks = [Sleeper(gate=tmp_path / f"gate-{x}", x=x, infra=infra) for x in range(count)]
    for task in tasks:
        task.infra.job()
    return tasks


def test_jobs_come_as_they_are_done(tmp_path: Path, infra: Infra) -> None:
    tasks = sleepers(tmp_path, infra, 3)
    jobs = [task.infra.job() for task in tasks]
    completed = exca.as_completed([*jobs, jobs[0]])
    for number in (2, 0, 1):
        tasks[number].gate.touch()
        assert next(completed) is jobs[number]
    assert next(completed, None) is None, "one that is given twice comes once"


def test_waiting_tells_what_is_done_and_what_is_not(tmp_path: Path, infra: Infra) -> None:
    tasks = sleepers(tmp_path, infra, 2)
    jobs = [task.infra.job() for task in tasks]
    assert exca.wait(jobs, timeout=0) == ([], jobs)
    with pytest.raises(
        TimeoutError, match=r"2 of 2 job\(s\) are not done after 0 s, such as local job .*again"
    ):
        next(exca.as_completed(jobs, timeout=0))
    tasks[1].gate.touch()
    assert exca.wait(jobs, return_when="FIRST_COMPLETED") == ([jobs[1]], [jobs[0]])
    tasks[0].gate.touch()
    done, not_done = exca.wait(jobs)
    assert [job.result() for job in done] == [0, 1]
    assert not_done == []


def test_waiting_ends_with_the_first_failure(tmp_path: Path, infra: Infra) -> None:
    [sleeper] = sleepers(tmp_path, infra, 1)
    jobs: list[tp.Any] = [
        Failing(infra=infra).infra.job(),
        Double(infra=infra).infra.job(),
        sleeper.infra.job(),
    ]
    done, not_done = exca.wait(jobs, return_when="FIRST_EXCEPTION")
    assert jobs[0] in done
    assert jobs[2] in not_done
    jobs[2].cancel()
    assert exca.wait(jobs).not_done == [], "what was cancelled is done"


def test_jobs_of_all_kinds_are_waited_for_together(tmp_path: Path, infra: Infra) -> None:
    here = Double(infra=infra | {"cluster": None}).infra.job()
    calls = HalvesOrCalls(calls=infra)
    killed = Failing(kind="kill", infra=infra).infra.job()
    jobs = [here, calls.calls.submit(3), killed, Double(x=7, infra=infra).infra.job()]
    assert exca.wait(jobs).done == jobs
    assert [job.exception() is None for job in jobs] == [True, True, False, True]
    assert (here.result(), jobs[1].result(), jobs[3].result()) == (2, 1.5, 14)


def test_what_was_never_submitted_is_not_waited_for(tmp_path: Path, infra: Infra) -> None:
    calls = HalvesOrCalls(calls=infra)
    with calls.calls.batch():
        job = calls.calls.submit(3)
        with pytest.raises(SubmissionError, match=r"leave the `with infra.batch"):
            exca.wait([job])
    assert exca.wait([job]).done == [job]


def test_what_is_no_job_is_refused(tmp_path: Path, infra: Infra) -> None:
    given: tp.Any = [Double(infra=infra)]
    with pytest.raises(TypeError, match=r"is no job: give what infra\.job\(\)"):
        exca.wait(given)
    with pytest.raises(TypeError, match="is no job"):
        exca.as_completed(given)
    when: tp.Any = "SOME"
    with pytest.raises(ValueError, match="return_when='SOME' is none of ALL_COMPLETED"):
        exca.wait([], return_when=when)


def test_many_are_awaited_in_one_thread(tmp_path: Path, infra: Infra) -> None:
    tasks = sleepers(tmp_path, infra, 3)
    failing = Failing(infra=infra).infra.job()

    async def result(task: Sleeper) -> int:
        return tp.cast(int, await task.infra.job())

    async def all_of_them() -> list[tp.Any]:
        given_up = asyncio.ensure_future(result(tasks[0]))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(given_up, 0.1)
        waiting = [asyncio.ensure_future(result(task)) for task in tasks * 20]
        await asyncio.sleep(0)
        watchers = [t for t in threading.enumerate() if t.name == "exca-watch"]
        for task in tasks:
            task.gate.touch()
        with pytest.raises(ValueError, match="the value is wrong"):
            await failing
        return [len(watchers), *await asyncio.gather(*waiting)]

    assert asyncio.run(all_of_them()) == [1, *[0, 1, 2] * 20]
    wait_for(lambda: not [t for t in threading.enumerate() if t.name == "exca-watch"], "the thread to end")


def test_a_computation_may_wait_for_what_it_has_claimed(tmp_path: Path) -> None:
    """Within a map, waiting for a task gives back what is not started, as asking for its result does."""
    double = Double(x=4, infra=tp.cast(tp.Any, {"folder": tmp_path, "cluster": "local"}))
    obj = WaitsWithin(double=double, infra=tp.cast(tp.Any, {"folder": tmp_path}))
    assert list(obj.process([1, 2])) == [9, 10]


def test_interrupted_waiting_tells_that_jobs_go_on(tmp_path: Path) -> None:
    program = f"""
import exca
from task_models import Sleeper
infra = dict(folder={str(tmp_path)!r}, cluster="local")
jobs = [Sleeper(gate={str(tmp_path / "gate")!r}, x=x, infra=infra).infra.job() for x in range(2)]
print("submitted", flush=True)
exca.wait(jobs)
"""
    process = elsewhere.start(program)
    assert process.stdout is not None
    assert process.stdout.readline() == "submitted\n"
    tasks = [Sleeper(gate=tmp_path / "gate", x=x) for x in range(2)]
    wait_for(lambda: all(task.started().exists() for task in tasks), "the jobs to start")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "2 jobs, " in err
    assert "go on without this interpreter. To end them: job.cancel()" in err
    (tmp_path / "gate").touch()


# ------------------------------------------------------------------ on Slurm


@pytest.fixture
def slurm(slurm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Infra:
    monkeypatch.setattr(slurm_queue, "_slurm", slurm_queue._Slurm())  # nothing is remembered from other tests
    return {"cluster": "slurm", "folder": slurm_folder}


@pytest.mark.long
@pytest.mark.slurm
def test_two_thousand_jobs_are_waited_for_with_few_questions(slurm_folder: Path, faults: Faults) -> None:
    faults.end("squeue")
    faults.end("sacct")
    script = slurm_folder / "job.sh"
    script.write_text(f"#!/bin/sh\n#SBATCH --output={slurm_folder}/%A_%a.out\ntrue\n")
    bases = [
        subprocess.run(
            ["sbatch", "--parsable", "--hold", f"--array=0-{size - 1}", str(script)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for size in [250] * 8
    ]
    logs = slurm_folder / "logs" / "%j"
    jobs = [Counted(Submission("slurm", f"{b}_{k}", str(logs))) for b in bases for k in range(250)]
    start = time.monotonic()
    assert len(exca.wait(jobs, timeout=7).not_done) == 2000
    assert faults.calls("squeue") <= 1 + (time.monotonic() - start) / 2
    assert faults.calls("sacct") == 0
    assert Counted.looks < 3 * len(jobs)
    subprocess.run(["scancel", *bases], check=True)
    before = faults.calls("squeue")
    start = time.monotonic()
    assert len(exca.wait(jobs, timeout=100).done) == 2000
    assert faults.calls("squeue") - before <= 2 + (time.monotonic() - start) / 2


@pytest.mark.slurm
def test_tasks_without_room_are_sent_by_waiting_for_all(
    slurm: Infra, qos: Qos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exca.engine import unsent

    monkeypatch.setattr(unsent, "EVERY", 0.2)
    qos.limit("MaxSubmitJobsPerUser=2")
    task = Double(infra=slurm | {"slurm_qos": qos.name})
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(5))
    jobs = [t.infra.job() for t in array]
    assert [job.state for job in jobs][-1] == "UNSUBMITTED"
    assert sorted(job.result() for job in exca.as_completed(jobs)) == [0, 2, 4, 6, 8]


@pytest.mark.slurm
def test_a_cancelled_task_without_room_is_done_and_leaves_no_failure(slurm: Infra, qos: Qos) -> None:
    from exca.errors import JobError

    qos.limit("MaxSubmitJobsPerUser=0")
    task = Double(infra=slurm | {"slurm_qos": qos.name})
    job = task.infra.job()
    job.cancel()
    assert exca.wait([job]).done == [job]
    with pytest.raises(
        JobError, match=r"was not submitted: it was cancelled, or refused .* ask again to submit it"
    ):
        job.result()
    assert task.infra.status() == "not submitted"


def test_an_error_of_what_is_called_when_a_job_is_done_is_logged(
    infra: Infra, caplog: pytest.LogCaptureFixture
) -> None:
    job = Double(infra=infra).infra.job()
    called = threading.Event()

    def tell(error: BaseException | None) -> None:
        called.set()
        raise LookupError("not there")

    watching.when_done(job, tell)
    assert called.wait(60)
    wait_for(lambda: "What was to be called when" in caplog.text, "the error to be logged")
    assert "LookupError: not there" in caplog.text
