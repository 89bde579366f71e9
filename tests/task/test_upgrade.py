"""An upgrade in flight: an earlier release and this one at work on one folder, and jobs queued before it."""

import os
import pickle
import pickletools
import shutil
import stat
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

import pytest

import exca
import task_models
from exca.engine import call, legacy, record
from exca.errors import JobError, StoredValueError, SubmissionError
from exca.infra.base import method_of

QUEUED = Path(__file__).parents[1] / "legacy_caches" / "queued"
TASK = "cache/queued_models.Task.compute,1/x=3,model.name=linear,more=({layers=2})-b20ef478"
TOO_SMALL = "cache/queued_models.Task.compute,1/x=-1-7a91592b"
LOGS = "cache/queued_models.Task.compute,1/logs/root"


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tp.Any:
    """The folder in which an earlier release queued jobs, and the classes whose jobs they are."""
    shutil.copytree(QUEUED, tmp_path, dirs_exist_ok=True)
    for folder, job_id in ((TASK, "86"), (TOO_SMALL, "87")):  # the release made them, absolute
        (tmp_path / folder / "submitit").symlink_to(tmp_path / LOGS / job_id)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import queued_models  # type: ignore[import-not-found] # on the path just added

    yield queued_models
    del sys.modules["queued_models"]


def start(logs: str) -> subprocess.CompletedProcess[str]:
    """Run a queued job as its batch script does, with this release in the place of the one that queued it."""
    job_id = Path(logs).name
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "SUBMITIT_EXECUTOR": "local"}
    env |= {"SUBMITIT_LOCAL_JOB_ID": job_id, "SUBMITIT_LOCAL_NTASKS": "1", "SUBMITIT_LOCAL_GLOBALID": "0"}
    env |= {"SUBMITIT_LOCAL_LOCALID": "0", "SUBMITIT_LOCAL_NODEID": "0", "SUBMITIT_LOCAL_JOB_NUM_NODES": "1"}
    command = [sys.executable, "-m", "submitit.core._submit", logs]
    return subprocess.run(command, env=env, text=True, capture_output=True, check=False, timeout=100)


def left_by(logs: str) -> tuple[str, tp.Any]:
    """Return what a job left for the release that waits for it."""
    path = Path(logs) / f"{Path(logs).name}_0_result.pkl"
    return tp.cast(tuple[str, tp.Any], pickle.loads(path.read_bytes()))


def test_a_queued_task_runs(queue: tp.Any) -> None:
    task = queue.Task(x=3, model={"name": "linear"}, more=[{"layers": 2}], infra={"folder": "cache"})
    assert task.infra.status() == "not submitted"
    done = start(f"{LOGS}/86")
    assert done.returncode == 0, done.stderr
    assert left_by(f"{LOGS}/86") == ("success", 5)
    assert task.infra.status() == "completed"
    assert Path(TASK, "job.json").exists()
    read = task.infra.clone_obj({"infra.mode": "read-only"})
    assert read.compute() == 5


def test_a_queued_task_that_fails_is_a_failure(queue: tp.Any) -> None:
    assert start(f"{LOGS}/87").returncode != 0
    task = queue.Task(x=-1, infra={"folder": "cache"})
    assert task.infra.status() == "failed"
    with pytest.raises(ValueError, match="x=-1 is too small"):
        task.compute()


def test_a_queued_share_of_a_map_runs(queue: tp.Any) -> None:
    logs = "cache/queued_models.Map.process,0/x=5-1a29255b/logs/root/90"
    done = start(logs)
    assert done.returncode == 0, done.stderr
    assert left_by(logs) == ("success", {})
    read = queue.Map(x=5, infra={"folder": "cache", "mode": "read-only"})
    assert list(read.process([1, 2])) == [5, 10]


def test_a_queued_call_runs(queue: tp.Any) -> None:
    done = start("cache/logs/root/88")
    assert done.returncode == 0, done.stderr
    assert left_by("cache/logs/root/88") == ("success", 9)


def test_a_queued_step_asks_to_submit_again(queue: tp.Any) -> None:
    logs = "cache/type=Times-471845f4/logs/89"
    done = start(logs)
    assert "earlier release of exca and cannot be run by this one" in done.stderr
    assert "submit it again" in done.stderr
    assert left_by(logs)[0] == "error"
    step = queue.Times(infra={"backend": "Cached", "folder": "cache"})
    assert step.run(3) == 6  # no false failure is in the way


@pytest.mark.parametrize(
    "name", ["exca.base\n_InfraMethodPickler", "exca.steps.backends\n_multi_run_and_cache"]
)
def test_a_job_that_cannot_be_run_says_so(name: str) -> None:
    with pytest.raises(SubmissionError, match="submit it again"):
        pickle.loads(f"c{name}\n.".encode())


