"""A task in this process: computed once, found again, and every way in which it can be asked wrongly."""

import copy
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import typing as tp
import weakref
from pathlib import Path

import cloudpickle
import numpy as np
import pydantic
import pytest

import elsewhere
import exca
from exca.errors import InfraError, ReadOnlyError, ResultError, UncachedOverrideWarning
from exca.jobs.workdir_copy import git_commit
from task_models import Arrays, Double, Failing, OwnError, given


def traces(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


def test_without_a_folder_nothing_changes(trace: Path) -> None:
    task = Double(x=3, trace=trace)
    assert (task.compute(), task.compute()) == (6, 6)
    assert len(traces(trace)) == 2
    assert task.infra.status() == "not submitted"
    assert task.infra.uid_folder() is None


def test_a_result_is_computed_once_and_found_by_an_equal_object(tmp_path: Path, trace: Path) -> None:
    infra = given({"folder": tmp_path})
    task = Double(x=3, trace=trace, infra=infra)
    assert task.infra.status() == "not submitted"
    assert (task.compute(), task.compute(), Double(x=3, infra=infra).compute()) == (6, 6, 6)
    assert len(traces(trace)) == 1
    assert task.infra.status() == "completed"
    assert Double(x=4, trace=trace, infra=infra).compute() == 8
    assert len(traces(trace)) == 2


def test_the_decorated_method_keeps_its_name_and_docstring() -> None:
    assert Double.compute.__name__ == "compute"
    assert Double.compute.__doc__ == "Twice x."
    assert Double.compute.__qualname__ == "Double.compute"


def test_the_folder_says_what_was_computed_where_and_when(tmp_path: Path) -> None:
    task = Double(x=3, infra=given({"folder": tmp_path}))
    task.compute()
    folder = task.infra.uid_folder()
    assert folder is not None
    assert folder == tmp_path / task.infra.uid()
    assert (folder / "uid.yaml").read_text() == "x: 3\n"
    assert "label: none" in (folder / "full-uid.yaml").read_text()
    assert "cpus_per_task: null" in (folder / "config.yaml").read_text()
    record = json.loads((folder / "job.json").read_text())
    assert record["state"] == "completed"
    assert record["pid"] == os.getpid()
    for name in ("host", "user", "started", "finished", "seconds", "python", "exca"):
        assert name in record


@pytest.mark.parametrize("cluster", [None, "local", pytest.param("slurm", marks=pytest.mark.slurm)])
def test_the_record_names_the_git_commit_of_the_code(tmp_path: Path, cluster: str | None) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    code = (
        "import exca, pydantic\nclass T(pydantic.BaseModel):\n    infra: exca.TaskInfra = exca.TaskInfra()\n"
    )
    code += "    @infra.apply\n    def f(self) -> int:\n        return 1\n"
    (repository / "own_module.py").write_text(code)
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    infra = given({"folder": str(tmp_path)})
    if cluster is not None:  # the copy is in no repository
        infra |= {"cluster": cluster, "workdir": {"copied": ["own_module.py"]}}
    script = f"import own_module; t = own_module.T(infra={infra!r}); t.f(); print(t.infra.uid_folder())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True
    )
    record = json.loads((Path(done.stdout.strip()) / "job.json").read_text())
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True
    )
    assert record["git"] == {"commit": head.stdout.strip(), "dirty": False}


