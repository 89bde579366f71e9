"""Submits: any method with any arguments, run elsewhere, nothing cached; the same tests for each backend."""

import asyncio
import os
import pickle
import subprocess
import sys
import threading
import time
import typing as tp
from pathlib import Path

import numpy as np
import pydantic
import pytest

import exca
from exca.errors import InfraError, JobError, SubmissionError
from exca.jobs.backends import Submission
from exca.jobs.job import CallJob

SLURM = pytest.param("slurm", marks=pytest.mark.slurm)
every_cluster = pytest.mark.parametrize("cluster", [None, "debug", "local", SLURM])
every_job = pytest.mark.parametrize("cluster", ["debug", "local", SLURM])
every_scheduler = pytest.mark.parametrize("cluster", ["local", SLURM])
Infra = dict[str, tp.Any]


@pytest.fixture
def infra(cluster: str | None, slurm_folder: Path) -> Infra:
    return {"cluster": cluster, "folder": slurm_folder}


class OwnError(RuntimeError):
    """An error whose constructor takes more than a message, so that it does not unpickle by itself."""

    def __init__(self, number: int, *, reason: str) -> None:
        super().__init__(f"number {number}: {reason}")


class Calls(pydantic.BaseModel):
    """Methods of all kinds."""

    x: int = 2
    trace: Path | None = None
    infra: exca.SubmitInfra = exca.SubmitInfra()
    static: exca.SubmitInfra = exca.SubmitInfra()
    fails: exca.SubmitInfra = exca.SubmitInfra()
    _large: exca.SubmitInfra = exca.SubmitInfra()

    @infra.apply
    def times(self, y: int, *more: int, z: int = 0) -> int:
        """Product with x, and more."""
        if self.trace is not None:
            with open(self.trace, "a") as f:
                f.write(f"{os.getpid()}\n")
        return self.x * y + sum(more) + z

    @static.apply
    @staticmethod
    def add(x: int, y: int = 1) -> tuple[int, int]:
        return x + y, os.getpid()

    @fails.apply
    def fail(self, how: str, gate: Path | None = None) -> tp.Any:
        print("about to fail")
        print("last words", file=sys.stderr, flush=True)
        if how == "kill":
            os.kill(os.getpid(), 9)
        if how == "own":
            raise OwnError(3, reason="own constructor")
        if how == "result":
            return threading.Lock()
        while gate is not None and not gate.exists():
            time.sleep(0.02)
        raise ValueError("the value is wrong")

    @_large.apply
    def array(self, megabytes: int) -> tp.Any:
        return np.arange(megabytes << 17, dtype="float64")


def calls(infra: Infra, **fields: tp.Any) -> Calls:
    return Calls.model_validate({"infra": infra, "static": infra, "fails": infra, **fields})


@every_cluster
def test_a_call_blocks_and_returns_what_the_method_returns(
    infra: Infra, cluster: str | None, tmp_path: Path
) -> None:
    obj = calls(infra, trace=tmp_path / "trace")
    assert obj.times(3) == 6
    assert obj.times(3, 4, 5, z=6) == 21
    pids = (tmp_path / "trace").read_text().split()
    assert len(pids) == 2, "nothing is cached"
    assert (str(os.getpid()) in pids) == (cluster in (None, "debug"))
    assert (Calls.times.__name__, Calls.times.__doc__) == ("times", "Product with x, and more.")


@every_cluster
def test_submit_returns_a_job(infra: Infra, cluster: str | None) -> None:
    job = calls(infra).infra.submit(3, 4, z=5)
    assert job.result() == 15
    assert job.done()
    assert job.wait(1)
    assert job.exception() is None
    assert job.results() == [15]
    assert job.state == "COMPLETED"
    assert job.cluster == cluster
    assert asyncio.run(_awaited(job)) == 15


async def _awaited(job: tp.Any) -> tp.Any:
    return await job


@every_cluster
def test_a_job_goes_on_while_others_are_submitted(infra: Infra) -> None:
    obj = calls(infra)
    jobs = [obj.infra.submit(y) for y in range(4)]
    assert [job.result() for job in jobs] == [0, 2, 4, 6], "each its own result"


@every_cluster
def test_a_batch_is_one_submission(infra: Infra, cluster: str | None, tmp_path: Path) -> None:
    obj = calls(infra, trace=tmp_path / "trace")
    with obj.infra.batch(max_workers=2):
        jobs = [obj.infra.submit(y) for y in range(3)]
        if cluster is not None:
            assert not (tmp_path / "trace").exists()
            assert not jobs[0].done()
            assert jobs[0].state == "UNSUBMITTED"
    assert [job.result() for job in jobs] == [0, 2, 4]
    assert len((tmp_path / "trace").read_text().split()) == 3
    if cluster in ("local", "slurm"):
        assert len({job.job_id.split("_")[0] for job in jobs}) == 1
    with obj.infra.batch():
        pass  # nothing to send


