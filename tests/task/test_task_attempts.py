"""An attempt that is to replace an outcome: who waits for it, and who gets what was there before."""

import concurrent.futures
import os
import signal
import subprocess
import typing as tp
from pathlib import Path

import pytest

import elsewhere
from exca.engine import record
from exca.errors import JobError
from task_models import Planned
from waiting import wait_for

CLUSTERS = ["local", pytest.param("slurm", marks=pytest.mark.slurm)]
every_cluster = pytest.mark.parametrize("cluster", CLUSTERS)


class Stage:
    """A task whose attempts are told what to do."""

    def __init__(self, folder: Path, cluster: str | None) -> None:
        self.folder, self.cluster = folder, cluster

    def task(self, mode: str = "cached", **kwargs: tp.Any) -> Planned:
        infra: tp.Any = {"folder": self.folder / "cache", "cluster": self.cluster, "mode": mode}
        return Planned(place=self.folder, infra=infra, **kwargs)

    def plan(self, plan: str, *, gate: bool = False) -> None:
        (self.folder / "plan").write_text(plan)
        (self.folder / "gate").unlink(missing_ok=True)
        if gate:
            self.open()

    def open(self) -> None:
        (self.folder / "gate").touch()

    def started(self, plan: str, x: int = 1) -> int:
        """The process that computes, once it does."""
        path = self.folder / f"started-{plan}-{x}"
        text = wait_for(lambda: path.exists() and path.read_text(), f"{plan} to start")
        return int(text.split()[-1])


@pytest.fixture
def stage(cluster: str | None, slurm_folder: Path) -> Stage:
    return Stage(slurm_folder, cluster)


def waits(*calls: tp.Callable[[], tp.Any]) -> "list[concurrent.futures.Future[tp.Any]]":
    """Calls in threads, none of which has returned after a moment."""
    pool = concurrent.futures.ThreadPoolExecutor(len(calls))
    futures = [pool.submit(call) for call in calls]
    pool.shutdown(wait=False)
    done, _ = concurrent.futures.wait(futures, 0.5, concurrent.futures.FIRST_COMPLETED)
    assert [future.exception() or future.result() for future in done] == []
    return futures


OTHER = """
import sys
from pathlib import Path
from task_models import Planned
place, cluster = sys.argv[1:]
task = Planned(place=Path(place), infra={"folder": Path(place) / "cache", "cluster": cluster or None})
print(task.infra.status(), flush=True)
print(task.run(), flush=True)
"""


def other_interpreter(stage: Stage) -> "subprocess.Popen[str]":
    return elsewhere.start(OTHER, str(stage.folder), stage.cluster or "")


def status_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def said(process: "subprocess.Popen[str]") -> list[str]:
    return process.communicate(timeout=60)[0].split()


def fail_first(stage: Stage) -> None:
    stage.plan("fail")
    with pytest.raises(ValueError, match="as planned"):
        stage.task().run()


@every_cluster
def test_while_a_failure_is_retried_all_wait_for_the_new_outcome(stage: Stage) -> None:
    fail_first(stage)
    stage.plan("new")
    asker, other = stage.task("retry"), stage.task()
    job = asker.infra.job()
    stage.started("new")
    assert [task.infra.status() for task in (asker, other)] == ["running", "running"]
    assert not other.infra.job().done()
    assert asker.infra.job() is job
    process = other_interpreter(stage)
    assert status_of(process) == "running"
    futures = waits(asker.run, other.run, stage.task("retry").run, other.infra.job().result)
    stage.open()
    assert [future.result(60) for future in futures] == ["new"] * 4
    assert said(process) == ["new"]
    assert [task.infra.status() for task in (asker, other)] == ["completed", "completed"]


@every_cluster
def test_while_a_result_is_computed_again_others_get_the_one_that_is_there(stage: Stage) -> None:
    stage.plan("old", gate=True)
    assert stage.task().run() == "old"
    stage.plan("new")
    asker = stage.task("force")
    asker.infra.job()
    stage.started("new")
    assert stage.task().run() == "old"
    assert said(other_interpreter(stage)) == ["completed", "old"]
    assert asker.infra.status() == "running"
    (future,) = waits(asker.run)
    stage.open()
    assert future.result(60) == "new"
    assert stage.task().run() == "new"


@every_cluster
@pytest.mark.parametrize("mode", ["retry", "force"])
def test_a_grid_is_read_after_its_new_attempt(stage: Stage, mode: tp.Any) -> None:
    stage.plan("fail")
    grid = [stage.task(x=x) for x in (1, 2)]
    with grid[0].infra.job_array() as array:
        array.extend(grid)
    assert [type(task.infra.job().exception()) for task in grid] == [ValueError] * 2
    stage.plan("new")
    base = stage.task(mode)
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(x=x) for x in (1, 2))
    assert stage.started("new", 1)
    assert [task.infra.status() for task in array] == ["running"] * 2
    stage.open()
    assert [task.run() for task in array] == ["new"] * 2
    assert [task.infra.status() for task in array] == ["completed"] * 2