def test_git_is_started_only_where_there_is_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, code = tmp_path / "started", tmp_path / "project" / "code"
    git = tmp_path / "bin" / "git"
    for folder in (code, git.parent):
        folder.mkdir(parents=True)
    git.write_text(f"#!/bin/sh\ntouch {started}\necho '# branch.oid 1234'\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{git.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("GIT_DIR", raising=False)
    assert git_commit(str(code)) is None
    assert not started.exists()
    (tmp_path / "project" / ".git").write_text("gitdir: elsewhere\n")  # as in a worktree
    git_commit.cache_clear()
    assert git_commit(str(code)) == {"commit": "1234", "dirty": False}
    (tmp_path / "project" / ".git").unlink()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    git_commit.cache_clear()
    assert git_commit(str(code)) == {"commit": "1234", "dirty": False}


def test_nested_results_come_back_as_they_were(tmp_path: Path) -> None:
    infra = given({"folder": tmp_path})
    Arrays(size=4, infra=infra).build()
    out = Arrays(size=4, infra=given({**infra, "mode": "read-only"})).build()
    np.testing.assert_array_equal(out["array"], np.arange(4))
    assert out["names"] == ("a", "b")
    assert out["nested"] == [{"x": 1.5}, None]


def test_keep_in_ram_survives_the_loss_of_the_files(tmp_path: Path) -> None:
    task = Double(x=3, infra=given({"folder": tmp_path, "keep_in_ram": True}))
    assert task.compute() == 6
    folder = task.infra.uid_folder()
    assert folder is not None
    (folder / "job.json").unlink()
    assert task.compute() == 6
    assert task.infra.status() == "not submitted"


def test_force_computes_again_once_an_object(tmp_path: Path, trace: Path) -> None:
    infra = given({"folder": tmp_path})
    Double(trace=trace, infra=infra).compute()
    forced = Double(trace=trace, infra=given({**infra, "mode": "force"}))
    assert (forced.compute(), forced.compute()) == (2, 2)
    assert len(traces(trace)) == 2
    forced.infra.clone_obj().compute()
    assert len(traces(trace)) == 3


def test_a_forced_result_replaces_the_data_of_the_old_one(tmp_path: Path) -> None:
    infra = given({"folder": tmp_path})
    Arrays(size=3, infra=infra).build()
    forced = Arrays(size=3, infra=given({**infra, "mode": "force"}))
    forced.build()
    folder = forced.infra.uid_folder()
    assert folder is not None
    assert len([p for p in (folder / "data").rglob("*") if p.is_file()]) == 1
    np.testing.assert_array_equal(Arrays(size=3, infra=infra).build()["array"], np.arange(3))


def test_a_failed_force_leaves_the_old_result_until_there_is_a_new_outcome(tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    switch.touch()
    infra = given({"folder": tmp_path})
    assert Failing(switch=switch, infra=infra).run() == "mended"
    switch.unlink()
    with pytest.raises(ValueError, match="the value is wrong"):
        Failing(switch=switch, infra=given({**infra, "mode": "force"})).run()
    assert Failing(switch=switch, infra=infra).infra.status() == "failed"


def test_read_only_never_computes(tmp_path: Path, trace: Path) -> None:
    reader = Double(trace=trace, infra=given({"folder": tmp_path / "new", "mode": "read-only"}))
    with pytest.raises(ReadOnlyError, match="no result in"):
        reader.compute()
    with pytest.raises(ReadOnlyError, match="no result in"):
        reader.infra.job()
    assert not traces(trace)
    assert not (tmp_path / "new").exists(), "reading must not make folders"


def test_an_error_is_kept_with_its_type_until_it_is_retried(tmp_path: Path) -> None:
    infra = given({"folder": tmp_path})
    switch = tmp_path / "switch"
    with pytest.raises(ValueError, match="the value is wrong"):
        Failing(switch=switch, infra=infra).run()
    switch.touch()  # would work now
    again = Failing(switch=switch, infra=infra)
    assert again.infra.status() == "failed"
    with pytest.raises(ValueError, match="the value is wrong") as caught:
        again.run()
    notes = "\n".join(caught.value.__notes__)
    assert "task_models.py" in notes, "the traceback of where it ran"
    assert "mode='retry'" in notes
    assert "clear_job()" in notes
    assert Failing(switch=switch, infra=given({**infra, "mode": "retry"})).run() == "mended"
    assert Failing(switch=switch, infra=infra).run() == "mended"


def test_an_error_with_a_constructor_of_its_own_is_kept_with_its_type(tmp_path: Path) -> None:
    for _ in range(2):  # raised, then read
        with pytest.raises(OwnError, match=r"^number 3: own constructor") as caught:
            Failing(kind="own", infra=given({"folder": tmp_path})).run()
        assert caught.value.number == 3


def test_an_error_whose_class_is_gone_is_told_by_its_name(tmp_path: Path) -> None:
    task = Failing(kind="own", infra=given({"folder": tmp_path}))
    with pytest.raises(OwnError):
        task.run()
    code = "import sys, task_models\ndel task_models.OwnError\n"
    code += "try: task_models.Failing(kind='own', infra={'folder': sys.argv[1]}).run()\n"
    code += "except Exception as e: print(type(e).__name__, e)"
    assert (
        elsewhere.printed(code, str(tmp_path)) == "JobError task_models.OwnError: number 3: own constructor"
    )


def test_a_result_that_cannot_be_stored_is_an_error_that_names_its_type(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="generator"):
        Failing(kind="unpicklable", infra=given({"folder": tmp_path})).run()
    assert Failing(kind="unpicklable", infra=given({"folder": tmp_path})).infra.status() == "failed"


def test_clear_job_removes_the_outcome_and_leaves_other_files(tmp_path: Path, trace: Path) -> None:
    task = Double(trace=trace, infra=given({"folder": tmp_path}))
    task.compute()
    folder = task.infra.uid_folder()
    assert folder is not None
    (folder / "checkpoint.pt").write_text("mine")
    task.infra.clear_job()
    assert task.infra.status() == "not submitted"
    assert (folder / "checkpoint.pt").read_text() == "mine"
    task.compute()
    assert len(traces(trace)) == 2


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\0" * 300, b'{"state": "completed"}', b'{"state":"other"}']
)
def test_a_damaged_record_is_set_aside_and_computed_again(
    tmp_path: Path, trace: Path, content: bytes
) -> None:
    infra = given({"folder": tmp_path})
    task = Double(x=5, trace=trace, infra=infra)
    task.compute()
    folder = task.infra.uid_folder()
    assert folder is not None
    (folder / "job.json").write_bytes(content)
    assert Double(x=5, trace=trace, infra=infra).compute() == 10
    assert len(traces(trace)) == 2
    assert list(folder.glob("job.json.damaged-*"))


def test_damaged_data_is_set_aside_and_computed_again(tmp_path: Path) -> None:
    infra = given({"folder": tmp_path})
    task = Arrays(size=5, infra=infra)
    task.build()
    folder = task.infra.uid_folder()
    assert folder is not None
    (data,) = (p for p in (folder / "data").rglob("*") if p.is_file())
    data.write_bytes(data.read_bytes()[:-3])
    np.testing.assert_array_equal(Arrays(size=5, infra=infra).build()["array"], np.arange(5))
    np.testing.assert_array_equal(
        Arrays(size=5, infra=given({**infra, "mode": "read-only"})).build()["array"], np.arange(5)
    )


def test_threads_that_ask_at_once_get_one_computation(tmp_path: Path, trace: Path) -> None:
    results: list[int] = []
    ready = threading.Barrier(8)

    def ask() -> None:
        task = Double(x=3, trace=trace, infra=given({"folder": tmp_path}))
        ready.wait()
        results.append(task.compute())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [6] * 8
    assert len(traces(trace)) == 1


# ------------------------------------------------------------------ job arrays


def test_an_array_computes_what_is_missing(tmp_path: Path, trace: Path) -> None:
    task = Double(trace=trace, infra=given({"folder": tmp_path}))
    Double(x=2, trace=trace, infra=given({"folder": tmp_path})).compute()
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(4))
    assert sorted(line.split()[0] for line in traces(trace)) == ["0", "1", "2", "3"]
    assert [t.compute() for t in array] == [0, 2, 4, 6]
    assert [t.infra.job().result() for t in array] == [0, 2, 4, 6]


