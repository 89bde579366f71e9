"""What the Dask backend has of its own: lost workers and schedulers, addresses, resources, clusters that it makes."""

import logging
import os
import signal
import socket
import sys
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dask_cluster import DaskCluster
from exca.errors import JobError, SchedulerError, SubmissionError
from exca.jobs import dask, dask_keeper, silence
from exca.testing.backend_models import BEGAN, Items, Task
from waiting import wait_for

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Give two workers, of which one offers a GPU."""
    with DaskCluster(tmp_path_factory.mktemp("dask")) as started:
        started.start_scheduler()
        started.start_worker("--resources", "GPU=1,MEMORY=2e9", "--memory-limit", "3e9")
        started.start_worker("--memory-limit", "3e9")
        yield started


@pytest.fixture
def own(tmp_path: Path) -> Iterator[DaskCluster]:
    """Give a cluster to be broken."""
    with DaskCluster(tmp_path / "dask") as started:
        yield started


def task(folder: Path, at: DaskCluster | str | None, how: str = "wait", x: int = 2, **infra: tp.Any) -> Task:
    address = str(at.scheduler_file) if isinstance(at, DaskCluster) else at
    fields = {"folder": folder / "cache", "cluster": "dask", "dask_address": address, **infra}
    return Task.model_validate({"x": x, "how": how, "folder": folder, "infra": fields})


def began(folder: Path) -> list[int]:
    path = folder / BEGAN
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


# ---------------------------------------------------------------- what is lost


def test_the_job_of_a_killed_worker_runs_again_and_takes_over_its_claim(
    tmp_path: Path, cluster: DaskCluster
) -> None:
    one = task(tmp_path, cluster)
    job = one.infra.job()
    wait_for(lambda: began(tmp_path))
    first = psutil.Process(began(tmp_path)[0])
    worker = first.parent()
    assert worker is not None
    worker.send_signal(signal.SIGKILL)
    wait_for(lambda: len(began(tmp_path)) == 2)
    wait_for(lambda: not runs(first.pid))
    assert (one.infra.status(), job.done(), job.state) == ("running", False, "RUNNING")
    folder = one.infra.uid_folder()
    assert folder is not None
    assert len(list(folder.glob("*.claim"))) == 1
    (tmp_path / "go").touch()
    assert job.result() == 4
    assert len(began(tmp_path)) == 2


def test_a_scheduler_that_is_gone_ends_no_job_and_one_started_anew_knows_none(
    tmp_path: Path, own: DaskCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dask, "CONNECT", 2.0)
    monkeypatch.setattr(dask, "AGAIN", 0.0)
    monkeypatch.setattr(silence, "SAY_AFTER", 0.0)
    logging.getLogger("distributed.client").addHandler(caplog.handler)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    scheduler = own.start_scheduler("--port", port)
    worker = own.start_worker()
    one = task(tmp_path, own)
    job = one.infra.job()
    wait_for(lambda: began(tmp_path))
    for process in (worker, scheduler):
        for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            each.kill()
        process.wait()
    wait_for(lambda: not runs(began(tmp_path)[0]))
    wait_for(lambda: job.state == "UNKNOWN")
    assert (one.infra.status(), job.done()) == ("running", False)
    [said] = [r for r in caplog.records if "has given no answer for" in r.message]
    assert "clear_job() of the infra gives its jobs up" in said.message
    with pytest.raises(SubmissionError, match="did not answer within 2 s"):
        task(tmp_path, own, "double").compute()
    monkeypatch.setenv("EXCA_SCHEDULER_PATIENCE", "0")
    with pytest.raises(
        SchedulerError, match=r"the Dask scheduler at tcp.* has given no answer for 0 minutes"
    ):
        one.compute()
    monkeypatch.delenv("EXCA_SCHEDULER_PATIENCE")
    own.start_scheduler("--port", port)
    own.start_worker()
    wait_for(lambda: one.infra.status() == "not submitted")
    (tmp_path / "go").touch()
    assert one.compute() == 4, "it is no failure of the computation, so it is computed again"
    logging.getLogger("distributed.client").removeHandler(caplog.handler)
    assert [r.message for r in caplog.records if r.name == "distributed.client" and r.exc_info] == []


def test_a_job_whose_workers_are_all_lost_is_failed(tmp_path: Path, own: DaskCluster) -> None:
    """As Dask's own limit on that has it, which is three workers more by default."""
    own.start_scheduler(DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    own.start_worker()
    one = task(tmp_path, own, retries=0)
    job = one.infra.job()
    wait_for(lambda: began(tmp_path))
    worker = psutil.Process(began(tmp_path)[0]).parent()
    assert worker is not None
    worker.kill()
    with pytest.raises(
        JobError, match="Dask says KilledWorker: it was given up, since the workers that ran it were lost"
    ):
        job.result()
    assert (one.infra.status(), job.state) == ("failed", "FAILED")


def test_a_job_that_waits_for_a_worker_is_cancelled(tmp_path: Path, cluster: DaskCluster) -> None:
    busy = [task(tmp_path, cluster, x=x) for x in (10, 11)]
    with busy[0].infra.job_array() as array:
        array.extend(busy)
    wait_for(lambda: len(began(tmp_path)) == 2)
    one = task(tmp_path, cluster, "double", x=12)
    job = one.infra.job()
    assert job.state == "PENDING"
    assert "pending: the workers are busy" in job.describe()
    job.cancel()
    assert one.infra.status() == "not submitted"
    (tmp_path / "go").touch()
    assert [each.compute() for each in busy] == [20, 22]


def test_only_a_file_of_ours_tells_where_the_scheduler_is(tmp_path: Path, cluster: DaskCluster) -> None:
    """A scheduler can run anything in what connects to it."""
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    one = task(tmp_path, cluster)
    job = one.infra.job()
    wait_for(lambda: began(tmp_path))
    os.chown(job.paths.folder / dask.PLACE, 54321, 54321)
    dask._places.clear()
    (state,) = dask.BACKEND.states([job.submission])
    assert (state.state, state.alive) == ("UNKNOWN", None)
    assert "where its scheduler is cannot be read" in state.reason
    os.chown(job.paths.folder / dask.PLACE, 0, 0)
    (tmp_path / "go").touch()
    assert one.compute() == 4


# ---------------------------------------------------------------- where the scheduler is


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://127.0.0.1:1", r"dask_address='tcp://127.0.0.1:1' did not answer within 1 s \(.*Nothing was"),
        ("127.0.0.1:1", "did not answer within 1 s"),
        ("nowhere://127.0.0.1:1", "unknown address scheme 'nowhere'"),
        ("no_such_file.json", "is no scheduler file that can be read .FileNotFoundError"),
        (None, "cluster='dask' needs dask_address="),
    ],
)
def test_an_address_where_no_scheduler_is_is_told_at_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None, words: str
) -> None:
    monkeypatch.setattr(dask, "CONNECT", 1.0)
    one = task(tmp_path, address, "double")
    with pytest.raises(SubmissionError, match=words):
        one.compute()
    assert one.infra.status() == "not submitted"
    assert not list(tmp_path.rglob("*.claim"))


