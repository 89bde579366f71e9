"""Configurations from functions, checked arguments, and the way back from a job to its configuration."""

import dataclasses
import functools
import inspect
import logging
import pickle
import re
import subprocess
import sys
import textwrap
import typing as tp
from pathlib import Path

import numpy as np
import pydantic
import pytest

import exca
from exca import helpers
from exca.helpers import FuncConfig, to_config, to_config_model, validate_kwargs, with_infra

CALLS: list[tuple[tp.Any, ...]] = []
anything: tp.Any = helpers.to_config  # for calls that type checkers refuse


def train(layers: int, name: str = "adam", *, rate: float = 1e-3) -> str:
    """Train a model."""
    CALLS.append((layers, name, rate))
    return f"{layers}-{name}-{rate}"


class Model:
    kind = "model"

    def __init__(self, width: int, activation: "str" = "relu") -> None:
        self.width = width
        self.activation = activation

    def method(self, scale: int) -> int:
        return self.width * scale

    @classmethod
    def build(cls, width: int) -> "Model":
        return cls(width)

    @staticmethod
    def double(width: int) -> int:
        return 2 * width


class Other:
    @staticmethod
    def double(width: int) -> int:
        return 4 * width


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


# A model from a signature


def test_the_fields_of_a_model_are_the_parameters() -> None:
    model = to_config_model(train)
    assert list(model.model_fields) == ["infra", "layers", "name", "rate"]
    assert model.__name__ == "train_FuncConfig"
    assert model.__module__ == __name__
    config = model(layers=3, rate="0.1")
    assert isinstance(config, FuncConfig)
    assert config.model_dump(exclude={"infra"}) == {"layers": 3, "name": "adam", "rate": 0.1}
    assert config.build() == "3-adam-0.1"