def test_a_failing_task_of_an_array_does_not_stop_the_others(tmp_path: Path) -> None:
    task = Failing(infra=given({"folder": tmp_path}))
    with task.infra.job_array() as array:
        array.append(task.infra.clone_obj(kind="ValueError"))
        array.append(task.infra.clone_obj(kind="own"))
    assert [t.infra.status() for t in array] == ["failed", "failed"]


def test_a_repeated_task_is_an_error_that_shows_both(tmp_path: Path) -> None:
    task = Double(infra=given({"folder": tmp_path}))
    with (
        pytest.raises(ValueError, match=r"the job array holds .* twice") as caught,
        task.infra.job_array() as array,
    ):
        array.extend(Double(x=7, infra=given({"folder": tmp_path})) for _ in range(2))
    assert str(caught.value).count("x: 7") == 2
    with task.infra.job_array(allow_repeated_tasks=True) as array:
        array.extend(Double(x=7, infra=given({"folder": tmp_path})) for _ in range(2))
    assert [t.compute() for t in array] == [14, 14]


def test_an_empty_array_is_an_error_unless_allowed(tmp_path: Path) -> None:
    task = Double(infra=given({"folder": tmp_path}))
    with pytest.raises(RuntimeError, match="nothing was added"), task.infra.job_array():
        pass
    with task.infra.job_array(allow_empty=True):
        pass


