"""All backends of ours pass the tests that are published for those of others."""

import typing as tp
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import loky
import pytest

import slurm_cluster
from dask_cluster import DaskCluster
from exca.testing.backend_models import Task
from exca.testing.backend_tests import BackendTests

Fields = dict[str, tp.Any]


class TestLocal(BackendTests):
    @pytest.fixture
    def fields(self) -> Fields:
        return {"cluster": "local"}

    @pytest.fixture
    def step(self) -> Fields:
        return {"backend": "LocalProcess"}


class TestDebug(BackendTests):
    own_process = False

    @pytest.fixture
    def fields(self) -> Fields:
        return {"cluster": "debug"}


@pytest.mark.slurm
class TestSlurm(BackendTests):
    @pytest.fixture
    def fields(self) -> Fields:
        return {"cluster": "slurm"}

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Iterator[Path]:
        yield tmp_path / "cache"
        slurm_cluster.cancel_jobs_writing_under(tmp_path)


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with DaskCluster(tmp_path_factory.mktemp("dask")) as cluster:
        cluster.start_scheduler()
        cluster.start_worker()
        cluster.start_worker()
        yield cluster


@pytest.mark.long
class TestDask(BackendTests):
    @pytest.fixture
    def fields(self, dask: DaskCluster) -> Fields:
        return {"cluster": "dask", "dask_address": str(dask.scheduler_file)}

    @pytest.fixture
    def step(self, dask: DaskCluster) -> Fields:
        return {"backend": "Dask", "address": dask.address}


def make_threads() -> Executor:
    return ThreadPoolExecutor(2)


@pytest.fixture(scope="module", params=["threads", "processes", "loky"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    makers: dict[str, tp.Callable[[], Executor]] = {
        "threads": make_threads,
        "processes": lambda: ProcessPoolExecutor(2),
        "loky": lambda: loky.ProcessPoolExecutor(2),
    }
    made = makers[request.param]()
    yield made
    made.shutdown(wait=True)


@pytest.mark.long
class TestExecutor(BackendTests):
    @pytest.fixture
    def fields(self, executor: Executor) -> Fields:
        return {"cluster": "executor", "futures_executor": executor}

    @pytest.fixture
    def step(self, executor: Executor) -> Fields:
        return {"backend": "Executor", "executor": executor}


class SharedJobs:
    """Several tasks in one job."""

    def test_an_array_gives_each_task_its_job(self, infra: Fields) -> None:
        """Two of them share one, and each has logs of its own."""
        tasks = [Task.model_validate({"x": x, "infra": infra}) for x in range(3)]
        with tasks[0].infra.job_array() as array:
            array.extend(tasks)
        assert [task.compute() for task in tasks] == [0, 2, 4]
        assert len({task.infra.job().job_id for task in tasks}) == 2
        assert len({task.infra.job().paths.folder for task in tasks}) == 3


@pytest.mark.long
class TestDaskSharedJobs(SharedJobs, TestDask):
    @pytest.fixture
    def fields(self, dask: DaskCluster) -> Fields:
        return {"cluster": "dask", "dask_address": str(dask.scheduler_file), "tasks_per_job": 2}


@pytest.mark.long
class TestLocalSharedJobs(SharedJobs, TestLocal):
    @pytest.fixture
    def fields(self) -> Fields:
        return {"cluster": "local", "tasks_per_job": 2}
