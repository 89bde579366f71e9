"""Jobs in a folder that others may write to: what was submitted is what runs, and logs go nowhere else."""

import json
import os
import pickle
import stat
import subprocess
import time
import typing as tp
from pathlib import Path

import pydantic
import pytest

import exca
import slurm_cluster
from exca import _files
from exca.errors import JobError, SubmissionError, UntrustedFileError
from exca.jobs import local
from people import ALICE, BOB, Commons
from task_models import Sleeper
from waiting import wait_for

STRANGER = 64_321  # no user of this machine
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


class Evil:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return Path.touch, (self.mark,)


class Task(pydantic.BaseModel):
    """A task that runs in a job."""

    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 2 * self.x


class Mapper(pydantic.BaseModel):
    """Items that are computed in jobs."""

    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def double(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        for item in items:
            yield 2 * item


def submitted(folder: Path) -> list[Path]:
    """The pickles of jobs below a folder, each once."""
    found = [path for path in folder.rglob("*submitted.pkl") if not path.is_symlink()]
    return sorted({path.resolve() for path in found})


def test_a_local_job_waits_for_no_others_than_was_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of jobs before it is exchanged after it was written and before it is read."""
    start = local._start

    def exchanged(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        for path in (tmp_path / "cache").rglob("after.json"):
            path.write_text("[]")
        return start(*args, **kwargs)

    monkeypatch.setattr(local, "_start", exchanged)
    infra = {"folder": tmp_path / "cache", "cluster": "local", "retries": 0}
    first = Sleeper.model_validate({"gate": tmp_path / "gate", "infra": infra})
    job = Task.model_validate({"x": 2, "infra": {**infra, "after": [first]}}).infra.job()
    with pytest.raises(JobError, match="is not what was submitted: it was exchanged, so nothing is begun"):
        job.result()
    (tmp_path / "gate").touch()
    assert first.run() == 1


@pytest.mark.parametrize("count", [1, 2])
def test_a_local_job_runs_nothing_but_what_was_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Its pickle is exchanged after it was written and before it is read: it is not unpickled."""
    start = local._start

    def exchanged(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        for path in submitted(tmp_path / "cache"):
            path.write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
        return start(*args, **kwargs)

    monkeypatch.setattr(local, "_start", exchanged)
    task = Task.model_validate({"infra": {"folder": tmp_path / "cache", "cluster": "local"}})
    with task.infra.job_array() as array:
        array += [task.infra.clone_obj(x=k) for k in range(count)]
    for one in array:
        with pytest.raises(JobError, match="is not what was submitted"):
            one.infra.job().result()
    assert not (tmp_path / "mark").exists()


def test_the_list_of_an_array_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle is exchanged together with its digest in the list that was written for the array."""
    start = local._start

    def exchanged(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        lines = []
        for path in submitted(tmp_path / "cache"):
            path.write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
            lines.append(_files.digest(path.read_bytes()))
        [manifest] = (tmp_path / "cache").rglob("digests")
        manifest.write_text("".join(f"{line}\n" for line in lines))
        return start(*args, **kwargs)

    monkeypatch.setattr(local, "_start", exchanged)
    task = Task.model_validate({"infra": {"folder": tmp_path / "cache", "cluster": "local"}})
    with task.infra.job_array() as array:
        array += [task.infra.clone_obj(x=k) for k in range(2)]
    for one in array:
        with pytest.raises(JobError):
            one.infra.job().result()
    assert not (tmp_path / "mark").exists()


@pytest.mark.slurm
@pytest.mark.parametrize("count", [1, 2])
def test_a_slurm_job_runs_nothing_but_what_was_submitted(slurm_folder: Path, count: int) -> None:
    """It waits in the queue while its pickle is exchanged."""
    folder = slurm_folder / "cache"
    infra = {"folder": folder, "cluster": "slurm", "slurm_additional_parameters": {"hold": True}}
    task = Task.model_validate({"infra": infra})
    with task.infra.job_array() as array:
        array += [task.infra.clone_obj(x=k) for k in range(count)]
    jobs = [one.infra.job() for one in array]
    paths = submitted(folder)
    assert len(paths) == count
    for path in paths:
        path.write_bytes(pickle.dumps(Evil(slurm_folder / "mark")))
    subprocess.run(
        ["scontrol", "release", jobs[0].job_id.partition("_")[0]], check=True, env=slurm_cluster_env()
    )
    for job in jobs:
        with pytest.raises(JobError, match="is not what was submitted"):
            job.result()
    assert not (slurm_folder / "mark").exists()


def slurm_cluster_env() -> dict[str, str]:
    """The environment in which commands reach the cluster of the tests."""
    slurm_cluster.point_commands_at_it()
    return dict(os.environ)


def test_what_jobs_of_a_map_share_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object that all jobs of a map load from one file is that of the submitter."""
    start = local._start

    def exchanged(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        [path] = (tmp_path / "cache").rglob("*.shared.pkl")
        path.write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
        return start(*args, **kwargs)

    monkeypatch.setattr(local, "_start", exchanged)
    infra = {"folder": tmp_path / "cache", "cluster": "local", "max_jobs": 2}
    with pytest.raises(UntrustedFileError, match="is not what was submitted"):
        list(Mapper.model_validate({"infra": infra}).double(range(4)))
    assert not (tmp_path / "mark").exists()


def test_pickles_of_jobs_are_private(tmp_path: Path) -> None:
    """Whatever the umask; text logs follow it, so that a team reads them."""
    before = os.umask(0o002)
    try:
        infra = {"folder": tmp_path / "cache", "cluster": "local"}
        Task.model_validate({"infra": infra}).run()
        list(Mapper.model_validate({"infra": {**infra, "max_jobs": 2}}).double(range(4)))
    finally:
        os.umask(before)
    found = {p: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*") if p.is_file()}
    pickles = {p: mode for p, mode in found.items() if p.suffix == ".pkl"}
    assert len(pickles) > 4
    assert set(pickles.values()) == {0o600}
    assert {mode for p, mode in found.items() if p.name.endswith(("_log.out", "_log.err"))} == {0o664}


@needs_root
@pytest.mark.parametrize("what", ["folder", "link"])
@pytest.mark.parametrize("level", ["logs", "user"])
def test_a_log_folder_of_a_stranger_is_refused(tmp_path: Path, what: str, level: str) -> None:
    """Neither a link in its place is followed, nor a folder used that another user could exchange things in."""
    folder = tmp_path / "cache"
    task = Task.model_validate({"infra": {"folder": folder, "cluster": "local"}})
    logs = task.infra._logs_folder().parent
    place = logs if level == "user" else logs.parent
    place.parent.mkdir(parents=True)
    if what == "folder":
        place.mkdir()
        os.chown(place, STRANGER, STRANGER)
    else:
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
        os.lchown(place, STRANGER, STRANGER)
    if (what, level) == ("folder", "logs"):  # a team's: each has a folder of their own in it
        assert task.run() == 2
        return
    with pytest.raises(SubmissionError, match=f"{STRANGER}"):
        task.run()
    if what == "link":
        assert list((tmp_path / "elsewhere").rglob("*")) == []


@needs_root
def test_what_a_job_prints_goes_to_no_file_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that waits under the name of a log is not written through."""
    (tmp_path / "bashrc").write_text("content")
    infra = {"folder": tmp_path / "cache", "cluster": "local", "retries": 0}
    task = Task.model_validate({"infra": infra})
    start = local._start

    def planted(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        [path] = submitted(tmp_path / "cache")
        for ending in ("out", "err"):
            link = path.with_name(path.name.replace("_submitted.pkl", f"_0_log.{ending}"))
            link.symlink_to(tmp_path / "bashrc")
            os.lchown(link, STRANGER, STRANGER)
        return start(*args, **kwargs)

    monkeypatch.setattr(local, "_start", planted)
    with pytest.raises((SubmissionError, PermissionError, JobError)):
        task.run()
    assert (tmp_path / "bashrc").read_text() == "content"


def test_code_of_jobs_is_written_by_no_group(commons: Commons) -> None:
    """Whatever the umask: bob, of the same group, can't change what alice's jobs import."""
    (commons.home(ALICE) / "module.py").write_text("VALUE = 3")
    (commons.home(ALICE) / "package").mkdir()
    (commons.home(ALICE) / "package" / "part.py").write_text("VALUE = 4")
    code = """
import os, pathlib
from shared_models import Plain
import exca, pydantic
from exca.jobs.workdir import WorkDir
folder = pathlib.Path(os.environ["SHARED"], "code", "copy")
WorkDir(copied=["module.py", "package"]).prepare(folder)
print(folder)
"""
    folder = Path(commons.run(ALICE, code).strip())
    found = [folder, *folder.rglob("*")]
    assert {"module.py", "package", "part.py"} <= {path.name for path in found}
    assert not [path for path in found if path.stat().st_mode & 0o022]
    told = commons.run(
        BOB,
        f"""
import pathlib
for name in ("module.py", "package/part.py", "sitecustomize.py"):
    try:
        pathlib.Path({str(folder)!r}, name).write_text("VALUE = 5")
    except PermissionError:
        print("refused")
""",
    )
    assert told == "refused\n" * 3
    refused = f"""
import os
from exca.jobs.workdir import WorkDir
WorkDir(copied=["module.py"], folder={str(folder)!r}).prepare("x")
"""
    (commons.home(BOB) / "module.py").write_text("VALUE = 3")
    process = commons.start(BOB, refused)
    assert "so no job runs with it" in process.communicate(timeout=60)[1]


@needs_root
@pytest.mark.slurm
def test_a_slurm_job_does_not_run_exchanged_code(slurm_folder: Path) -> None:
    """While it waits in the queue, a folder of another user is put in the place of its code."""
    (slurm_folder / "module.py").write_text("")
    infra = {
        "folder": slurm_folder / "cache",
        "cluster": "slurm",
        "slurm_additional_parameters": {"hold": True},
        "workdir": {"copied": [str(slurm_folder / "module.py")]},
        "retries": 0,  # else the next attempt is held
    }
    job = Task.model_validate({"infra": infra}).infra.job()
    [code] = (slurm_folder / "cache").rglob("code/*-*")
    code.rename(code.with_name("moved"))
    code.mkdir()
    mark = slurm_folder / "mark"
    (code / "sitecustomize.py").write_text(f"open({str(mark)!r}, 'w')")
    os.chown(code, STRANGER, STRANGER)
    subprocess.run(["scontrol", "release", job.job_id], check=True, env=slurm_cluster_env())
    with pytest.raises(JobError, match="it was exchanged, so nothing is run"):
        job.result()
    assert not mark.exists()


class Gated(pydantic.BaseModel):
    """A task that waits for a file."""

    gate: Path
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        self.gate.with_name("started").touch()
        while not self.gate.exists():
            time.sleep(0.05)
        return 1


@pytest.mark.long
@pytest.mark.slurm
def test_a_requeued_job_runs_nothing_but_what_was_submitted(slurm_folder: Path) -> None:
    """The pickle is exchanged between two attempts of one job."""
    infra = {"folder": slurm_folder / "cache", "cluster": "slurm"}
    task = Gated.model_validate({"gate": slurm_folder / "gate", "infra": infra})
    job = task.infra.job()
    wait_for((slurm_folder / "started").exists, "the job to start")
    environment = slurm_cluster_env()
    subprocess.run(["scontrol", "requeuehold", job.job_id], check=True, env=environment)
    [path] = submitted(slurm_folder / "cache")
    path.write_bytes(pickle.dumps(Evil(slurm_folder / "mark")))
    subprocess.run(["scontrol", "release", job.job_id], check=True, env=environment)
    with pytest.raises(JobError, match="is not what was submitted"):
        job.result()
    assert not (slurm_folder / "mark").exists()
    assert task.infra.status() == "failed"
    assert "is not what was submitted: it was exchanged" in (job.stderr() or "")
    recorded = json.loads((tp.cast(Path, task.infra.uid_folder()) / "job.json").read_bytes())
    assert "is not what was submitted" in recorded["error"]["message"]


@needs_root
def test_logs_in_a_folder_of_another_users_are_refused(tmp_path: Path) -> None:
    logs = tmp_path / "logs" / _files.user_name()
    logs.mkdir(parents=True)
    infra = {"folder": tmp_path / "cache", "cluster": "local", "logs": str(logs / "%j")}
    task = Task.model_validate({"infra": infra})
    os.chown(logs, STRANGER, STRANGER)
    words = f"The log folder {logs} belongs to user {STRANGER}, .*: set 'logs' of the infra to a folder of your own"
    with pytest.raises(SubmissionError, match=words):
        task.infra.job()
    assert task.infra.status() == "not submitted"
