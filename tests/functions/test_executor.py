"""Any cluster as an executor of `concurrent.futures`."""

import asyncio
import concurrent.futures
import os
import threading
import time
import typing as tp
from pathlib import Path

import pytest

import elsewhere
import exca
from exca.errors import JobError, SubmissionError
from slurm_faults import Faults
from waiting import wait_for


def square(x: int) -> int:
    return x * x


def power(x: int, y: int, *, plus: int = 0) -> int:
    return int(x**y) + plus


def fail(x: int) -> int:
    raise ValueError(f"no {x}")


def pid(x: int) -> int:
    return os.getpid()


def wait_at(gate: Path) -> str:
    gate.with_suffix(".started").touch()
    while not gate.exists():
        time.sleep(0.02)
    return "through"


@pytest.fixture
def executor(tmp_path: Path) -> tp.Iterator[exca.Executor]:
    with exca.Executor(tmp_path / "jobs", cluster="local") as made:
        yield made


def test_calls_run_in_jobs(executor: exca.Executor) -> None:
    futures = [executor.submit(power, x, 2, plus=1) for x in range(3)]
    assert [future.result() for future in concurrent.futures.as_completed(futures[:1])] == [1]
    assert [future.result() for future in futures] == [1, 2, 5]
    assert all(future.done() and not future.running() for future in futures)
    ids = {future.job.job_id.partition("_")[0] for future in futures if future.job is not None}
    assert len(ids) == 1, "they went out as one array"
    with pytest.raises(ValueError, match="no 3") as caught:
        executor.submit(fail, 3).result()
    assert "Traceback where it ran" in "".join(caught.value.__notes__)


def test_arguments_are_those_of_the_moment(executor: exca.Executor) -> None:
    numbers = [3, 1, 2]
    future = executor.submit(sorted, numbers, reverse=True)
    numbers.append(5)
    assert future.result() == [3, 2, 1]


def test_map_gives_results_in_order(executor: exca.Executor) -> None:
    assert list(executor.map(power, [1, 2, 3], [3, 2])) == [1, 4]
    assert len(set(executor.map(pid, range(5), chunksize=3))) == 2
    with pytest.raises(ValueError, match="chunksize=0 is no number of calls"):
        executor.map(square, [1], chunksize=0)
    results = executor.map(fail, [7])
    with pytest.raises(ValueError, match="no 7"):
        next(results)


def test_a_running_call_is_not_cancelled_and_one_that_waits_is(tmp_path: Path) -> None:
    with exca.Executor(tmp_path / "jobs", cluster="local", max_workers=1) as executor:
        futures = [executor.submit(wait_at, tmp_path / f"gate-{k}") for k in range(2)]
        wait_for((tmp_path / "gate-0.started").exists, "the first to start")
        assert futures[0].running()
        assert not futures[0].cancel()
        assert futures[1].cancel()
        assert futures[1].cancelled()
        assert futures[1].cancel(), "once more changes nothing"
        with pytest.raises(concurrent.futures.CancelledError):
            futures[1].result()
        unsent = executor.submit(square, 2)
        assert unsent.cancel()
        (tmp_path / "gate-0").touch()
        assert futures[0].result() == "through"
        assert not futures[0].cancel(), "it is done"
    assert concurrent.futures.wait(futures).not_done == set()
    assert not (tmp_path / "gate-1.started").exists()


def test_a_killed_job_is_an_error_of_its_call(executor: exca.Executor) -> None:
    with pytest.raises(JobError, match=r"local job .* ended without a result"):
        executor.submit(os._exit, 3).result()


def test_after_shutdown_nothing_is_taken(tmp_path: Path) -> None:
    executor = exca.Executor(tmp_path / "jobs", cluster="local", max_workers=1)
    first = executor.submit(wait_at, tmp_path / "gate")
    wait_for((tmp_path / "gate.started").exists, "it to start")
    second = executor.submit(square, 2)
    executor.shutdown(wait=False, cancel_futures=True)
    assert second.cancelled()
    with pytest.raises(RuntimeError, match="shut down and takes no calls any more: make another one"):
        executor.submit(square, 2)
    (tmp_path / "gate").touch()
    executor.shutdown()
    assert first.done()
    assert first.result() == "through"


def test_without_a_cluster_calls_run_here(tmp_path: Path) -> None:
    with exca.Executor() as executor:
        assert executor.submit(pid, 1).result() == os.getpid()
        assert list(executor.map(square, [1, 2])) == [1, 4]
        with pytest.raises(ValueError, match="no 1"):
            executor.submit(fail, 1).result()


def test_what_cannot_be_sent_is_refused_at_once(executor: exca.Executor) -> None:
    with pytest.raises(SubmissionError, match="cannot send a call of <built-in function print> to a job"):
        executor.submit(print, threading.Lock())
    wrong: tp.Any = {"mem": 3}
    with pytest.raises(ValueError, match="mem"):
        exca.Executor(cluster="local", **wrong)
    with pytest.raises(ValueError, match=r"cluster='local' needs a folder"):
        exca.Executor(cluster="local")


def test_an_event_loop_takes_it(executor: exca.Executor) -> None:
    async def squares() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, square, x) for x in range(3)))

    assert asyncio.run(squares()) == [0, 1, 4]


SCRIPT = """
import dataclasses, sys, exca
@dataclasses.dataclass
class Point:
    x: int
    def moved(self, by):
        return Point(self.x + by)
def double(point):
    return Point(2 * point.x)
executor = exca.Executor(sys.argv[1], cluster="local")
"""


def test_functions_and_classes_of_a_script_travel_by_value(tmp_path: Path) -> None:
    program = f"""{SCRIPT}
with executor:
    moved = executor.submit(Point(1).moved, 3)
    print(*executor.map(double, [Point(1), Point(4)]), moved.result() == Point(4))
"""
    assert elsewhere.printed(program, str(tmp_path)) == "Point(x=2) Point(x=8) True"


def test_a_script_that_ends_has_submitted_its_calls(tmp_path: Path) -> None:
    made = tmp_path / "made"
    elsewhere.printed(
        SCRIPT + f"\nimport pathlib\nexecutor.submit(pathlib.Path({str(made)!r}).touch)", str(tmp_path)
    )
    wait_for(made.exists, "the call to be made")


@pytest.mark.slurm
def test_many_calls_on_slurm_are_cancelled_by_one_command(slurm_folder: Path, faults: Faults) -> None:
    faults.end("scancel")
    faults.end("sbatch")
    faults.silence("sacct")  # then it is not known why the jobs ended
    held: tp.Any = {"hold": True}
    executor = exca.Executor(slurm_folder, cluster="slurm", slurm_additional_parameters=held)
    futures = [executor.submit(square, x) for x in range(8)]
    wait_for(lambda: all(future.job is not None for future in futures), "the calls to be submitted")
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)
    assert faults.calls("scancel") == 1
    jobs = [future.job for future in futures if future.job is not None]
    assert exca.wait(jobs).not_done == []  # which submits again what was lost
    assert (len(jobs), faults.calls("sbatch")) == (8, 1)


@pytest.mark.slurm
def test_calls_on_slurm_go_out_as_one_array(slurm_folder: Path, faults: Faults) -> None:
    faults.end("sbatch")
    with exca.Executor(slurm_folder, cluster="slurm", timeout_min=5) as executor:
        assert list(executor.map(square, range(8))) == [x * x for x in range(8)]
    assert faults.calls("sbatch") == 1