@pytest.mark.parametrize("mode", ["cached", "retry", "force", "read-only"])
def test_the_mode_of_an_array_is_that_of_the_infra_it_is_called_on(tmp_path: Path, mode: str) -> None:
    switch, trace = tmp_path / "switch", tmp_path / "trace"
    infra = given({"folder": tmp_path / "cache"})
    with pytest.raises(ValueError, match="the value is wrong"):
        Failing(switch=switch, infra=infra).run()
    Double(x=3, trace=trace, infra=infra).compute()
    switch.touch()
    other = "cached" if mode != "cached" else "force"
    failed = Failing(switch=switch, infra=given({**infra, "mode": other}))
    done = Double(x=3, trace=trace, infra=given({**infra, "mode": other}))
    with Failing(infra=given({**infra, "mode": mode})).infra.job_array() as array:
        array.append(failed)
    with Double(infra=given({**infra, "mode": mode})).infra.job_array() as array:
        array.append(done)
    again = mode in ("retry", "force")
    assert failed.infra.status() == ("completed" if again else "failed")
    assert len(traces(trace)) == (2 if mode == "force" else 1)


def test_a_read_only_array_computes_nothing(tmp_path: Path, trace: Path) -> None:
    infra = given({"folder": tmp_path})
    done, missing = (Double(x=x, trace=trace, infra=infra) for x in (1, 2))
    done.compute()
    reader = Double(infra=given({"folder": tmp_path, "mode": "read-only"}))
    with reader.infra.job_array() as array:
        array.append(done)
    with pytest.raises(ReadOnlyError, match="x=2"), reader.infra.job_array() as array:
        array.extend([done, missing])
    with pytest.raises(ReadOnlyError, match="x=3"), done.infra.job_array() as array:
        array.append(Double(x=3, trace=trace, infra=given({"folder": tmp_path, "mode": "read-only"})))
    assert len(traces(trace)) == 1


def test_nothing_is_submitted_when_the_block_raises(tmp_path: Path, trace: Path) -> None:
    task = Double(trace=trace, infra=given({"folder": tmp_path}))

    def fail() -> None:
        with task.infra.job_array() as array:
            array.append(task)
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert not traces(trace)


# ------------------------------------------------------------------ jobs of this process


def test_a_job_answers_all_that_a_submitted_one_does(tmp_path: Path) -> None:
    job = Double(x=3, infra=given({"folder": tmp_path})).infra.job()
    assert job.done()
    assert job.wait(1)
    assert job.result() == 6
    assert job.results() == [6]
    assert job.exception() is None
    assert job.state == "COMPLETED"
    job.cancel()
    failed = Failing(infra=given({"folder": tmp_path})).infra.job()
    assert failed.done()
    assert isinstance(failed.exception(), ValueError)


def test_a_job_can_be_awaited(tmp_path: Path) -> None:
    import asyncio

    async def main() -> int:
        return tp.cast(int, await Double(x=3, infra=given({"folder": tmp_path})).infra.job())

    assert asyncio.run(main()) == 6


# ------------------------------------------------------------------ objects


def test_clone_obj_validates_and_leaves_the_original(tmp_path: Path) -> None:
    task = Double(
        x=3,
        model=given({"name": "transformer", "layers": 2}),
        infra=given({"folder": tmp_path, "cpus_per_task": 2}),
    )
    task.infra.uid()
    clone = task.infra.clone_obj({"model.layers": 5, "infra.cpus_per_task": 3}, x=4)
    assert (clone.x, clone.model.layers, clone.infra.cpus_per_task) == (4, 5, 3)
    assert (task.x, task.model.layers, task.infra.cpus_per_task) == (3, 2, 2)
    assert clone.infra.folder == tmp_path
    clone.x = 12  # not frozen
    with pytest.raises(pydantic.ValidationError):
        task.infra.clone_obj(x="not a number")
    with pytest.raises(pydantic.ValidationError):
        task.infra.clone_obj({"model.kernel": 12})