def test_names_that_never_were_are_missing_as_ever() -> None:
    for module in ("exca.base", "exca.task", "exca.map", "exca.steps.backends"):
        assert not hasattr(__import__(module, fromlist=["x"]), "_never")


def test_a_job_that_could_not_be_read_is_no_failure(queue: tp.Any, caplog: pytest.LogCaptureFixture) -> None:
    Path("queued_models.py").write_text("Task = None\n")  # code that moved on
    assert start(f"{LOGS}/86").returncode != 0
    assert left_by(f"{LOGS}/86")[0] == "error"
    task = queue.Task(x=3, model={"name": "linear"}, more=[{"layers": 2}], infra={"folder": "cache"})
    assert task.infra.status() == "not submitted"
    assert "counts as not submitted" in caplog.text
    assert task.compute() == 5
    assert task.infra.status() == "completed"


class _Inline:
    """Pickled as the job of an earlier release that computed in its process."""

    def __init__(self, kind: str, value: tp.Any) -> None:
        self._result = (kind, value)


def leave(folder: Path, kind: str, value: tp.Any, seconds_ago: float) -> None:
    """Leave an outcome as an earlier release does."""
    path = folder / "job.pkl"
    path.write_bytes(pickle.dumps(_Inline(kind, value)).replace(b"test_upgrade", b"exca.earlier"))
    when = time.time() - seconds_ago
    os.utime(path, (when, when))


@pytest.mark.parametrize("seconds_ago", [100, -100])
def test_the_newer_outcome_counts(tmp_path: Path, seconds_ago: int) -> None:
    infra: tp.Any = {"folder": tmp_path}
    ours = task_models.Double(x=4, infra=infra)
    assert ours.compute() == 8
    folder = ours.infra.uid_folder()
    assert folder is not None
    leave(folder, "success", 80, seconds_ago)
    expected = 80 if seconds_ago < 0 else 8
    assert task_models.Double(x=4, infra=infra).compute() == expected
    assert task_models.Double(x=4, infra=infra).infra.job().result() == expected
    leave(folder, "error", (ValueError("no"), "ValueError: no"), seconds_ago)
    again = task_models.Double(x=4, infra=infra)
    assert again.infra.status() == ("failed" if seconds_ago < 0 else "completed")
    if seconds_ago < 0:
        with pytest.raises(ValueError, match="no"):
            again.compute()
    assert task_models.Double(x=4, infra=infra | {"mode": "retry"}).compute() == 8
    later = time.time() + 200
    os.utime(folder / record.NAME, (later, later))  # the retry is the newest
    assert task_models.Double(x=4, infra=infra).compute() == 8


def test_a_job_handle_on_an_earlier_outcome(tmp_path: Path) -> None:
    infra: tp.Any = {"folder": tmp_path}
    task = task_models.Double(x=4, infra=infra)
    leave(tp.cast(Path, task.infra.uid_folder(create=True)), "success", 80, 0)
    assert task.infra.job().done()
    assert task.infra.job().result() == 80


def queue_with_submitit(folder: Path, logs: Path) -> str:
    """Submit a job that waits, and leave what an earlier release would have left for it."""
    import submitit

    logs.mkdir(parents=True)
    command = ["sbatch", "--parsable", "--hold", "--time=5", f"--output={logs}/%j.out", "--wrap", "true"]
    job_id = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    job: tp.Any = submitit.SlurmJob(folder=logs / "%j", job_id=job_id)
    (folder / "job.pkl").write_bytes(pickle.dumps(job))
    return job_id


@pytest.mark.slurm
def test_a_job_in_the_queue_is_waited_for(slurm_folder: Path) -> None:
    infra: tp.Any = {"folder": slurm_folder / "cache", "cluster": "slurm"}
    (slurm_folder / "cache").mkdir()
    task = task_models.Double(x=4, infra=infra)
    folder = tp.cast(Path, task.infra.uid_folder(create=True))
    job_id = queue_with_submitit(folder, slurm_folder / "logs")
    assert task.infra.status() == "running"
    with task.infra.job_array() as array:
        array.append(task)
    job = task.infra.job()
    assert job.job_id == job_id
    assert not job.done()
    assert job.state == "PENDING"
    # the release's job starts and ends
    (slurm_folder / "logs" / job_id).mkdir()
    result = slurm_folder / "logs" / job_id / f"{job_id}_0_result.pkl"
    result.with_suffix(".tmp").write_bytes(pickle.dumps(("success", 80)))
    result.with_suffix(".tmp").rename(result)
    assert job.result() == 80
    assert task.infra.status() == "completed"
    assert task.compute() == 80


