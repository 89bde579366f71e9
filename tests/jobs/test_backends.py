"""What all backends share: what a submission was, and what is said of one."""

import logging
import typing as tp
from pathlib import Path

import pytest

from exca.errors import SubmissionError
from exca.jobs import arrays, backends
from exca.jobs.backends import Submission
from task_models import Double, given


@pytest.mark.parametrize(
    ("content", "words"), [([], r"\[\] describes no job"), ({"job_id": 3}, "job_id=3 is none of a job's")]
)
def test_what_describes_no_submission_is_refused(content: tp.Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Submission.from_json(content, trusted=True)


def test_a_submission_without_room_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "exca"):
        arrays.report([None, None], "Model.run", "slurm")
    assert caplog.messages == [
        "No room for the 2 job(s) of Model.run on slurm now: they are sent as room comes"
    ]


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ("local", "cannot write the job to .*: .*not a folder"),
        pytest.param("slurm", "cannot write the jobs of .* to .*: .*not a folder", marks=pytest.mark.slurm),
    ],
)
def test_logs_that_cannot_be_written_are_named(slurm_folder: Path, cluster: str, words: str) -> None:
    (slurm_folder / "file").touch()
    infra = {"folder": slurm_folder / "cache", "cluster": cluster, "logs": slurm_folder / "file" / "logs"}
    task = Double(infra=given(infra))
    with pytest.raises(SubmissionError, match=words):
        task.compute()
    assert task.infra.status() == "not submitted"


@pytest.mark.parametrize("cluster", ["local", "executor"])
def test_what_was_written_before_the_disk_was_full_is_removed(tmp_path: Path, cluster: str) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "1").touch()  # in the place of the folder of the second job
    infra = {"folder": tmp_path / "cache", "cluster": cluster, "logs": tmp_path / "logs" / "%a" / "%j"}
    if cluster == "executor":
        infra["futures_executor"] = "concurrent.futures:ThreadPoolExecutor"
    task = Double(infra=given(infra))
    tasks = [task.infra.clone_obj(x=x) for x in range(3)]
    refused = pytest.raises(SubmissionError, match=r"cannot write the job to .*/1/.*Nothing was submitted")
    with refused, task.infra.job_array() as array:
        array.extend(tasks)
    assert [one.infra.status() for one in tasks] == ["not submitted"] * 3
    assert list((tmp_path / "logs").rglob("*_*")) == []


def test_what_is_not_here_can_neither_submit_nor_cancel() -> None:
    job = Submission("never-installed", "12", "logs/%j")
    absent = backends.of_job(job)
    with pytest.raises(SubmissionError, match=r"cannot cancel 1 job\(s\): .*never-installed"):
        absent.cancel([job])
    assert absent.states([job])[0].state == "UNKNOWN"
