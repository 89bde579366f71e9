"""Jobs that are warned of their end: what they save, and how they go on after Slurm has requeued them."""

import json
import subprocess
import threading
import time
import typing as tp
from pathlib import Path

import pydantic
import pytest

import exca
from exca.errors import JobError
from exca.jobs import before_end
from task_models import given
from waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.slurm]
Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time
with_and_without_srun = pytest.mark.parametrize("srun", [False, True])


class Saving(pydantic.BaseModel):
    """Counts its runs in what it saves, and returns that number once a file is there."""

    place: Path
    kind: str = "checkpoint"
    infra: exca.TaskInfra = exca.TaskInfra()
    _runs: int = 0

    @infra.apply
    def run(self) -> int:
        self._runs = 1 + (int(self.state().read_text()) if self.state().exists() else 0)
        if self.kind == "file":
            self.state().write_text(str(self._runs))
        (self.place / f"began-{self._runs}").touch()
        while not (self.place / "gate").exists():
            time.sleep(0.01)
        return self._runs

    def state(self) -> Path:
        return tp.cast(Path, self.infra.uid_folder()) / "state.txt"

    def checkpoint(self) -> None:
        if self.kind == "broken":
            raise LookupError("nothing to save yet")
        if self.kind == "checkpoint":
            self.state().write_text(str(self._runs))


@pytest.fixture
def make(slurm_folder: Path, tmp_path: Path) -> tp.Callable[..., Saving]:
    def task(kind: str = "checkpoint", **fields: tp.Any) -> Saving:
        infra: Infra = {"cluster": "slurm", "folder": slurm_folder, **fields}
        return Saving(place=tmp_path, kind=kind, infra=infra)

    return task


Make = tp.Callable[..., Saving]


def began(task: Saving, run: int = 1) -> None:
    wait_for((task.place / f"began-{run}").exists, f"run {run} to begin", 110)


def attempts_of(task: Saving) -> list[dict[str, tp.Any]]:
    content = json.loads((tp.cast(Path, task.infra.uid_folder()) / "job.json").read_text())
    return tp.cast("list[dict[str, tp.Any]]", content.get("attempts", []))


@with_and_without_srun
def test_a_warned_computation_saves_its_state_and_goes_on(make: Make, srun: bool) -> None:
    task = make(slurm_use_srun=srun)
    job = task.infra.job()
    began(task)
    where = [] if srun else ["--batch"]
    subprocess.run(["scancel", *where, "--signal=USR2", job.job_id], check=True, timeout=60)
    wait_for(task.state().exists, "the state to be saved")
    assert task.infra.status() == "running"
    (task.place / "gate").touch()
    assert task.run() == 1
    assert attempts_of(task) == []


def test_a_checkpoint_that_fails_is_told_in_the_log_and_ends_nothing(make: Make) -> None:
    task = make("broken")
    job = task.infra.job()
    began(task)
    subprocess.run(["scancel", "--batch", "--signal=USR2", job.job_id], check=True, timeout=60)
    wait_for(lambda: "LookupError: nothing to save yet" in (job.stderr() or ""), "the error to be told")
    assert "checkpoint() failed, so nothing is saved" in (job.stderr() or "")
    (task.place / "gate").touch()
    assert task.run() == 1


@with_and_without_srun
def test_a_preempted_computation_goes_on_from_what_it_saved(make: Make, srun: bool, tmp_path: Path) -> None:
    node: Infra = {"nodelist": "n3", "exclusive": True}
    task = make(slurm_partition="preempt", slurm_use_srun=srun, slurm_additional_parameters=node)
    job = task.infra.job()
    began(task)
    command = ["sbatch", "--parsable", "--nodelist=n3", "--exclusive", "--output=/dev/null", "--wrap=sleep 5"]
    subprocess.run(command, check=True, timeout=60, cwd=tmp_path)
    began(task, 2)
    assert task.infra.status() == "running"
    (task.place / "gate").touch()
    assert task.run() == 2
    [attempt] = attempts_of(task)
    assert attempt["state"] == "preempted"
    assert attempt["job_id"] == job.job_id == task.infra.job().job_id
    assert attempt["host"]
    assert attempt["started"]


@pytest.mark.parametrize("kind", ["checkpoint", "file"])
def test_a_computation_goes_on_after_its_time_limit(make: Make, kind: str) -> None:
    """Slurm warns at once, since the whole job is shorter than the time ahead of the end."""
    task = make(kind, slurm_partition="short", timeout_min=1)
    task.infra.job()
    began(task)
    began(task, 2)
    (task.place / "gate").touch()
    assert task.run() == 2
    [attempt] = attempts_of(task)
    assert attempt["state"] == "timeout"
    assert "goes on from what it saved" in attempt["reason"]


def test_a_job_is_requeued_no_more_often_than_it_may(make: Make) -> None:
    task = make(max_requeues=1)
    job = task.infra.job()
    for run in (1, 2):
        began(task, run)
        task.state().write_text(str(run))
        subprocess.run(["scontrol", "requeue", job.job_id], check=True, timeout=60)
    with pytest.raises(JobError, match="requeued 1 times, which is all that max_requeues allows"):
        task.run()
    assert task.infra.status() == "failed"
    assert [each["state"] for each in attempts_of(task)] == ["requeued"]