@pytest.mark.parametrize(
    "fields", [{}, {"layers": "many"}, {"layers": 1, "typo": 2}, {"layers": 1, "rate": None}]
)
def test_a_model_validates(fields: dict[str, tp.Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        to_config_model(train)(**fields)
    assert not CALLS


def test_the_model_of_a_function_is_made_once() -> None:
    assert to_config_model(train) is to_config_model(train)
    assert to_config(train, 3) == to_config(train, layers=3)
    assert to_config(train, 3) != to_config(train, layers=4)


def test_arguments_may_be_positional() -> None:
    assert to_config(train, 3, "sgd", rate=1).build() == "3-sgd-1.0"
    with pytest.raises(TypeError, match="train got two values for 'layers'"):
        anything(train, 3, layers=3)
    with pytest.raises(TypeError, match=r"train takes 2 positional argument\(s\), got 3"):
        anything(train, 3, "sgd", 0.1)


def test_classes_and_their_methods() -> None:
    built = to_config(Model, width=3).build()
    assert (built.width, built.activation) == (3, "relu")
    assert to_config(Model.build, width=3).build().width == 3
    assert to_config(Model.double, width=3).build() == 6
    assert to_config(Model(2).method, scale=4).build() == 8
    names = {to_config_model(func).__qualname__ for func in (Model.double, Other.double)}
    assert names == {"Model.double_FuncConfig", "Other.double_FuncConfig"}

    @dataclasses.dataclass
    class Point:
        x: int
        y: int = 2

    assert to_config(Point, x=1).build() == Point(1, 2)


def test_what_a_method_returns_is_not_cached_without_its_object(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no part of the configuration"):
        to_config(Model(2).method, scale=4, infra={"folder": tmp_path})


def test_signatures_of_every_kind() -> None:
    def only(a: int, /, b: int = 2) -> tuple[int, int]:
        return a, b

    def more(a: int, **others: float) -> tuple[int, dict[str, float]]:
        return a, others

    def maybe(a: int = None) -> int | None:  # type: ignore[assignment] # noqa: RUF013 # often written
        return a

    def odd(copy: int, json: str = "x", model: str = "y") -> tuple[int, str, str]:
        return copy, json, model

    def arrays(values: np.ndarray[tp.Any, tp.Any]) -> float:
        return float(values.sum())

    assert to_config(only, 1).build() == (1, 2)
    config = to_config(more, a=1, b=2, c=3)
    assert config.build() == (1, {"b": 2.0, "c": 3.0})
    with pytest.raises(pydantic.ValidationError):
        anything(more, a=1, b="many")
    assert anything(maybe, a=None).build() is None
    assert to_config(odd, copy=3).build() == (3, "x", "y")
    assert to_config(arrays, np.arange(4)).build() == 6


def test_signatures_of_which_no_configuration_can_be_made() -> None:
    def untyped(a, b: int = 2) -> None: ...  # type: ignore[no-untyped-def] # noqa: ANN001 # this is tested

    def starred(*values: int) -> None: ...

    def taken(infra: int) -> None: ...

    def taken_too(build: int) -> None: ...

    def private(_a: int) -> None: ...

    def reserved(model_config: int) -> None: ...

    def unknown(a: "NotThere") -> None: ...  # type: ignore[name-defined] # noqa: F821 # this is tested

    cases: list[tuple[tp.Callable[..., tp.Any], str]] = [
        (untyped, "'a' is missing a precise type"),
        (Model.method, "'self' is missing a precise type"),
        (starred, r"\*values"),
        (taken, "'infra'"),
        (taken_too, "'build'"),
        (private, "'_a'"),
        (reserved, "'model_config'"),
        (unknown, "'NotThere' cannot be found"),
        (lambda: 3, "has no name"),
        (functools.partial(train, name="x"), "has no name"),
    ]
    for func, message in cases:
        with pytest.raises(ValueError, match=message):
            to_config_model(func)


def test_a_configuration_is_cached_under_the_name_of_the_function(tmp_path: Path) -> None:
    config = to_config(train, layers=3, infra={"folder": tmp_path})
    assert config.infra.uid() == f"{__name__}.train_FuncConfig.build,1/layers=3-59a58b9b"  # as ever
    assert config.build() == config.build() == to_config(train, layers=3, infra={"folder": tmp_path}).build()
    assert CALLS == [(3, "adam", 1e-3)]
    assert to_config(train, layers=4, infra=exca.TaskInfra(folder=tmp_path)).build() == "4-adam-0.001"
    assert config.infra.clone_obj({"layers": 5}).build() == "5-adam-0.001"
    assert len(CALLS) == 3


def test_a_configuration_may_be_part_of_another(tmp_path: Path) -> None:
    model = to_config_model(train)

    class Study(pydantic.BaseModel):
        train: model  # type: ignore[valid-type] # made at run time, unknown to type checkers
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply
        def run(self) -> str:
            part: FuncConfig[str] = self.train
            return part.build()

    study = Study(train={"layers": 2}, infra={"folder": tmp_path})  # type: ignore[arg-type] # validated by pydantic
    assert study.run() == "2-adam-0.001"
    assert study.infra.config(uid=True, exclude_defaults=True) == {"train": {"layers": 2}}


def test_configurations_pickle() -> None:
    config = to_config(train, layers=3)
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config
    assert type(copy) is type(config)
    assert copy.build() == "3-adam-0.001"
    assert config.model_copy(update={"layers": 4}).build() == "4-adam-0.001"


# A function with an infra


def test_a_decorated_function_is_cached(tmp_path: Path) -> None:
    cached = with_infra(folder=tmp_path)(train)
    assert cached(3) == cached(layers=3) == cached(3, "adam", rate=0.001) == "3-adam-0.001"
    assert len(CALLS) == 1
    assert cached.__doc__ == "Train a model."
    assert getattr(cached, "__name__", None) == "train"
    assert inspect.signature(cached) == inspect.signature(train)
    assert cached.config(3).infra.status() == "completed"
    assert cached.func is train
    assert "train" in repr(cached)


def test_a_decorated_function_validates_its_arguments(tmp_path: Path) -> None:
    cached = with_infra(folder=tmp_path)(train)
    with pytest.raises(pydantic.ValidationError):
        cached(layers="many")  # type: ignore[arg-type] # this is tested
    with pytest.raises(pydantic.ValidationError):
        cached(layers=1, typo=2)  # type: ignore[call-arg] # this is tested
    with pytest.raises(
        RuntimeError, match=r"train has its infra from with_infra: use exca\.helpers\.to_config"
    ):
        cached(1, infra={"mode": "force"})  # type: ignore[call-arg] # this is tested
    assert not CALLS


def test_an_infra_is_checked_where_it_is_written(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(pydantic.ValidationError, match="fold"):
        with_infra(fold="there")
    with pytest.raises(ValueError, match="self"):
        with_infra(folder=".")(Model.method)
    with caplog.at_level(logging.WARNING, "exca"):
        with_infra()
    assert "changes nothing" in caplog.text


MODULE = """
import os
import exca
from exca.helpers import with_infra

@with_infra(folder={folder!r}, cluster="local")
def double(value: int) -> tuple[int, int]:
    return 2 * value, os.getpid()

@with_infra(folder={folder!r}, cluster="local")
def deep(depth: int) -> int:
    return depth and 1 + deep.func(depth - 1)
"""

SCRIPT = """
import pickle
{imports}

if __name__ == "__main__":
    assert double(3) == double(value=3)
    assert double(3)[0] == 6 and double(3)[1] != os.getpid()
    assert deep(4) == 4
    if double.func.__module__ != "__main__":
        assert pickle.loads(pickle.dumps(double)) is double
        assert pickle.loads(pickle.dumps(double.config(3))).build() == double(3)
    print("fine")
"""


@pytest.mark.parametrize("place", ["script", "module"])
def test_decorated_functions_run_in_jobs(tmp_path: Path, place: str) -> None:
    """In a script its functions are sent to jobs by value, in a module by name."""
    module = MODULE.format(folder=str(tmp_path / "cache"))
    (tmp_path / "functions.py").write_text(module)
    imports = module if place == "script" else "import os\nfrom functions import deep, double"
    (tmp_path / "script.py").write_text(SCRIPT.format(imports=imports))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.stdout == "fine\n", done.stderr


# Arguments checked against a signature


def test_arguments_that_fit() -> None:
    validate_kwargs(train, {"layers": 3})
    validate_kwargs(train, {"layers": 3, "name": "x", "rate": 1})
    validate_kwargs(Model, {"width": 3})

    def many(
        items: tp.Sequence[int],
        path: Path = Path(),
        kind: tp.Literal["a", "b"] = "a",
        array: np.ndarray[tp.Any, tp.Any] | None = None,
        optional: int = None,  # type: ignore[assignment] # noqa: RUF013 # often written
        **others: str,
    ) -> None: ...

    validate_kwargs(
        many, {"items": [1], "path": "a/b", "kind": "b", "array": np.zeros(2), "optional": None, "x": "y"}
    )

    def untyped(a, b=2, *args, **kwargs): ...  # type: ignore[no-untyped-def] # noqa: ANN001, ANN002, ANN003, ANN202

    validate_kwargs(untyped, {"a": object(), "c": 12})


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"Missing .*'layers'"):
        validate_kwargs(train, {})
    with pytest.raises(ValueError, match=r"Extra .*'typo'.*available: 'layers', 'name', 'rate'"):
        validate_kwargs(train, {"layers": 1, "typo": 2})
    with pytest.raises(TypeError, match=r"Wrong type str for 'layers' of .*train: expected int, got '3'"):
        validate_kwargs(train, {"layers": "3"})
    with pytest.raises(TypeError, match="Wrong type int for 'name'"):
        validate_kwargs(train, {"layers": 1, "name": 3})
    with pytest.raises(TypeError, match="Wrong type str for 'width'"):
        validate_kwargs(Model, {"width": "a"})

    def typed(items: list[int] | None = None, model: Model | None = None, **others: int) -> None: ...

    for kwargs in ({"items": 3}, {"items": ["a"]}, {"model": 3}, {"others": "a"}):
        with pytest.raises(TypeError, match=next(iter(kwargs))):
            validate_kwargs(typed, kwargs)


def test_none_stands_for_an_argument_that_is_given_at_the_call() -> None:
    def optimize(parameters: list[float], rate: float, name: str | None = "x") -> None: ...

    validate_kwargs(optimize, {"parameters": None, "rate": 0.1})
    with pytest.raises(TypeError, match="Wrong type NoneType for 'rate'"):
        validate_kwargs(optimize, {"parameters": None, "rate": None})
    with pytest.raises(TypeError, match="Wrong type str for 'parameters'"):
        validate_kwargs(optimize, {"parameters": "abc", "rate": 0.1})


# Types


@pytest.mark.timeout(600)  # a whole run of mypy takes as long as the processor is shared
def test_type_checkers_see_through_the_helpers(tmp_path: Path) -> None:
    """The types of a decorated function are its own, and a wrong argument is refused."""
    (tmp_path / "user.py").write_text(
        textwrap.dedent(
            """
            import typing as tp
            from exca.helpers import to_config, to_config_model, with_infra

            def plain(layers: int, name: str = "x") -> float:
                return 1.0

            @with_infra(folder="cache")
            def cached(layers: int, name: str = "x") -> float:
                return 1.0

            tp.assert_type(cached(3, name="y"), float)
            tp.assert_type(cached.config(3).build(), float)
            tp.assert_type(to_config(plain, 3).build(), float)
            tp.assert_type(to_config(plain, 3, infra={"folder": "x"}).build(), float)
            tp.assert_type(to_config_model(plain)(layers=3).build(), float)
            tp.assert_type(to_config(plain, 3).infra.status() == "completed", bool)
            cached("many")  # wrong
            cached(3, typo=1)  # wrong
            to_config(plain, layers="many")  # wrong
            """
        )
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    lines = (tmp_path / "user.py").read_text().splitlines()
    wrong = [str(number) for number, line in enumerate(lines, 1) if line.endswith("# wrong")]
    assert re.findall(r"user\.py:(\d+): error", done.stdout) == wrong, done.stdout


# From a job back to its configuration


class Task(pydantic.BaseModel):
    value: int = 1
    parts: list[int] = []
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 2 * self.value


class Map(pydantic.BaseModel):
    factor: int = 1
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        for item in items:
            yield self.factor * item


def test_a_job_is_found_in_what_an_earlier_release_left(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "study.Task.run,0" / "value=3-3f9baebb"
    logs = folder.parent / "logs" / "someone" / "12_1"
    logs.mkdir(parents=True)
    folder.mkdir()
    (folder / "submitit").symlink_to(logs)
    (folder / "uid.yaml").write_text("value: 3\n")
    (folder / "config.yaml").write_text("value: 3\ninfra:\n  cluster: slurm\n")
    (logs / "12_1_0_log.out").write_text("said")
    for place in (tmp_path, tmp_path / "cache", folder.parent, folder):
        job = helpers.find_slurm_job(job_id="12_1", folder=place)
        assert job is not None
        assert job.uid_config == {"value": 3}
        assert job.config == {"value": 3, "infra": {"cluster": "slurm"}}
        assert job.stdout() == "said"
    assert helpers.find_slurm_job(job_id=12, folder=tmp_path) is None


def test_a_job_is_not_looked_for_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        helpers.find_slurm_job(job_id="12", folder=tmp_path / "nowhere")
    (tmp_path / "submission.json").write_text('{"clus')
    assert helpers.find_slurm_job(job_id="12", folder=tmp_path) is None
    with pytest.raises(ValueError, match="give the folder"):
        helpers.find_slurm_job(job_id="99999999")


def test_local_jobs_are_found(tmp_path: Path) -> None:
    infra: dict[str, tp.Any] = {"folder": tmp_path, "cluster": "local"}
    task = Task(value=3, infra=infra)  # type: ignore[arg-type] # validated by pydantic
    single = task.infra.job()
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj({"value": value}) for value in (5, 6))
    assert list(Map(factor=3, infra={**infra, "max_jobs": 1}).run([1, 2])) == [3, 6]  # type: ignore[arg-type] # as above
    (mapped,) = tmp_path.rglob("*Map.run,0/logs/*/*/*_submitted.pkl")
    for job_id, uid_config in (
        (single.job_id, {"value": 3}),
        (array[-1].infra.job().job_id, {"value": 6}),
        (mapped.name.partition("_")[0], {"factor": 3}),
    ):
        found = helpers.find_slurm_job(job_id=job_id, folder=tmp_path)
        assert found is not None
        assert (found.cluster, found.job_id, found.uid_config) == ("local", job_id, uid_config)
        assert found.config["infra.cluster"] == "local"
        assert found.wait(60)
        assert found.state == "COMPLETED"
        assert found.stdout() == ""
    job = helpers.find_slurm_job(job_id=single.job_id, folder=task.infra.uid_folder())
    assert job is not None
    assert job.result() == single.result() == 6


def test_of_a_job_that_holds_several_tasks_one_is_found_by_its_number(tmp_path: Path) -> None:
    infra: dict[str, tp.Any] = {"folder": tmp_path, "cluster": "local", "tasks_per_job": 3}
    task = Task(value=3, infra=infra)  # type: ignore[arg-type] # validated by pydantic
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj({"value": value}) for value in (5, 6, 7, 8))
    job_id, last = array[0].infra.job().job_id, array[3].infra.job().job_id
    for number, value in enumerate((5, 6, 7)):
        found = helpers.find_slurm_job(job_id=job_id, folder=tmp_path, task=number)
        assert found is not None
        assert (found.uid_config, found.result()) == ({"value": value}, 2 * value)
    names = r"\(0: .*Task\.run,0/value=5-.*, 1: .*value=6-.*, 2: .*value=7-"
    with pytest.raises(ValueError, match=rf"holds 3 tasks: say which one is meant by task=<number> {names}"):
        helpers.find_slurm_job(job_id=job_id, folder=tmp_path)
    with pytest.raises(ValueError, match="holds 3 tasks, and none with the number 3 is found: say which"):
        helpers.find_slurm_job(job_id=job_id, folder=tmp_path, task=3)
    with pytest.raises(ValueError, match="holds a single task: leave out task=1"):
        helpers.find_slurm_job(job_id=last, folder=tmp_path, task=1)
    alone = helpers.find_slurm_job(job_id=last, folder=tmp_path)
    assert alone is not None
    assert alone.uid_config == {"value": 8}
    for member in array:  # as where they were submitted again since
        folder = member.infra.uid_folder()
        assert folder is not None
        (folder / "submission.json").unlink()
        (folder / "submitit").unlink()
    found = helpers.find_slurm_job(job_id=job_id, folder=tmp_path, task=2)
    assert found is not None
    assert (found.uid_config, found.result()) == ({"value": 7}, 14)


def test_local_jobs_of_an_earlier_release_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "study.Task.run,0" / "value=3-3f9baebb"
    logs = folder.parent / "logs" / "someone" / "4711"
    logs.mkdir(parents=True)
    folder.mkdir()
    (folder / "submitit").symlink_to(logs)
    (logs / "4711_0_log.out").write_text("said")
    job = helpers.find_slurm_job(job_id=4711, folder=tmp_path)
    assert job is not None
    assert (job.cluster, job.stdout()) == (
        "local",
        "said",
    )  # never asked of a Slurm that counts up to that id
    (logs / "4711_submission.sh").touch()
    job = helpers.find_slurm_job(job_id=4711, folder=tmp_path)
    assert job is not None
    assert job.cluster == "slurm"


@pytest.mark.slurm
def test_slurm_jobs_are_found(tmp_path: Path) -> None:
    infra: dict[str, tp.Any] = {"folder": tmp_path, "cluster": "slurm"}
    task = Task(value=3, infra=infra)  # type: ignore[arg-type] # validated by pydantic
    single = task.infra.job()
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj({"value": value, "parts": [value]}) for value in (5, 6))
    last = array[-1].infra.job()
    for folder in (tmp_path, None):
        found = helpers.find_slurm_job(job_id=single.job_id, folder=folder)
        assert found is not None
        assert found.uid_config == {"value": 3}
        assert found.config["infra.cluster"] == "slurm"
        assert found.result() == 6
        assert found.job_id == single.job_id
        found = helpers.find_slurm_job(job_id=last.job_id, folder=folder)
        assert found is not None
        assert found.uid_config == {"value": 6, "parts": [6]}
        assert found.result() == last.result() == 12
        assert found.state == "COMPLETED"
        assert found.paths.stdout.exists()
    assert helpers.find_slurm_job(job_id="99999999", folder=tmp_path) is None


@pytest.mark.slurm
def test_slurm_jobs_of_a_map_are_found(tmp_path: Path) -> None:
    infra: dict[str, tp.Any] = {"folder": tmp_path, "cluster": "slurm", "max_jobs": 2}
    assert list(Map(factor=3, infra=infra).run([1, 2, 3])) == [3, 6, 9]  # type: ignore[arg-type] # as above
    ids = {path.name.split("_submitted")[0] for path in tmp_path.rglob("*_submitted.pkl")}
    assert len(ids) >= 2
    for job_id in ids:
        found = helpers.find_slurm_job(job_id=job_id, folder=tmp_path)
        assert found is not None
        assert found.uid_config == {"factor": 3}


def test_what_pydantic_validates_as_it_is_taken_is_a_list(tmp_path: Path) -> None:
    """A parameter that is an Iterable has the address that `exca.cached` gives it, and both read one result."""

    def total(xs: tp.Iterable[int], more: tp.Iterable[int] | None = (1, 2)) -> tuple[int, int]:
        return sum(xs), sum(more or ())

    decorated = helpers.with_infra(folder=tmp_path)(total)
    cached = exca.cached(folder=tmp_path)(total)
    for _ in range(2):
        assert decorated([1, "2"]) == decorated((1, 2)) == (3, 3)  # type: ignore[list-item] # validated by pydantic
        assert decorated(xs={1: "a", 2: "b"}, more=[1, 2]) == (3, 3)
        assert decorated([1, 2], more=None) == (3, 0)
    assert cached([1, 2]) == (3, 3)
    assert len(list(tmp_path.rglob("job.json"))) == 2
    assert decorated.config([1, 2]).infra.uid() == cached.infra_of([1, 2]).uid()
    assert decorated.config([1, 2]).infra.uid().endswith(",1/xs=(1,2)-ad6e546b")
    with pytest.raises(pydantic.ValidationError, match="valid integer"):
        decorated(["a"])  # type: ignore[list-item] # on purpose
    assert helpers.to_config(total, [1, 2]).build() == (3, 3)


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_dir())


def test_folders_of_the_first_releases_are_renamed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The names are those that the first releases gave, recorded with 0.6.0 and `version=2`."""
    names: dict[str, dict[str, tp.Any]] = {
        "a=1,b=[1,2]-c51d237c": {"a": 1, "b": [1, 2]},
        "x.y=z-fbade9e3": {"x": {"y": "z"}},
        "q=1-c4ca4238": {"q": 1},
        "q=1-aad092a1": {"q": 1},
        "weird-12345678": {"q": 1},
        "default": {},
    }
    for name, config in names.items():
        (tmp_path / "mod.Cls.method,0" / name).mkdir(parents=True)
        exca.ConfDict(config).to_yaml(tmp_path / "mod.Cls.method,0" / name / "uid.yaml")
    (tmp_path / "mod.Cls.method,0" / "broken").mkdir()
    (tmp_path / "mod.Cls.method,0" / "broken" / "uid.yaml").write_text("- 1\n")
    before = folders(tmp_path)
    with pytest.warns(DeprecationWarning, match="update_uids is deprecated"):
        helpers.update_uids(tmp_path)
    assert folders(tmp_path) == before
    assert re.search(r"Renaming .* to a=1,b=\(1,2\)-382efec6 \(dry run\)", caplog.text)
    with pytest.warns(DeprecationWarning, match="update_uids is deprecated"):
        helpers.update_uids(str(tmp_path), dryrun=False)
    renamed = {"a=1,b=[1,2]-c51d237c": "a=1,b=(1,2)-382efec6", "x.y=z-fbade9e3": "x.y=z-54304efd"}
    assert folders(tmp_path) == sorted(renamed.get(name, name) for name in before)
    assert "q=1-aad092a1 is there already" in caplog.text
    assert "broken" in caplog.text
    with (
        pytest.raises(FileNotFoundError, match="nowhere"),
        pytest.warns(DeprecationWarning, match="update_uids is deprecated"),
    ):
        helpers.update_uids(tmp_path / "nowhere")