@every_job
def test_a_batch_that_is_not_left_gives_no_results(infra: Infra) -> None:
    obj = calls(infra)
    with obj.infra.batch():
        job = obj.infra.submit(3)
        with pytest.raises(
            SubmissionError,
            match=r"has no result, since its batch is not sent yet: leave the `with infra\.b",
        ):
            job.result()
        with pytest.raises(SubmissionError, match=r"leave the `with infra\.batch"):
            obj.times(3)
        with pytest.raises(SubmissionError, match=r"leave the `with infra\.batch"):
            job.cancel()
        with pytest.raises(InfraError, match="already open"), obj.infra.batch():
            pass
        assert isinstance(job.exception(), SubmissionError)
    assert job.result() == 6


@every_job
def test_a_batch_left_by_an_error_sends_nothing(infra: Infra, tmp_path: Path) -> None:
    obj = calls(infra, trace=tmp_path / "trace")
    jobs = []

    def batch(argument: tp.Any) -> None:
        with obj.infra.batch():
            jobs.append(obj.infra.submit(3))
            if argument == "stop":
                raise KeyError(argument)

    with pytest.raises(KeyError):
        batch("stop")
    with pytest.raises(SubmissionError, match=r"KeyError\('stop'\).*submit again"):
        jobs[0].result()
    assert not (tmp_path / "trace").exists()
    assert obj.infra.submit(3).result() == 6, "the batch is closed"


@every_cluster
def test_static_methods_are_called_on_objects_and_classes(infra: Infra, cluster: str | None) -> None:
    obj = calls(infra)
    assert obj.static.submit(3, y=4).result()[0] == 7
    total, pid = obj.add(3)
    assert total == 4
    assert (pid == os.getpid()) == (cluster in (None, "debug"))
    assert Calls.add(3, 5) == (8, os.getpid()), "without object there is no infra"


def test_a_static_method_of_a_parent_is_called_through_super() -> None:
    class Child(Calls):
        static: exca.SubmitInfra = exca.SubmitInfra()

        @static.apply
        def add(self, x: int, y: int = 1) -> tuple[int, int]:  # type: ignore[override] # no static method any more
            return super().add(x + 10, y)

    assert Child().add(3)[0] == 14


@every_job
def test_a_call_that_runs_on_a_copy_of_the_code_links_to_it(infra: Infra, tmp_path: Path) -> None:
    (tmp_path / "copied.py").write_text("VALUE = 1\n")
    infra = {**infra, "folder": tmp_path / "cache", "workdir": {"copied": [tmp_path / "copied.py"]}}
    obj = calls(infra, x=3)
    assert obj.times(2) == 6
    folder = obj.infra.uid_folder()
    assert folder is not None
    assert (folder / "code" / "copied.py").read_text() == "VALUE = 1\n"
    assert (folder / "uid.yaml").read_text() == "x: 3\n"
    first = os.readlink(folder / "code")
    unfrozen = calls(infra, x=4)
    unfrozen.infra.submit(2).result()
    unfrozen.x = 3  # a call without a cache freezes nothing
    assert unfrozen.infra.submit(2).result() == 6
    assert os.readlink(folder / "code") != first


@every_job
def test_a_call_that_runs_on_a_copy_of_the_code_needs_no_uid(infra: Infra, tmp_path: Path) -> None:
    class Loose(pydantic.BaseModel):
        x: int = 1

    class Holder(pydantic.BaseModel):
        loose: Loose = Loose()
        infra: exca.SubmitInfra = exca.SubmitInfra()

        @infra.apply
        def run(self) -> int:
            return self.loose.x

    (tmp_path / "copied.py").touch()
    infra = {**infra, "folder": tmp_path / "cache", "workdir": {"copied": [tmp_path / "copied.py"]}}
    assert Holder.model_validate({"loose": {"x": 2}, "infra": infra}).run() == 2


def test_a_static_method_around_the_infra_is_told() -> None:
    class Around(pydantic.BaseModel):
        infra: exca.SubmitInfra = exca.SubmitInfra()

        @staticmethod
        @infra.apply
        def f(x: int) -> int:
            return x

    with pytest.raises(InfraError, match=r"write @infra\.apply above @staticmethod"):
        Around()