def test_after_its_uid_an_object_is_frozen() -> None:
    task = Double(x=3)
    task.x = 4
    assert "x=4" in task.infra.uid()
    with pytest.raises(RuntimeError, match="clone_obj"):
        task.x = 5
    with pytest.raises(RuntimeError):
        task.model.layers = 3
    with pytest.raises(RuntimeError, match="clone_obj"):
        task.infra.version = "2"


@pytest.mark.parametrize("how", ["pickle", "cloudpickle", "deepcopy", "copy", "model_copy"])
def test_a_copy_answers_for_itself(tmp_path: Path, how: str) -> None:
    task = Double(x=3, infra=given({"folder": tmp_path, "keep_in_ram": True}))
    assert task.compute() == 6
    makers: dict[str, tp.Callable[[Double], Double]] = {
        "pickle": lambda t: pickle.loads(pickle.dumps(t)),
        "cloudpickle": lambda t: tp.cast(Double, pickle.loads(cloudpickle.dumps(t))),
        "deepcopy": copy.deepcopy,
        "copy": copy.copy,
        "model_copy": lambda t: t.model_copy(update={"x": 5}),
    }
    other = makers[how](task)
    if how != "model_copy":
        assert other == task
        other.x = 5
    assert other.infra is not task.infra
    assert other.infra._obj is other
    assert other.compute() == 10
    assert other.infra.uid() != task.infra.uid()
    assert task.compute() == 6


def test_one_infra_given_to_two_objects_serves_each() -> None:
    infra = exca.TaskInfra(version="5")
    one, two = Double(x=1, infra=infra), Double(x=2, infra=infra)
    assert one.infra._obj is one
    assert two.infra._obj is two
    assert one.infra is not two.infra


def test_the_default_on_the_class_seeds_what_an_instance_leaves_open(tmp_path: Path) -> None:
    class Seeded(pydantic.BaseModel):
        infra: exca.TaskInfra = exca.TaskInfra(version="3", cpus_per_task=4, folder=tmp_path)

        @infra.apply
        def f(self) -> int:
            return 1

    seeded = Seeded(infra=given({"cluster": "local", "cpus_per_task": 2}))
    assert (seeded.infra.version, seeded.infra.cpus_per_task, seeded.infra.folder) == ("3", 2, tmp_path)
    assert Seeded().infra.folder == tmp_path


def test_repr_shows_what_differs_from_the_default() -> None:
    assert repr(exca.TaskInfra()) == "TaskInfra()"
    assert repr(exca.TaskInfra(version="2", cpus_per_task=3)) == "TaskInfra(cpus_per_task=3, version='2')"


def test_iter_cached_finds_every_configuration(tmp_path: Path) -> None:
    for x in range(3):
        Double(x=x, model=given({"name": "transformer"}), infra=given({"folder": tmp_path})).compute()
    found = list(Double(infra=given({"folder": tmp_path})).infra.iter_cached())
    assert sorted(t.x for t in found) == [0, 1, 2]
    assert all(t.infra.status() == "completed" for t in found)
    assert {t.model.name for t in found} == {"transformer"}


def test_private_infras_work_too(tmp_path: Path) -> None:
    class Private(pydantic.BaseModel):
        x: int = 1
        _infra: exca.TaskInfra = exca.TaskInfra(folder=tmp_path)

        @_infra.apply
        def f(self) -> int:
            return self.x

    private = Private(x=3)
    assert private.f() == 3
    assert private._infra._obj is private
    assert private._infra.status() == "completed"
    assert Private(x=4)._infra is not private._infra
    assert private._infra.clone_obj(x=5)._infra.folder == tmp_path
    with pytest.raises(pydantic.ValidationError):
        Private.model_validate({"y": 3})


def test_several_infras_and_infras_of_sub_configurations(tmp_path: Path) -> None:
    class Two(pydantic.BaseModel):
        n: int = 4
        task: Double = Double(x=2)
        infra: exca.TaskInfra = exca.TaskInfra(version="a")
        other: exca.TaskInfra = exca.TaskInfra(version="b")

        @infra.apply
        def first(self) -> int:
            return self.n + self.task.compute()

        @other.apply
        def second(self) -> int:
            return -self.n

    folder = given({"folder": tmp_path})
    two = Two(infra=folder, other=folder, task=given({"infra": folder}))
    assert (two.first(), two.second()) == (6, -4)
    assert set(two.infra.obj_infras()) == {"infra", "other", "task.infra"}
    assert two.task.infra.status() == "completed"