@pytest.mark.slurm
def test_a_job_in_the_queue_that_is_cancelled_leaves_no_failure(slurm_folder: Path) -> None:
    infra: tp.Any = {"folder": slurm_folder / "cache"}
    (slurm_folder / "cache").mkdir()
    task = task_models.Double(x=4, infra=infra)
    folder = tp.cast(Path, task.infra.uid_folder(create=True))
    job_id = queue_with_submitit(folder, slurm_folder / "logs")
    job = task.infra.job()
    subprocess.run(["scancel", job_id], check=True, timeout=60)
    with pytest.raises(JobError, match=r"ended without an outcome that can be used.*submit it again"):
        job.result()
    again = task_models.Double(x=4, infra=infra)
    assert again.infra.status() == "not submitted"
    assert again.compute() == 8


@pytest.mark.parametrize("value", ["0", ""])
def test_nothing_is_left_for_the_release_unless_asked(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXCA_WRITE_FOR_0_6", value)
    infra: tp.Any = {"folder": tmp_path}
    task_models.Double(x=4, infra=infra).compute()
    assert not list(tmp_path.rglob("job.pkl"))


def opened(path: Path) -> dict[str, tp.Any]:
    """Return the state of the object that release 0.6 would read, and check of what class it is."""
    names = [text for code, text, _ in pickletools.genops(path.read_bytes()) if code.name == "GLOBAL"]
    assert names[0] == "exca.task LocalJob"
    state: dict[str, tp.Any] = vars(legacy._load(path))
    return state


def test_an_outcome_is_left_for_the_release_and_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXCA_WRITE_FOR_0_6", "1")
    infra: tp.Any = {"folder": tmp_path}
    before = os.umask(0o002)
    try:
        task = task_models.Double(x=4, infra=infra)
        assert task.compute() == 8
        failing = task_models.Failing(infra=infra)
        with pytest.raises(ValueError, match="wrong"):
            failing.run()
    finally:
        os.umask(before)
    path = tp.cast(Path, task.infra.uid_folder()) / "job.pkl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert opened(path) == {"_name": "task_models.Double.compute", "_result": ("success", 8)}
    kind, (error, text) = opened(tp.cast(Path, failing.infra.uid_folder()) / "job.pkl")["_result"]
    assert (kind, type(error)) == ("failure", ValueError)
    assert text.startswith("Traceback")
    path.write_bytes(
        path.read_bytes().replace(b"K\x08", b"K\x09")
    )  # another value, and newer than the record
    assert task_models.Double(x=4, infra=infra).compute() == 8
    (path.parent / "job.json").unlink()
    assert task_models.Double(x=4, infra=infra).compute() == 9
    task_models.Double(x=4, infra=infra).infra.clear_job()
    assert not path.exists()


def test_a_damaged_outcome_of_the_release_counts_as_not_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_models.Double(x=4, infra=exca.TaskInfra(folder=tmp_path))
    folder = tp.cast(Path, task.infra.uid_folder(create=True))
    (folder / "job.pkl").write_bytes(b"\x80\x04cut")
    assert task.compute() == 8
    assert f"{folder / 'job.pkl'} is no whole pickle: " in caplog.text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_record_that_is_no_file_counts_as_not_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_models.Double(x=4, infra=exca.TaskInfra(folder=tmp_path))
    folder = tp.cast(Path, task.infra.uid_folder(create=True))
    os.mkfifo(folder / "job.json")
    assert task.infra.status() == "not submitted"
    assert f"Skipped {folder / 'job.json'}, which counts as not there: " in caplog.text


class Refuses:
    """Does not unpickle any more, as where its class has changed."""

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return _refuse, ()


def _refuse() -> tp.NoReturn:
    raise LookupError("not any more")


def test_an_outcome_of_the_release_that_cannot_be_unpickled_is_named(tmp_path: Path) -> None:
    task = task_models.Double(x=4, infra=exca.TaskInfra(folder=tmp_path))
    path = tp.cast(Path, task.infra.uid_folder(create=True)) / "job.pkl"
    path.write_bytes(pickle.dumps(Refuses()))
    with pytest.raises(
        StoredValueError,
        match=r"job\.pkl, which an earlier release of exca left, cannot be unpickled: .*not any more",
    ):
        task.compute()


def test_a_job_whose_claim_another_process_has_by_now_computes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_models.Double(x=4, infra=exca.TaskInfra(folder=tmp_path))
    folder = tp.cast(Path, task.infra.uid_folder(create=True))
    assert call.TaskCall(folder, "no-such-token", str(tmp_path / "%j"), method_of(task.infra))() is None
    assert "another process computes this by now, and it is left to that one" in caplog.text
    assert task.infra.status() == "not submitted"