def test_what_the_script_asks_for(make: Make, tmp_path: Path) -> None:
    held: Infra = {"hold": True}
    for k, (fields, lines) in enumerate(
        [
            ({}, ["--requeue", "--signal=B:USR2@90"]),
            ({"slurm_use_srun": True, "slurm_signal_delay_s": 30}, ["--requeue", "--signal=USR2@30"]),
            ({"slurm_signal_delay_s": 30}, ["--requeue", "--signal=B:USR2@30"]),
        ]
    ):
        task = make(f"kind {k}", slurm_additional_parameters=held, **fields)
        script = task.infra.job().paths.submission_file.read_text()
        for line in lines:
            assert f"#SBATCH {line}\n" in script
        task.infra.clear_job()
    own: Infra = {**held, "no-requeue": True, "signal": "B:USR2@7"}
    task = make("own", slurm_additional_parameters=own)
    script = task.infra.job().paths.submission_file.read_text()
    assert "#SBATCH --requeue" not in script
    assert "#SBATCH --no-requeue\n" in script
    assert "#SBATCH --signal=B:USR2@7\n" in script
    task.infra.clear_job()


@pytest.mark.parametrize("delay", [0, -1])
def test_a_warning_after_the_end_is_refused(make: Make, delay: int) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        make(slurm_signal_delay_s=delay)
    with pytest.raises(ValueError, match="greater than 0"):
        exca.steps.backends.ADAPTER.validate_python(given({"backend": "Slurm", "signal_delay_s": delay}))


@pytest.fixture
def packed(make: Make, tmp_path: Path) -> tp.Callable[..., list[Saving]]:
    def tasks(count: int, **fields: tp.Any) -> list[Saving]:
        through = make(tasks_per_job=count, **fields)
        places = [tmp_path / f"place-{k}" for k in range(count)]
        for place in places:
            place.mkdir()
        with through.infra.job_array() as array:
            array.extend(through.infra.clone_obj(place=place) for place in places)
        return list(array)

    return tasks


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_warning_reaches_all_tasks_of_a_job(
    packed: tp.Callable[..., list[Saving]], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("EXCA_LOCAL", how)
    tasks = packed(2, concurrent_per_job=2)
    for task in tasks:
        began(task)
    command = ["scancel", "--batch", "--signal=USR2", tasks[0].infra.job().job_id]
    subprocess.run(command, check=True, timeout=60)
    for task in tasks:
        wait_for(task.state().exists, "the state to be saved")
        assert task.infra.status() == "running"
        (task.place / "gate").touch()
    assert [task.run() for task in tasks] == [1, 1]


def test_a_job_of_several_tasks_goes_on_after_its_time_limit(packed: tp.Callable[..., list[Saving]]) -> None:
    tasks = packed(3, slurm_partition="short", timeout_min=1)
    job_id = tasks[0].infra.job().job_id
    (tasks[0].place / "gate").touch()
    began(tasks[1])
    began(tasks[1], 2)
    assert not (tasks[2].place / "began-1").exists()
    for task in tasks:
        (task.place / "gate").touch()
    assert [task.run() for task in tasks] == [1, 2, 1]
    assert {task.infra.job().job_id for task in tasks} == {job_id}
    assert [[each["state"] for each in attempts_of(task)] for task in tasks] == [[], ["timeout"], []]


class Items(pydantic.BaseModel):
    """Notes each item that it computes, and waits in the second one until it may go on."""

    place: Path
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        for item in items:
            with (self.place / "computed").open("a") as file:
                file.write(str(item))
            while item == 1 and not (self.place / "gate").exists():
                time.sleep(0.01)
            yield 10 * item

    def checkpoint(self) -> None:
        (self.place / "called").touch()

    def computed(self) -> str:
        return (self.place / "computed").read_text() if (self.place / "computed").exists() else ""


def test_a_share_of_a_map_that_is_requeued_computes_what_is_missing(
    slurm_folder: Path, tmp_path: Path
) -> None:
    """A warning passes: what is computed is kept anyway, so nothing is to be saved."""
    infra: Infra = {"cluster": "slurm", "folder": slurm_folder / "c", "max_jobs": 1}
    task = Items(place=tmp_path, infra=infra)
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(task.run([0, 1, 2])))
    thread.start()
    wait_for(lambda: task.computed() == "01", "the second item to begin", 110)
    wait_for(lambda: "0" in Items(place=tmp_path, infra=infra).infra.cache_dict, "the first item to be kept")
    (job,) = task.infra.jobs()
    subprocess.run(["scancel", "--batch", "--signal=USR2", job.job_id], check=True, timeout=60)
    wait_for(lambda: "SIGUSR2 came" in (job.stderr() or ""), "the warning to be heard")
    subprocess.run(["scontrol", "requeue", job.job_id], check=True, timeout=60)
    wait_for(lambda: task.computed() == "011", "the second item to begin again", 110)
    (task.place / "gate").touch()
    thread.join(110)
    assert found == [0, 10, 20]
    assert task.computed() == "0112"
    assert not (tmp_path / "called").exists()
    assert [each["state"] for each in before_end.requeues_of(job.paths.folder)] == ["requeued"]
