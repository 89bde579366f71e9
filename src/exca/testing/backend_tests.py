"""The tests that every backend has to pass, as a pytest plugin.

In ``conftest.py``: ``pytest_plugins = ["exca.testing.backend_tests"]``. In a test file, a class for each way to use the
backend::

    class TestMine(BackendTests):
        @pytest.fixture
        def fields(self) -> dict[str, object]:
            return {"cluster": "mine"}
"""

import contextlib
import json
import pickle
import subprocess
import sys
import threading
import typing as tp
from pathlib import Path

import pytest

from exca import _files
from exca._clusters import Submission
from exca.engine import record
from exca.errors import JobError, SubmissionError
from exca.jobs import backends

from .backend_models import BEGAN, Call, Double, Items, Task, until

Fields = dict[str, tp.Any]


class BackendTests:
    """What every backend has to do: derive a class from it that has a fixture ``fields``."""

    # whether a job has a process of its own; else what would end or stop that is left out
    own_process: tp.ClassVar[bool] = True

    @pytest.fixture
    def fields(self) -> Fields:
        """Give the fields of an infra that sends its jobs to the backend, without a folder."""
        raise NotImplementedError("derive a class from BackendTests that has a fixture called fields")

    @pytest.fixture
    def step(self, fields: Fields) -> Fields:
        """Give the fields of the backend of a step that does the same."""
        return {"backend": "Registered", "engine": fields["cluster"]}

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Give the folder of the cache."""
        return tmp_path / "cache"

    @pytest.fixture
    def infra(self, fields: Fields, folder: Path) -> Fields:
        """Give all fields of an infra."""
        return {**fields, "folder": folder}

    @pytest.fixture
    def waiting(self, infra: Fields, tmp_path: Path) -> tp.Iterator[Task]:
        """Give a task whose job runs until there is a file called "go"; what still waits goes on at the end."""
        self._needs_a_process()
        task = Task.model_validate({"how": "wait", "folder": tmp_path, "infra": infra})
        yield task
        (tmp_path / "go").touch()
        with contextlib.suppress(Exception):
            task.infra.job().wait(timeout=30)

    def _needs_a_process(self) -> None:
        if not self.own_process:
            pytest.skip("its jobs have no process of their own")

    def _outlives(self, fields: Fields) -> None:
        self._needs_a_process()
        if not backends.get(fields["cluster"]).outlive_submitter:
            pytest.skip("its jobs end with the process that submitted them")

    # ---------------------------------------------------------------- what comes back

    def test_a_job_computes_and_its_result_is_found_again(self, infra: Fields) -> None:
        """The result is that of the method, and another object finds it without a job."""
        task = Task.model_validate({"x": 4, "infra": infra})
        assert task.infra.status() == "not submitted"
        job = task.infra.job()
        assert (job.cluster, job.result(), job.done(), job.state) == (infra["cluster"], 8, True, "COMPLETED")
        assert task.compute() == 8
        assert task.infra.status() == "completed"
        again = Task.model_validate({"x": 4, "infra": {"folder": infra["folder"]}})
        assert again.compute() == 8
        folder = task.infra.uid_folder()
        assert folder is not None
        found = record.read(folder)
        assert found is not None
        assert (found.content["cluster"], found.content["job_id"]) == (infra["cluster"], job.job_id)

    def test_a_job_has_logs_of_its_own(self, infra: Fields) -> None:
        """What it prints is there when it is done."""
        self._needs_a_process()
        job = Task.model_validate({"x": 5, "infra": infra}).infra.job()
        assert job.result() == 10
        until(lambda: "computing 5" in (job.stdout() or ""), "has printed")

    def test_an_error_has_its_type_and_is_kept(self, infra: Fields) -> None:
        """It is raised again without another job."""
        task = Task.model_validate({"how": "fail", "infra": infra})
        with pytest.raises(ZeroDivisionError, match="this is the error of 2") as caught:
            task.compute()
        assert any(
            "Traceback" in note or "compute" in note for note in getattr(caught.value, "__notes__", ())
        )
        assert task.infra.status() == "failed"
        with pytest.raises(ZeroDivisionError):
            Task.model_validate({"how": "fail", "infra": infra}).compute()

    def test_an_array_gives_each_task_its_job(self, infra: Fields) -> None:
        """Each has an id of its own."""
        tasks = [Task.model_validate({"x": x, "infra": infra}) for x in range(3)]
        with tasks[0].infra.job_array() as array:
            array.extend(tasks)
        assert [task.compute() for task in tasks] == [0, 2, 4]
        assert len({task.infra.job().job_id for task in tasks}) == 3

    def test_a_map_is_computed_in_jobs(self, infra: Fields) -> None:
        """What was computed before an error is kept."""
        items = Items.model_validate({"infra": {**infra, "max_jobs": 2}})
        assert list(items.compute([1, 2, 3])) == [2, 4, 6]
        with pytest.raises(ZeroDivisionError, match="this is the error of 13"):
            list(items.compute([1, 13]))
        assert list(items.compute([3])) == [6]

    def test_a_call_is_submitted(self, infra: Fields) -> None:
        """Its result is kept beside its logs."""
        assert Call.model_validate({"infra": infra}).infra.submit(3, 4).result() == 7

    def test_a_step_runs_in_jobs(self, step: Fields, folder: Path) -> None:
        """A step is sent as a map is."""
        one = Double.model_validate({"infra": {**step, "folder": folder}})
        assert one.run(21) == 42

    # ---------------------------------------------------------------- while it runs

    def test_a_task_begins_once_the_one_before_it_is_done(
        self, waiting: Task, infra: Fields, tmp_path: Path
    ) -> None:
        """The backend waits for the job before, or else the caller does."""
        later = Task.model_validate({"x": 7, "infra": {**infra, "after": [waiting]}})
        job = later.infra.job()
        until((tmp_path / BEGAN).exists, "runs")
        assert not job.done()
        (tmp_path / "go").touch()
        assert job.result() == 14
        found = [record.read(tp.cast(Path, task.infra.uid_folder())) for task in (waiting, later)]
        first, second = (one.content for one in found if one is not None)
        assert first["finished"] <= second["started"]

    def test_a_job_can_be_looked_at_while_it_runs(self, waiting: Task, tmp_path: Path) -> None:
        """It is neither done nor computed twice."""
        job = waiting.infra.job()
        until((tmp_path / BEGAN).exists, "runs")
        assert (job.done(), job.state, waiting.infra.status()) == (False, "RUNNING", "running")
        other = Task.model_validate({"how": "wait", "folder": tmp_path, "infra": dict(waiting.infra)})
        assert other.infra.job().job_id == job.job_id
        (tmp_path / "go").touch()
        assert (other.compute(), job.result()) == (4, 4)
        assert len((tmp_path / BEGAN).read_text().split()) == 1

    def test_the_states_of_many_jobs_are_one_question(self, waiting: Task, tmp_path: Path) -> None:
        """They come in the order of the jobs, and a job that never was is not alive."""
        job = waiting.infra.job()
        until((tmp_path / BEGAN).exists, "runs")
        backend = backends.get(job.cluster)
        unknown = Submission(job.cluster, "424242", job.submission.logs)
        states = backend.states([unknown, job.submission, unknown])
        assert [state.job_id for state in states] == ["424242", job.job_id, "424242"]
        assert (states[1].state, states[1].alive) == ("RUNNING", True)
        assert states[0].alive is not True

    def test_a_cancelled_job_is_failed(self, waiting: Task, tmp_path: Path) -> None:
        """It says that it was cancelled, and its process is gone."""
        job = waiting.infra.job()
        until((tmp_path / BEGAN).exists, "runs")
        pid = int((tmp_path / BEGAN).read_text())
        job.cancel()
        with pytest.raises(JobError, match="cancelled"):
            job.result()
        assert (job.state, waiting.infra.status()) == ("CANCELLED", "failed")
        until(lambda: not _runs(pid), "has ended")

    def test_a_cleared_job_is_as_if_it_had_never_been(self, waiting: Task, tmp_path: Path) -> None:
        """The next call computes."""
        waiting.infra.job()
        until((tmp_path / BEGAN).exists, "runs")
        waiting.infra.clear_job()
        assert waiting.infra.status() == "not submitted"
        (tmp_path / "go").touch()
        assert waiting.compute() == 4

    def test_a_killed_job_is_failed_and_says_so(self, infra: Fields) -> None:
        """The error names the job and holds the end of its stderr."""
        self._needs_a_process()
        task = Task.model_validate({"how": "die", "infra": infra})
        with pytest.raises(JobError, match="ended without a result") as caught:
            task.compute()
        assert task.infra.job().job_id in str(caught.value)
        assert task.infra.status() == "failed"

    # ---------------------------------------------------------------- beyond its submitter

    def test_another_interpreter_finds_the_job(self, infra: Fields, tmp_path: Path) -> None:
        """The submitter ended while it ran."""
        self._outlives(infra)
        job_id = _submit(infra, "end", tmp_path)
        task = Task.model_validate({"x": 21, "how": "wait", "folder": tmp_path, "infra": infra})
        until((tmp_path / BEGAN).exists, "runs")
        assert (task.infra.job().job_id, task.infra.status()) == (job_id, "running")
        (tmp_path / "go").touch()
        assert task.compute() == 42
        assert len((tmp_path / BEGAN).read_text().split()) == 1

    def test_a_job_is_found_by_its_tag(self, infra: Fields, tmp_path: Path) -> None:
        """Its submitter died before it could note which job it was."""
        self._outlives(infra)
        _submit(infra, "crash", tmp_path)
        task = Task.model_validate({"x": 21, "how": "wait", "folder": tmp_path, "infra": infra})
        assert task.infra.status() == "running"
        until((tmp_path / BEGAN).exists, "runs")
        (tmp_path / "go").touch()
        assert task.compute() == 42
        assert len((tmp_path / BEGAN).read_text().split()) == 1

    # ---------------------------------------------------------------- what is refused

    def test_what_cannot_be_pickled_is_told_before_anything_is_submitted(self, infra: Fields) -> None:
        """Nothing is recorded as running."""
        self._needs_a_process()
        call = Call.model_validate({"infra": infra})
        with pytest.raises(SubmissionError, match="cannot send"):
            call.infra.submit(threading.Lock(), 1)

    def test_logs_that_cannot_be_written_are_named(self, infra: Fields, tmp_path: Path) -> None:
        """Nothing is recorded as running."""
        self._needs_a_process()
        (tmp_path / "file").touch()
        task = Task.model_validate({"infra": {**infra, "logs": tmp_path / "file" / "logs"}})
        with pytest.raises(SubmissionError, match="cannot write the job"):
            task.compute()
        assert task.infra.status() == "not submitted"

    def test_a_pickle_that_was_exchanged_is_not_run(
        self, infra: Fields, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its digest travels another way than the pickle."""
        self._needs_a_process()
        real, planted = _files.write_atomically, pickle.dumps(_Planted(str(tmp_path / "planted")))

        def exchange(path: tp.Any, data: bytes, **options: tp.Any) -> tp.Any:
            return real(path, planted if str(path).endswith("submitted.pkl") else data, **options)

        monkeypatch.setattr(_files, "write_atomically", exchange)
        task = Task.model_validate({"infra": infra})
        job = task.infra.job()
        monkeypatch.undo()
        with pytest.raises(JobError, match="is not what was submitted: it was exchanged, so it is not run"):
            job.result()
        assert not (tmp_path / "planted").exists()


class _Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[tp.Any, tuple[str, str]]:
        return open, (self.path, "w")


def _submit(infra: Fields, how: str, folder: Path) -> str:
    """Submit a task in another interpreter, which then ends; return the id of the job."""
    fields = json.dumps({name: str(v) if isinstance(v, Path) else v for name, v in infra.items()})
    program = "import sys; from exca.testing.backend_models import main; main(*sys.argv[1:])"
    command = [sys.executable, "-c", program, fields, how, str(folder)]
    said = folder / "submitter.log"  # not a pipe, which a job that inherits it would keep open
    with said.open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False, timeout=100)
    text = said.read_text()
    assert done.returncode == 0, text
    return text.split()[-1] if text else ""


def _runs(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