@every_cluster
def test_a_retry_that_fails_again_raises_its_own_error(stage: Stage) -> None:
    fail_first(stage)
    asker = stage.task("retry")
    first = record.read(stage.task().infra.uid_folder())  # type: ignore[arg-type] # there is a folder
    job = asker.infra.job()
    with pytest.raises(ValueError, match="as planned"):
        asker.run()
    second = job.outcome()  # type: ignore[attr-defined] # of a task's job
    assert first is not None
    assert first.attempt != second.attempt
    assert asker.infra.status() == "failed"


@every_cluster
def test_a_new_attempt_that_is_killed_leaves_the_result(stage: Stage) -> None:
    stage.plan("old", gate=True)
    assert stage.task().run() == "old"
    stage.plan("new")
    asker = stage.task("force")
    job = asker.infra.job()
    os.kill(stage.started("new"), signal.SIGKILL)
    with pytest.raises(JobError, match="ended without a result"):
        job.result()
    with pytest.raises(JobError, match="ended without a result"):
        asker.run()
    assert asker.infra.status() == "failed"
    assert stage.task().infra.status() == "completed"
    assert stage.task("read-only").run() == "old"


@every_cluster
def test_the_handle_of_an_earlier_attempt_does_no_harm_to_a_later_one(stage: Stage) -> None:
    fail_first(stage)
    earlier = stage.task().infra.job()
    stage.plan("new", gate=True)
    assert stage.task("retry").run() == "new"
    assert earlier.result() == "new"
    assert earlier.done()
    assert stage.task().run() == "new"


@pytest.mark.parametrize("cluster", [None])
def test_in_process_others_wait_for_a_retry(stage: Stage) -> None:
    fail_first(stage)
    stage.plan("new")
    asker = stage.task("retry")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        computed = pool.submit(asker.run)
        stage.started("new")
        process = other_interpreter(stage)
        assert stage.task().infra.status() == "running"
        assert status_of(process) == "running"
        futures = waits(asker.run, stage.task().run)
        stage.open()
        assert [future.result(60) for future in (computed, *futures)] == ["new"] * 3
        assert said(process) == ["new"]


@pytest.mark.parametrize("cluster", [None])
def test_who_shares_the_object_that_forces_waits_for_it(stage: Stage) -> None:
    stage.plan("old", gate=True)
    assert stage.task().run() == "old"
    stage.plan("new")
    asker = stage.task("force")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        computed = pool.submit(asker.run)
        stage.started("new")
        assert stage.task().run() == "old"
        (future,) = waits(asker.run)
        stage.open()
        assert [computed.result(60), future.result(60)] == ["new"] * 2


@pytest.mark.parametrize("cluster", [None])
def test_a_retry_whose_process_died_leaves_the_failure(stage: Stage) -> None:
    fail_first(stage)
    stage.plan("new")
    retry = OTHER.replace("or None}", 'or None, "mode": "retry"}')
    process = elsewhere.start(retry, str(stage.folder), "")
    stage.started("new")
    (future,) = waits(stage.task().run)
    process.kill()
    process.communicate()
    with pytest.raises(ValueError, match="as planned"):
        future.result(60)


@pytest.mark.parametrize("cluster", ["local"])
@pytest.mark.parametrize("failed_before", [False, True])
def test_the_end_of_an_attempt_is_not_published_over_a_later_one(stage: Stage, failed_before: bool) -> None:
    if failed_before:
        fail_first(stage)
    stage.plan("old")
    job = tp.cast(tp.Any, stage.task("retry").infra.job())
    os.kill(stage.started("old"), signal.SIGKILL)
    wait_for(job.done, "the job to end")
    before = record.read(job.folder)
    stage.plan("new")
    (later,) = waits(Stage(stage.folder, None).task("retry").run)
    stage.started("new")
    error = job.exception()
    assert isinstance(error, JobError)
    assert "ended without a result" in str(error)
    assert not hasattr(error, "__notes__")  # which would say that the error is kept
    assert record.read(job.folder) == before
    assert stage.task().infra.status() == "running"
    stage.open()
    assert later.result(60) == "new"
    assert job.result() == stage.task().run() == "new"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("cluster", ["debug"])
@pytest.mark.parametrize("mode", ["retry", "force"])
def test_the_debug_cluster_gives_the_new_outcome(stage: Stage, mode: str) -> None:
    fail_first(stage)
    stage.plan("new", gate=True)
    asker = stage.task(mode)
    assert asker.infra.job().result() == asker.run() == stage.task().run() == "new"
