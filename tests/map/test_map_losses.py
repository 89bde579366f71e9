"""Jobs of maps and steps that are lost: what they ran is submitted again while the caller waits."""

import json
import os
import signal
import threading
import typing as tp
from pathlib import Path

import pydantic
import pytest

import exca
from exca.engine import runner
from exca.errors import JobError, SubmissionError
from exca.jobs import losses
from exca.steps import Step
from slurm_faults import Faults
from task_models import given
from waiting import wait_for

pytestmark = pytest.mark.long

CLUSTERS = ["local", pytest.param("slurm", marks=pytest.mark.slurm)]
every_cluster = pytest.mark.parametrize("cluster", CLUSTERS)
Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time


def unlucky(place: Path, item: int, losses: int, how: str = "kill") -> int:
    """Ten times the item, after so many losses of those below 2."""
    with (place / f"began-{item}").open("a") as file:
        file.write("x")
    if item < 2 and len((place / f"began-{item}").read_text()) <= losses:
        if how == "raise":
            raise ConnectionError("for a moment")
        os.kill(os.getppid() if how == "kill the job" else os.getpid(), signal.SIGKILL)
        signal.pause()  # until the system has come to it
    return 10 * item


class Mapped(pydantic.BaseModel):
    place: Path
    losses: int
    how: str = "kill"
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        for item in items:
            yield unlucky(self.place, item, self.losses, self.how)


class Stepped(Step):
    place: str
    losses: int

    def _run(self, item: int) -> int:
        return unlucky(Path(self.place), item, self.losses)


def attempts_beside_logs(folder: Path) -> dict[Path, list[dict[str, tp.Any]]]:
    found = {path: path.read_text().splitlines() for path in folder.rglob(losses.ATTEMPTS)}
    real = {path: lines for path, lines in found.items() if not path.parent.is_symlink()}
    return {path: [json.loads(line) for line in lines] for path, lines in real.items()}


def policy(cluster: str, **fields: tp.Any) -> Infra:
    return {"cluster": cluster, "retry_on": ["killed"], "retry_backoff_s": 0, "max_jobs": 3, **fields}


@every_cluster
def test_shares_that_are_lost_are_submitted_again(cluster: str, slurm_folder: Path) -> None:
    infra = given({**policy(cluster), "folder": slurm_folder / "c"})
    task = Mapped(place=slurm_folder, losses=1, infra=infra)
    assert list(task.run(range(5))) == [0, 10, 20, 30, 40]
    # the first share has both items that are unlucky
    counts = [len((slurm_folder / f"began-{item}").read_text()) for item in range(5)]
    assert counts[1:] == [2, 1, 1, 1]
    noted = attempts_beside_logs(slurm_folder)
    assert sorted(map(len, noted.values())) == [1, 2, 2], (
        "that of a job has its own loss, and those before it"
    )
    for attempts in noted.values():
        assert [(each["state"], each["cluster"]) for each in attempts] == [("killed", cluster)] * len(
            attempts
        )
    first, second = max(noted.values(), key=len)
    assert first["job_id"] != second["job_id"]
    assert {"host", "started", "finished", "reason"} <= first.keys()


@every_cluster
def test_a_share_that_is_lost_too_often_is_an_error(cluster: str, slurm_folder: Path) -> None:
    fields = policy(cluster, retries=1)
    task = Mapped(place=slurm_folder, losses=2, infra=given({**fields, "folder": slurm_folder / "c"}))
    with pytest.raises(JobError, match=r"SIGKILL|137") as caught:
        task.run([0, 3])
    assert any("Attempts before it were lost: killed (" in note for note in caught.value.__notes__)
    assert len((slurm_folder / "began-0").read_text()) == 2
    assert list(task.run([0, 3])) == [0, 30]


@every_cluster
def test_exceptions_of_items_that_the_policy_names_are_losses(cluster: str, slurm_folder: Path) -> None:
    fields = policy(cluster, retry_on=["OSError"])
    infra = given({**fields, "folder": slurm_folder / "c"})
    task = Mapped(place=slurm_folder, losses=2, how="raise", infra=infra)
    assert list(task.run([1, 4])) == [10, 40]


def test_other_losses_of_shares_are_errors_at_once(tmp_path: Path) -> None:
    infra = given({"cluster": "local", "folder": tmp_path / "c"})
    with pytest.raises(JobError, match="SIGKILL"):
        Mapped(place=tmp_path, losses=1, infra=infra).run([0])
    assert (tmp_path / "began-0").read_text() == "x"


def test_shares_of_steps_that_are_lost_are_submitted_again(tmp_path: Path) -> None:
    fields = {name: value for name, value in policy("local").items() if name != "cluster"}
    infra = given({"backend": "LocalProcess", "folder": tmp_path / "c", **fields})
    step = Stepped(place=str(tmp_path), losses=1, infra=infra)
    assert list(step.run_many([0, 1, 2, 3])) == [0, 10, 20, 30]


@pytest.mark.parametrize("retries", [0, 2])
def test_a_share_that_had_not_begun_when_its_job_was_lost_uses_no_attempt(
    tmp_path: Path, retries: int
) -> None:
    fields = policy("local", retries=retries, tasks_per_job=3)
    task = Mapped(
        place=tmp_path, losses=2, how="kill the job", infra=given({**fields, "folder": tmp_path / "c"})
    )
    if retries:
        assert list(task.run([0, 3, 4])) == [0, 30, 40]
    else:
        with pytest.raises(JobError, match="It ended with its job of 3 tasks"):
            task.run([0, 3, 4])
    began = [(tmp_path / f"began-{item}").read_text() for item in (0, 3, 4)]
    assert began == ["x" * (retries + 1), "x", "x"]


LIMIT = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.mark.slurm
@pytest.mark.parametrize("said", [LIMIT, "Unable to contact slurm controller (connect failure)"])
def test_a_share_that_is_lost_waits_for_room(
    slurm_folder: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(runner, "_ROOM_EVERY", 0.1)
    refused = slurm_folder / "refused"
    # the first submission is taken, then some are refused
    faults.put(
        "sbatch",
        f'[ $(wc -l < {faults.folder}/sbatch.calls) -eq 1 ] && exec {faults.real("sbatch")} "$@"',
        f'if [ -e {refused} ]; then echo "sbatch: error: Batch job submission failed: {said}" >&2; exit 1; fi',
    )
    refused.touch()
    infra = given({**policy("slurm"), "folder": slurm_folder / "c"})
    task = Mapped(place=slurm_folder, losses=1, infra=infra)
    found: list[tp.Any] = []
    thread = threading.Thread(target=lambda: found.append(list(task.run([0, 3]))))
    thread.start()
    wait_for(lambda: faults.calls("sbatch") >= 3, "the lost share to be refused twice", 110)
    refused.unlink()
    thread.join(110)
    assert found == [[0, 30]]


@pytest.mark.slurm
def test_a_share_that_is_lost_and_then_refused_is_an_error(slurm_folder: Path, faults: Faults) -> None:
    faults.put(
        "sbatch",
        f'[ $(wc -l < {faults.folder}/sbatch.calls) -eq 1 ] && exec {faults.real("sbatch")} "$@"',
        'echo "sbatch: error: Batch job submission failed: Invalid account" >&2; exit 1',
    )
    task = Mapped(
        place=slurm_folder, losses=1, infra=given({**policy("slurm"), "folder": slurm_folder / "c"})
    )
    with pytest.raises(SubmissionError, match="check slurm_account"):
        task.run([0, 3])