def test_what_never_answers_is_told_within_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "CONNECT", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(SubmissionError, match="did not answer within 1 s"):
            task(tmp_path, address, "double").compute()


def test_a_worker_is_no_scheduler(tmp_path: Path, cluster: DaskCluster) -> None:
    import distributed

    client: tp.Any = distributed.Client(cluster.address, set_as_default=False)  # type: ignore[no-untyped-call] # it has no types
    client.wait_for_workers(1)  # a client that is new may not know of them yet
    address = next(iter(client.scheduler_info()["workers"]))
    client.close()
    with pytest.raises(SubmissionError, match="a Worker of Dask answers there, not a scheduler"):
        task(tmp_path, address, "double").compute()


def test_a_scheduler_is_found_by_dasks_own_variable(tmp_path: Path, cluster: DaskCluster) -> None:
    import dask as package

    with package.config.set(  # pyright: ignore[reportPrivateImportUsage] # it says so in its documentation
        {"scheduler-address": cluster.address}
    ):
        assert task(tmp_path, None, "double").compute() == 4


def test_without_dask_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SubmissionError, match=r"cannot be imported here .*: pip install 'exca\[dask\]'"):
        task(tmp_path, "tcp://127.0.0.1:1", "double").compute()


# ---------------------------------------------------------------- what jobs ask for


