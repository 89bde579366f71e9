"""What users of joblib, submitit and hydra write at first: the error has what to write instead, and that works."""

import functools
import typing as tp
from pathlib import Path

import pydantic
import pytest

import exca
from exca.cli import commandline
from exca.errors import ResultError


def double(x: int) -> int:
    return 2 * x


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "check_call_in_cache",
            r"'CachedFunction' object has no attribute 'check_call_in_cache', which is a ",
        ),
        ("check_call_in_cache", r"which is a name of joblib: write bool\(f\.why\(\.\.\.\)\)"),
        ("call_and_shelve", r"f\.submit\(\.\.\.\), whose result\(\) returns the result"),
        ("clear", r"for call in f\.iter_cached\(\): call\.infra\.clear\(\)"),
        ("call", r"f\.using\(mode='force'\)\(\.\.\.\)"),
        ("store_backend", r"f\.infra_of\(\.\.\.\)\.uid_folder\(\)"),
        ("anything_else", "^'CachedFunction' object has no attribute 'anything_else'$"),
    ],
)
def test_names_of_joblib_on_a_cached_function(tmp_path: Path, name: str, words: str) -> None:
    f: tp.Any = exca.cached(folder=tmp_path)(double)
    with pytest.raises(AttributeError, match=words):
        getattr(f, name)
    assert not hasattr(f, name)


def test_what_the_errors_of_a_cached_function_advise_works(tmp_path: Path) -> None:
    f = exca.cached(folder=tmp_path)(double)
    assert not bool(f.why(3))
    assert f.submit(3).result() == 6
    assert bool(f.why(3))
    assert f.using(mode="force")(3) == f.func(3) == 6
    for call in f.iter_cached():
        call.infra.clear()
    assert not list(f.iter_cached())


def test_names_of_joblib_on_a_mapped_function(tmp_path: Path) -> None:
    f: tp.Any = exca.map_cached(folder=tmp_path)(double)
    assert list(f.map([3])) == [6]
    with pytest.raises(AttributeError, match=r"joblib: write f\.infra_of\(\.\.\.\)\.clear\(\)$"):
        f.clear()
    with pytest.raises(AttributeError, match=r"write bool\(exca\.why\(f\.infra_of\(\.\.\.\), item\)\)"):
        f.check_call_in_cache(3)
    assert bool(exca.why(f.infra_of(), 3))
    f.infra_of().clear()
    assert not exca.why(f.infra_of(), 3)


def test_names_of_joblib_on_a_memory(tmp_path: Path) -> None:
    memory: tp.Any = exca.cached(folder=tmp_path)
    with pytest.raises(
        AttributeError, match=r"'cached' object has no attribute 'reduce_size'.*exca gc -C FOLDER"
    ):
        memory.reduce_size(bytes_limit="1G")
    with pytest.raises(AttributeError, match="each function has its own results"):
        memory.clear()
    assert memory.infra["folder"] == tmp_path  # instead of `location`


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("update_parameters", r"submitit: give the parameters to exca\.Executor\("),
        ("map_array", r"write executor\.map\(f, xs\)"),
        ("batch", "leave the with block out"),
    ],
)
def test_names_of_submitit_on_an_executor_and_its_futures_and_jobs(
    tmp_path: Path, name: str, words: str
) -> None:
    executor: tp.Any = exca.Executor(tmp_path)
    with pytest.raises(AttributeError, match=words):
        getattr(executor, name)
    future = executor.submit(double, 3)
    with pytest.raises(AttributeError, match=r"'JobFuture' .* 'stdout', .*write future\.job\.stdout\(\)"):
        future.stdout()
    with pytest.raises(AttributeError, match=r"write await job$"):
        future.job.awaitable()
    assert future.job.results() == [6]  # instead of `task(0).result()`


def test_methods_that_other_decorators_made_into_something_else() -> None:
    anything: tp.Any = exca.TaskInfra().apply
    with pytest.raises(TypeError, match=r"double, which is a property: write @property above @infra\.apply"):
        anything(property(double))
    with pytest.raises(TypeError, match="which is a cached_property: leave @functools"):
        anything(functools.cached_property(double))
    with pytest.raises(TypeError, match="which is a classmethod: a class method has no object whose fields"):
        anything(classmethod(tp.cast(tp.Any, double)))
    mapped: tp.Any = exca.MapInfra().apply(item_uid=str)
    with pytest.raises(TypeError, match=r"MapInfra cannot be applied to .*double, which is a property"):
        mapped(property(double))


class Mapped(pydantic.BaseModel):
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def double(self, xs: tp.Iterable[int]) -> tp.Iterator[int]:
        for x in xs:
            yield 2 * x


def test_one_item_in_the_place_of_items() -> None:
    one: tp.Any = 3
    with pytest.raises(
        TypeError, match=r"double\(\) takes an iterable of items, and got 3: write \[3\] for one"
    ):
        Mapped().double(one)
    assert list(Mapped().double([3])) == [6]


def test_a_generator_as_a_result(tmp_path: Path) -> None:
    def generate(n: int) -> tp.Any:
        return (k for k in range(n))

    with pytest.raises(ResultError, match=r"\.register\(default_for=\.\.\.\)\. Otherwise, return plain data"):
        exca.cached(folder=tmp_path)(generate)(3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--multirun", "rate=1,2"], "--multirun is an option of hydra: give a field several values"),
        (["-m", "rate=1,2"], "-m is an option of hydra: give a field several values"),
        (["--cfg", "job"], "--cfg is an option of hydra: use --dry-run"),
        (["--config-path=conf"], "--config-path is an option of hydra: give the YAML file as an argument"),
        (["--epochs", "3"], "to set a field, write it without dashes: epochs=VALUE"),
        (["--batch-size=3"], "to set a field, write it without dashes: batch_size=3"),
    ],
)
def test_options_of_hydra(given: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        commandline.main(["run", "train:Train", *given])
    assert words in capsys.readouterr().err


class Broken(exca.cached):
    """A decorator of a user's own, with a mistake."""

    @property
    def state(self) -> str:
        return str(tp.cast(tp.Any, self).missing)


def test_one_item_of_a_mapped_function(tmp_path: Path) -> None:
    f: tp.Any = exca.map_cached(folder=tmp_path)(double)
    with pytest.raises(
        TypeError, match=r"map\(\) takes an iterable of items, and got 3: write \[3\] for one item"
    ):
        f.map(3)


def test_an_error_within_a_property_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match=r"^'Broken' object has no attribute 'missing'$"):
        getattr(Broken(folder=tmp_path), "state")  # noqa: B009 # the expression alone would be useless


def test_a_job_array_without_with(tmp_path: Path) -> None:
    f: tp.Any = exca.cached(folder=tmp_path)(double)
    for each in (f, f.infra_of(3)):
        words = r"job_array\(\) submits at the end of a `with` block, and has no 'append' outside of one: write `with"
        with pytest.raises(AttributeError, match=words):
            each.job_array().append(3)
    with f.job_array() as calls:
        calls.append(3)
    assert [call.build() for call in calls] == [6]


def test_a_generator_is_not_reported_as_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    f: tp.Any = exca.cached(folder=tmp_path)(numbers)
    with pytest.raises(ResultError, match=r"a generator.*cannot be pickled"):
        f(3)
    assert "stored as pickles" not in caplog.text


def numbers(x: int) -> tp.Iterator[int]:
    return (k for k in range(x))