@every_job
def test_an_error_has_its_type_and_remote_traceback(infra: Infra) -> None:
    obj = calls(infra)
    with pytest.raises(ValueError, match="the value is wrong") as caught:
        obj.fail("plain")
    assert "test_submit.py" in "".join(caught.value.__notes__)
    with pytest.raises(OwnError, match="number 3: own constructor"):
        obj.fail("own")
    job = obj.fails.submit("plain")
    assert isinstance(job.exception(), ValueError)
    assert job.state == "FAILED"
    assert job.done()
    if obj.fails.cluster != "debug":
        assert "about to fail" in (job.stdout() or "")
        assert "last words" in (job.stderr() or "")


def test_without_a_cluster_an_error_is_the_method_s_own() -> None:
    with pytest.raises(OwnError):
        Calls().fail("own")
    assert isinstance(Calls().fails.submit("plain").exception(), ValueError)


@every_job
def test_a_result_that_does_not_pickle_is_told(infra: Infra) -> None:
    with pytest.raises((JobError, TypeError), match="pickle"):
        calls(infra).fail("result")


@every_scheduler
def test_arguments_that_do_not_pickle_are_told_before_anything_is_submitted(
    infra: Infra, tmp_path: Path
) -> None:
    obj: tp.Any = calls(infra, trace=tmp_path / "trace")
    with pytest.raises(SubmissionError, match=r"cannot send a call of Calls\.times .*lock"):
        obj.infra.submit(threading.Lock())
    batch = obj.infra.batch()
    batch.__enter__()
    job = obj.infra.submit(1)
    obj.infra.submit(threading.Lock())
    with pytest.raises(SubmissionError, match=r"lock"):
        batch.__exit__(None, None, None)
    with pytest.raises(SubmissionError, match="could not be submitted"):
        job.result()
    assert not (tmp_path / "trace").exists()


@every_scheduler
@pytest.mark.parametrize("many", [False, True])
def test_a_killed_job_says_how_it_ended(infra: Infra, cluster: str, many: bool) -> None:
    obj = calls(infra)
    with obj.fails.batch() if many else obj.infra.batch():
        jobs = [obj.fails.submit("kill") for _ in range(2 if many else 1)]
    words = {"local": "SIGKILL", "slurm": "Slurm says .*(0:9|137)"}[cluster]
    for job in jobs:
        with pytest.raises(JobError, match=rf"(?s){words}.*last words") as caught:
            job.result()
        assert job.job_id in str(caught.value)
        assert job.done()


@every_scheduler
def test_a_job_can_be_cancelled(infra: Infra, tmp_path: Path) -> None:
    job = calls(infra).fails.submit("plain", tmp_path / "gate")
    end = time.monotonic() + 60
    while "last words" not in (job.stderr() or ""):
        assert time.monotonic() < end
        time.sleep(0.02)
    job.cancel()
    with pytest.raises(JobError):
        job.result()


@every_job
def test_results_may_be_large(infra: Infra) -> None:
    obj = Calls()
    obj._large = exca.SubmitInfra(**infra)
    result = obj.array(48)
    assert result.nbytes == 48 << 20
    assert result[-1] == (48 << 17) - 1


@every_job
def test_classes_of_functions_can_be_sent(infra: Infra) -> None:
    class Value:
        def __init__(self, x: int) -> None:
            self.x = x

    class Inside(pydantic.BaseModel):
        infra: exca.SubmitInfra = exca.SubmitInfra()

        @infra.apply
        def f(self, value: Value) -> Value:
            return Value(5 * value.x)

    obj = Inside.model_validate({"infra": infra})
    assert obj.f(Value(3)).x == 15
    assert obj.f(Value(4)).x == 20, "sending an object leaves it as it was"


SCRIPT = """
import pydantic, exca

class FromScript(pydantic.BaseModel):
    infra: exca.SubmitInfra = exca.SubmitInfra()

    @infra.apply
    def run(self, value):
        return Value(2 * value.x)

class Value:
    def __init__(self, x):
        self.x = x

print("running", flush=True)
obj = FromScript(infra=dict(folder={folder!r}, cluster={cluster!r}))
print(obj.run(Value(3)).x, isinstance(obj.run(Value(3)), Value))
"""