def test_a_job_that_asks_for_a_gpu_runs_where_there_is_one(tmp_path: Path, cluster: DaskCluster) -> None:
    first, second = (task(tmp_path, cluster, x=x, gpus_per_node=1, mem_gb=1) for x in (20, 21))
    first.infra.job()
    wait_for(lambda: began(tmp_path))
    job = second.infra.job()
    assert job.state == "PENDING"
    assert len(began(tmp_path)) == 1, "one worker is idle, and has no GPU"
    (tmp_path / "go").touch()
    assert (first.compute(), second.compute()) == (40, 42)


@pytest.mark.parametrize(
    ("infra", "words"),
    [
        ({"gpus_per_node": 2}, r"offers GPU=2, which gpus_per_node=2 asks for: the most is 1\. Nothing was"),
        ({"mem_gb": 50}, r"offers MEMORY=5.36871e\+10, which mem_gb=50.0 asks for: the most is 2e\+09"),
        ({"nodes": 2}, "nodes=2: a job of Dask runs in one worker"),
        (
            {"dask_cluster": {"class": "distributed.LocalCluster"}},
            "dask_address and dask_cluster are both set",
        ),
    ],
)
def test_what_no_worker_offers_is_refused(
    tmp_path: Path, cluster: DaskCluster, infra: dict[str, tp.Any], words: str
) -> None:
    one = task(tmp_path, cluster, "double", **infra)
    with pytest.raises(SubmissionError, match=words):
        one.compute()
    assert one.infra.status() == "not submitted"


def test_items_of_a_map_are_packed_into_jobs(tmp_path: Path, cluster: DaskCluster) -> None:
    infra = {"folder": tmp_path, "cluster": "dask", "dask_address": cluster.address}
    items = Items.model_validate({"infra": {**infra, "max_jobs": 4, "tasks_per_job": 2}})
    assert list(items.compute(range(8))) == [2 * x for x in range(8)]


# ---------------------------------------------------------------- clusters that exca makes

LOCAL = {
    "class": "distributed.LocalCluster",
    "n_workers": 1,
    "threads_per_worker": 1,
    "dashboard_address": None,
    "idle_min": 0.02,
}


def test_a_cluster_of_a_specification_is_shared_and_closed_when_idle(tmp_path: Path) -> None:
    one = task(tmp_path, None, dask_cluster=LOCAL)
    job = one.infra.job()
    wait_for(lambda: began(tmp_path))
    (folder,) = (tmp_path / "cache").rglob(".dask-*")
    from exca.jobs import entry

    keeper = entry.noted_process(folder / "keeper")
    assert keeper is not None
    assert keeper.alive()
    assert keeper.pid != os.getpid()
    other = task(tmp_path, None, "double", x=30, dask_cluster=LOCAL)
    assert other.infra.job().state == "PENDING", "there is one worker"
    assert entry.noted_process(folder / "keeper") == keeper
    (tmp_path / "go").touch()
    assert (job.result(), other.compute()) == (4, 60)
    wait_for(lambda: not keeper.alive())
    assert task(tmp_path, None, "double", x=31, dask_cluster=LOCAL).compute() == 62
    assert entry.noted_process(folder / "keeper") != keeper


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"cores": 4}, "it needs the whole name of a class"),
        ({"class": "no_such_package.Cluster"}, "its class cannot be imported: ModuleNotFoundError"),
        ({"class": "distributed.NoCluster"}, "its class cannot be imported: AttributeError"),
        (
            {**LOCAL, "no_such_option": 3},
            r"(?s)could not be made within .*End of .*keeper\.log.*failed to start",
        ),
    ],
)
def test_a_specification_of_which_no_cluster_can_be_made_is_told(
    tmp_path: Path, spec: dict[str, tp.Any], words: str
) -> None:
    one = task(tmp_path, None, "double", dask_cluster=spec)
    with pytest.raises(SubmissionError, match=words):
        one.compute()
    assert one.infra.status() == "not submitted"
    assert dask_keeper.IDLE > 0