def test_a_child_may_override_infra_and_method(tmp_path: Path) -> None:
    class Child(Double):
        infra: exca.TaskInfra = exca.TaskInfra(version="child")

        @infra.apply
        def compute(self) -> int:
            return super().compute() + 100

    child = Child(x=2, infra=given({"folder": tmp_path}))
    assert child.compute() == 104
    assert child.infra.uid().endswith("Child.compute,child/x=2-" + child.infra.uid()[-8:])


def test_a_child_may_override_the_method_alone(tmp_path: Path, trace: Path) -> None:
    class Child(Double):
        def compute(self) -> int:
            return super().compute() + 100

    with pytest.warns(UncachedOverrideWarning, match=r"Child overrides Double\.compute"):
        child = Child(x=2, trace=trace, infra=given({"folder": tmp_path}))
    assert (child.compute(), child.compute()) == (104, 104)
    assert len(traces(trace)) == 1, "the parent's result is cached"
    assert child.infra.uid().startswith("task_models.Double.compute,1/")


# ------------------------------------------------------------------ asked wrongly


def test_an_infra_that_is_not_applied_is_told_so() -> None:
    class Forgotten(pydantic.BaseModel):
        infra: exca.TaskInfra = exca.TaskInfra()

    with pytest.raises(InfraError, match=r"'infra' of .*Forgotten is not applied.*@infra\.apply"):
        Forgotten()


def test_an_infra_whose_uid_is_in_use_cannot_be_changed(tmp_path: Path) -> None:
    obj = Double(infra=given({"folder": tmp_path}))
    obj.infra.uid()
    with pytest.raises(
        InfraError,
        match=r"cannot set version='2' on 'infra' of Double: its uid was computed, so it is frozen; make an unfrozen "
        r"copy with clone_obj\(\{'infra\.version': '2'\}\)",
    ):
        obj.infra.version = "2"
    assert obj.infra.version != "2"


def test_a_method_of_another_class_is_refused() -> None:
    class Other(pydantic.BaseModel):
        x: int = 3

    with pytest.raises(InfraError, match=r"'compute' was called on Other\(x=3\), which has no infra 'infra'"):
        Double.compute(tp.cast(tp.Any, Other()))


def test_an_infra_cannot_be_applied_twice() -> None:
    with pytest.raises(InfraError, match="already applied to 'one'"):

        class Twice(pydantic.BaseModel):
            infra: exca.TaskInfra = exca.TaskInfra()

            @infra.apply
            def one(self) -> int:
                return 1

            @infra.apply
            def two(self) -> int:
                return 2


def test_a_task_takes_no_arguments() -> None:
    with pytest.raises(ValueError, match=r"takes only 'self'"):

        class Argument(pydantic.BaseModel):
            infra: exca.TaskInfra = exca.TaskInfra()

            @infra.apply  # type: ignore[type-var] # what is tested
            def f(self, x: int) -> int:
                return x


def test_an_infra_needs_a_pydantic_model() -> None:
    with pytest.raises((InfraError, RuntimeError)) as caught:

        class Plain:
            infra: exca.TaskInfra = exca.TaskInfra()

            @infra.apply
            def f(self) -> int:
                return 1

    error = caught.value if isinstance(caught.value, InfraError) else caught.value.__cause__
    assert "Plain inherit from pydantic.BaseModel" in str(error)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"cluster": "local"}, "needs a folder"),
        ({"cluster": "nowhere"}, "known are 'local', 'slurm', 'debug', .*'auto'"),
        ({"cpus_per_task": 0}, "greater than 0"),
        ({"cpu_per_task": 1}, "Extra inputs"),
        ({"version": "../.."}, r"becomes part of a folder's name: it may hold no '\.\.' and no slash"),
        ({"folder": "f", "cluster": "slurm", "tasks_per_node": 2}, "slurm_use_srun"),
        ({"folder": "f", "conda_env": "/no/such/environment"}, "/no/such/environment"),
        ({"mode": "forced"}, "'cached', 'retry', 'force' or 'read-only'"),
        ({"folder": "f", "workdir": {"copied": []}}, "copied"),
    ],
)
def test_a_wrong_infra_is_refused_when_it_is_built(wrong: dict[str, tp.Any], words: str) -> None:
    with pytest.raises((pydantic.ValidationError, RuntimeError), match=words):
        Double(infra=given(wrong))