@every_cluster
def test_classes_of_a_script_can_be_sent(slurm_folder: Path, cluster: str | None) -> None:
    (slurm_folder / "script.py").write_text(SCRIPT.format(folder=str(slurm_folder), cluster=cluster))
    done = subprocess.run(
        [sys.executable, str(slurm_folder / "script.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "running\n6 True\n", done.stderr


def test_several_processes_of_a_job_each_give_a_result(tmp_path: Path) -> None:
    class Ranks(pydantic.BaseModel):
        infra: exca.SubmitInfra = exca.SubmitInfra()

        @infra.apply
        def f(self) -> int:
            import submitit

            return submitit.JobEnvironment().global_rank

    infra = {"folder": tmp_path, "cluster": "local", "tasks_per_node": 2}
    assert Ranks.model_validate({"infra": infra}).infra.submit().results() == [0, 1]


def test_a_process_of_a_job_that_ends_without_a_word_is_named(tmp_path: Path) -> None:
    class Quits(pydantic.BaseModel):
        infra: exca.SubmitInfra = exca.SubmitInfra()

        @infra.apply
        def f(self) -> int:
            import submitit

            if submitit.JobEnvironment().global_rank == 1:
                os._exit(0)
            return 3

    infra = {"folder": tmp_path, "cluster": "local", "tasks_per_node": 2}
    job = Quits.model_validate({"infra": infra}).infra.submit()
    with pytest.raises(JobError, match=r"process 1 of [Ll]ocal job .* left no result; see .*logs"):
        job.results()


def test_a_result_that_cannot_be_pickled_fails_the_job(tmp_path: Path) -> None:
    job = calls({"folder": tmp_path, "cluster": "local"}).fails.submit("result")
    with pytest.raises(JobError, match=r"(?s)[Ll]ocal job .* failed:\n.*the result, a .*, cannot be pickled"):
        job.result()


def test_the_result_of_a_process_that_ends_while_it_is_looked_for_counts(tmp_path: Path) -> None:
    class Ending(CallJob[int]):
        def _process_alive(self) -> bool:
            """The next process leaves its result, and ends, between the look for that and this one."""
            places = (self.paths._replace(rank=rank) for rank in range(2))
            place = next(place for place in places if not place.result_pickle.exists())
            place.folder.mkdir(exist_ok=True)
            place.result_pickle.write_bytes(pickle.dumps(("success", place.rank)))
            return False

    assert Ending(Submission("local", "12", f"{tmp_path}/%j", processes=2)).results() == [0, 1]


def test_a_parent_s_method_runs_as_it_is() -> None:
    class Child(Calls):
        infra: exca.SubmitInfra = exca.SubmitInfra()

        @infra.apply
        def times(self, y: int, *more: int, z: int = 0) -> int:
            return super().times(y, *more, z=z) + 100

    assert Child(x=3).times(2) == 106
    assert Child(x=3).infra.submit(2).result() == 106


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"cluster": "local"}, "needs a folder"),
        ({"cluster": "threadpool", "folder": "f"}, "makes no sense for single calls"),
        ({"mode": "cached"}, "Extra inputs"),
    ],
)
def test_a_wrong_infra_is_refused_when_it_is_built(wrong: Infra, words: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=words):
        calls(wrong)


class Unlucky(pydantic.BaseModel):
    """Is lost as often as it is told, and returns how often it began."""

    place: Path
    infra: exca.SubmitInfra = exca.SubmitInfra()

    @infra.apply
    def run(self, losses: int, how: str = "kill") -> int:
        began = self.place / "began"
        with began.open("a") as file:
            file.write("x")
        number = len(began.read_text())
        if number <= losses and how == "raise":
            raise ConnectionError(f"attempt {number}")
        if number <= losses:
            os.kill(os.getpid(), 9)
        return number


@every_scheduler
def test_a_call_that_is_lost_is_submitted_again(infra: Infra, tmp_path: Path) -> None:
    policy: tp.Any = {**infra, "retry_on": ["killed"], "retry_backoff_s": 0}
    task = Unlucky(place=tmp_path, infra=policy)
    job = task.infra.submit(2)
    first = job.job_id
    assert job.wait(110)
    assert job.job_id != first or not first
    assert job.result() == 3
    with pytest.raises(JobError, match=r"SIGKILL|137"):
        task.run(9)
    assert len((tmp_path / "began").read_text()) == 6


def test_an_error_of_a_call_that_the_policy_names_is_a_loss(tmp_path: Path) -> None:
    policy: tp.Any = {"cluster": "local", "folder": tmp_path, "retry_on": ["OSError"], "retry_backoff_s": 0}
    task = Unlucky(place=tmp_path, infra=policy)
    assert exca.wait([job := task.infra.submit(1, "raise")]).done == [job]
    assert job.result() == 2
    assert task.run(4, "raise") == 5