@pytest.mark.parametrize(
    "wrong",
    [{"y": 1}, {"x": "one"}, {"model": {"name": "conv", "embeddings": 3}}, {"model": {"name": "other"}}],
)
def test_unknown_and_mistyped_fields_are_refused(wrong: dict[str, tp.Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Double(**wrong)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to mount a read-only folder"
)
def test_a_folder_that_cannot_be_written_says_which(tmp_path: Path) -> None:
    task = Double(infra=given({"folder": "/proc/nowhere"}))
    with pytest.raises(OSError, match="/proc/nowhere"):
        task.compute()


def test_a_changed_default_under_a_cached_result_is_told(tmp_path: Path) -> None:
    def make(default: int) -> tp.Any:
        class Model(pydantic.BaseModel):
            x: int = 1
            changing: int = default
            infra: exca.TaskInfra = exca.TaskInfra(folder=tmp_path)

            @infra.apply
            def f(self) -> int:
                return self.changing

        return Model

    make(1)(x=2).f()
    with pytest.raises(RuntimeError, match="changing"):
        make(2)(x=2).f()


def test_an_edited_uid_file_is_told_with_a_diff(tmp_path: Path) -> None:
    task = Double(x=3, infra=given({"folder": tmp_path}))
    task.compute()
    folder = task.infra.uid_folder()
    assert folder is not None
    (folder / "uid.yaml").write_text("x: 4\n")
    with pytest.raises(RuntimeError, match=r"(?s)-x: 4.*\+x: 3|\+x: 3.*-x: 4|-x: 3.*\+x: 4"):
        Double(x=3, infra=given({"folder": tmp_path})).compute()


def test_a_task_that_asks_for_itself_is_told_instead_of_waiting_for_ever(tmp_path: Path) -> None:
    class Circle(pydantic.BaseModel):
        infra: exca.TaskInfra = exca.TaskInfra(folder=tmp_path)

        @infra.apply
        def f(self) -> int:
            return Circle().f() + 1

    with pytest.raises(RuntimeError, match="asks for its own result"):
        Circle().f()


def test_a_configuration_without_defaults_still_names_each_infra(tmp_path: Path) -> None:
    class Part(pydantic.BaseModel):
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply
        def f(self) -> int:
            return 1

    class Whole(pydantic.BaseModel):
        part: Part = Part()
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply
        def f(self) -> int:
            return 1

    assert Whole().infra.config(uid=False, exclude_defaults=True) == {"part": {"infra": {}}, "infra": {}}
    assert Whole().infra.config(uid=True, exclude_defaults=True) == {}


def test_a_clone_is_not_given_the_defaults_of_the_original() -> None:
    class Inner(pydantic.BaseModel, extra="forbid"):
        pair: tuple[int, ...] = [0]  # type: ignore[assignment] # never validated: as a given value it is another one
        width: int = 1

    class Outer(pydantic.BaseModel, extra="forbid"):
        inner: Inner = Inner(width=2)
        pair: tuple[int, ...] = [0]  # type: ignore[assignment] # as above
        table: dict[str, float] = pydantic.Field(default_factory=lambda: given({"a": 2**53 + 1}))
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply
        def f(self) -> int:
            return 1

    outer = Outer()
    assert outer.infra.clone_obj().infra.uid() == outer.infra.uid()
    changed = outer.infra.clone_obj({"inner.width": 3})
    assert (changed.pair, changed.inner) == ([0], Inner(width=3))


def test_a_class_that_is_not_used_any_more_is_not_kept_in_memory(tmp_path: Path) -> None:
    """A notebook makes another one each time that its cell is run."""

    def run_once(version: int) -> "weakref.ref[type]":
        class Nested(pydantic.BaseModel, extra="forbid"):
            y: int = 1

        class Passing(pydantic.BaseModel):
            x: Nested = Nested()
            infra: exca.TaskInfra = exca.TaskInfra(folder=tmp_path, version=str(version))

            @infra.apply
            def run(self) -> int:
                return self.x.y

        assert Passing(x=Nested(y=2)).run() == 2
        return weakref.ref(Passing)

    made = [run_once(version) for version in range(4)]
    gc.collect()
    assert [each() for each in made[:-1]] == [None] * 3  # the last one may be what was asked for last
