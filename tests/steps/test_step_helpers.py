"""Func, Parallel and Scatter."""

import functools
import os
import typing as tp
from pathlib import Path

import pydantic
import pytest

import pipeline_steps as pieces
from exca import steps
from exca.steps import backends
from exca.steps.conftest import extract_cache_folders
from exca.steps.helpers import Func, Parallel
from exca.steps.patterns import BranchResult, Scatter
from exca.steps.pipeline import pipeline_of
from pipeline_steps import Fails, Noted, Numbers, Plus, Times, note, noted

# ------------------------------------------------------------------ Func


def add(x: int, y: int = 2) -> int:
    return x + y


def three(x: int, y: int, z: int = 3) -> int:
    return x + 10 * y + 100 * z


def nothing_required(n: int = 3) -> int:
    return n


def own_words(infra: int, input_param: int = 3, type: str = "") -> int:
    return infra


def any_names(x: int, **others: int) -> dict[str, int]:
    return {"x": x, **others}


def test_a_function_is_a_step() -> None:
    assert Func(function=add).run(3) == 5
    assert Func(function=add, y=5).run(3) == 8
    assert Func(function="textwrap.shorten", input_param="text", width=8).run("some text/x") == "[...]"
    assert Func(function="math.sqrt").run(4) == 2
    assert Func(function="builtins.len").run("abc") == 3
    assert Func(function=any_names, a=1).run(2) == {"x": 2, "a": 1}
    assert steps.Chain(steps=[{"type": "Func", "function": "math.sqrt"}, Plus()]).run(4) == 3


def test_one_parameter_gets_the_input() -> None:
    assert Func(function=three, y=2).run(1) == 321
    assert Func(function=three, input_param="z", x=1, y=2).run(4) == 421
    assert Func(function=nothing_required).run() == 3
    assert Func(function=nothing_required, input_param="n").run(5) == 5
    with pytest.raises(TypeError, match="takes no input"):
        Func(function=nothing_required).run(5)


def two_optional(a: int = 1, b: int = 2) -> tuple[int, int]:
    return a, b


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"function": three}, "requires x, y, but a step has one input"),
        ({"function": three, "input_param": "z"}, "requires x, y"),
        ({"function": add, "blu": 1}, "has no parameter 'blu': its parameters are x, y"),
        ({"function": add, "input_param": "q"}, "has no parameter 'q' to be input_param"),
        ({"function": add, "input_param": "x", "x": 1}, "cannot have a fixed value as well"),
        ({"function": add, "y": "abc"}, r"y='abc' does not fit .*add: Input should be a valid integer"),
        ({"function": "textwrap.nothing"}, "textwrap.nothing"),
        ({"function": 3}, "callable"),
        ({"function": functools.partial(add, y=1)}, "has no name by which it could be found again"),
        (
            {"function": own_words},
            r"own_words has the parameter\(s\) infra, input_param, which no value can be given",
        ),
    ],
)
def test_a_function_is_checked_against_its_signature(fields: dict[str, tp.Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        Func(**fields)


def test_the_input_parameter_counts_only_where_it_does_not_go_without_saying(tmp_path: Path) -> None:
    infra = {"backend": "Cached", "folder": tmp_path}
    assert (
        Func(function=add, infra=infra).lookup(1).paths
        == Func(function=add, input_param="x", infra=infra).lookup(1).paths
    )
    first = Func(function=nothing_required, input_param="n", infra=infra)
    assert first.lookup(1).paths == Func(function=nothing_required, infra=infra).lookup().paths
    assert first.lookup(1).uid != Func(function=nothing_required, infra=infra).lookup().uid
    by_first, by_second, by_fixed = (
        Func(function=two_optional, infra=infra, **told)
        for told in ({"input_param": "a"}, {"input_param": "b"}, {"input_param": "b", "a": 3})
    )
    assert [step.run(5) for step in (by_first, by_second, by_fixed)] == [(5, 2), (1, 5), (3, 5)]
    assert by_first.lookup(5).paths != by_second.lookup(5).paths
    assert "input_param" not in by_fixed.lookup(5).paths.step_uid


def test_values_are_what_the_annotations_say_whatever_they_are_written_as(tmp_path: Path) -> None:
    infra = {"backend": "Cached", "folder": tmp_path}
    written = Func(function=add, y="5", infra=infra)
    assert written.run(1) == 6
    assert Func(function=add, y=5, infra=infra).lookup(1).status == "success"


def test_a_lambda_runs_but_is_not_cached(tmp_path: Path) -> None:
    assert Func(function=lambda x: x + 1).run(1) == 2
    with pytest.raises(ValueError, match="no name by which its results could be known"):
        Func(function=lambda x: x + 1, infra={"backend": "Cached", "folder": tmp_path}).run(1)


# ------------------------------------------------------------------ Parallel


# submitit's debug jobs leave their log files open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("backend", ["Cached", "ThreadPool", "SubmititDebug"])
def test_variants_run_over_the_same_items_each_under_its_own_address(backend: str, tmp_path: Path) -> None:
    variants = [Noted(notes=tmp_path / "notes", name=f"v{k}-") for k in range(3)]
    sweep = Parallel(steps=variants, infra={"backend": backend, "folder": tmp_path / "cache"})
    assert sweep.run_many([1, 2, 1]) == [None] * 3
    assert noted(tmp_path / "notes") == [f"v{k}-{x}" for k in range(3) for x in (1, 2)]
    assert [step.lookup(2).result() for step in sweep.steps] == [3, 3, 3]
    assert len(extract_cache_folders(tmp_path / "cache")) == 3
    assert sweep.run(2) is None  # type: ignore[func-returns-value] # that is what it says
    assert len(noted(tmp_path / "notes")) == 6
    assert all(step.infra is None for step in variants)


def test_variants_are_sent_off_in_one_submission(tmp_path: Path) -> None:
    infra = {"backend": "LocalProcess", "folder": tmp_path / "cache", "max_jobs": 4}
    parts: list[tp.Any] = [Noted(notes=tmp_path / "notes", name=f"v{k}-") for k in range(2)]
    sweep = Parallel(steps=[*parts, [Plus(), Times()]], infra=infra)
    list(sweep.run_many([1, 2, 3]))
    assert len(noted(tmp_path / "notes")) == 6
    jobs = [step.lookup(1).job() for step in sweep.steps]
    ids = {job.job_id.partition("_")[0] for job in jobs if job is not None}
    assert len(ids) == 1
    assert len(jobs) == 3
    assert sweep.steps[2].lookup(3).result() == 8


def test_an_error_of_one_variant_leaves_the_others_their_results(tmp_path: Path) -> None:
    for backend in ("Cached", "ThreadPool"):
        sweep = Parallel(steps=[Fails(), Plus()], infra={"backend": backend, "folder": tmp_path / backend})
        with pytest.raises(ArithmeticError, match="below zero"):
            sweep.run(-1)
        assert [step.lookup(-1).status for step in sweep.steps] == ["error", "success"]


def test_a_parallel_takes_the_infra_that_its_steps_have_in_common(tmp_path: Path) -> None:
    whole = {"backend": "ThreadPool", "folder": tmp_path, "max_jobs": 2}
    without = {"backend": "ThreadPool", "max_jobs": 2}
    sweep = Parallel(
        steps=[Plus(infra=without), Plus(value=2, infra=whole), Plus(value=3), [Plus(), Plus(infra="Cached")]]
    )
    assert sweep.infra == backends.ThreadPool(folder=tmp_path, max_jobs=2)
    assert [step.infra for step in sweep.steps] == [sweep.infra] * 4
    assert sweep.steps[3][1].infra == backends.Cached(folder=tmp_path)
    sweep.run(1)
    assert [step.lookup(1).result() for step in sweep.steps] == [2, 3, 4, 3]
    two = [Plus(infra=whole), Plus(value=2, infra={"folder": tmp_path})]
    assert Parallel(steps=two).infra is None
    with pytest.raises(pydantic.ValidationError, match=r"variant 2, Plus, has no infra, .* in common"):
        Parallel(steps=[*two, Plus(value=3)])


def test_a_parallel_gives_no_output_and_stands_alone(tmp_path: Path) -> None:
    sweep = Parallel(steps=[Plus()], infra={"backend": "Cached", "folder": tmp_path})
    with pytest.raises(pydantic.ValidationError, match="gives no output and cannot be part of a chain"):
        steps.Chain(steps=[Plus(), sweep])
    with pytest.raises(pydantic.ValidationError, match="has no infra, so its results would be lost"):
        Parallel(steps=[Plus()])
    with pytest.raises(
        pydantic.ValidationError, match="variant 1 is a Parallel, which gives no output of its own"
    ):
        Parallel(steps=[Plus(), sweep], infra={"backend": "Cached", "folder": tmp_path})
    with pytest.raises(TypeError, match="look a variant up"):
        sweep.lookup(1)
    assert "Parallel" in sweep.show(1)
    assert sweep.plan([1]).compute == 1
    generators = Parallel(steps=[Numbers(), Numbers(size=2)], infra={"backend": "Cached", "folder": tmp_path})
    generators.run()
    assert generators.steps[1].lookup().result() == [0, 1]


# ------------------------------------------------------------------ Scatter


class Split(Scatter):
    body: steps.Step
    extra: int = 0
    notes: Path | None = None

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return [*super()._exclude_from_cls_uid(), "notes"]

    def branches(self, item: list[float]) -> list[int]:
        return list(range(len(item)))

    def take(self, item: list[float], branch: int) -> float:
        if self.notes is not None:
            note(self.notes, f"take{branch}")
        return item[branch]


def test_an_item_is_fanned_out_and_gathered() -> None:
    class Summed(Split):
        def gather(self, results: list[BranchResult]) -> float:
            assert type(results) is list
            return float(sum(result for _, result in results))

    assert Split(body=Plus()).run([5, 6]) == {0: 6, 1: 7}
    assert list(Summed(body=steps.Chain(steps=[Plus(), Times()])).run_many([[1, 2], [3]])) == [10, 8]
    assert steps.Chain(steps=[Numbers(), Summed(body=Plus())]).run() == 6
    assert list(
        steps.Chain(steps=[Split(body=Plus()), Func(function="builtins.len")]).run_many(iter([[1], [1, 2]]))
    ) == [1, 2]
    assert BranchResult(1, 2)._asdict() == {"branch": 1, "result": 2}


class Source(Scatter):
    """A generator that scatters."""

    body: steps.Step
    alone: bool = True

    def branches(self, item: tp.Any) -> list[dict[str, int]]:
        assert item is steps.NO_INPUT
        return [{"run": 1}, {"run": 2}]

    def take(self, item: tp.Any, branch: dict[str, int]) -> int:
        return branch["run"]

    def gather(self, results: list[BranchResult]) -> list[tp.Any]:
        return [result.result for result in results]

    def _branch_excludes(self) -> list[str]:
        return [self._INPUT] if self.alone else []


def test_a_scatter_runs_without_a_value(tmp_path: Path) -> None:
    infra = {"folder": tmp_path}
    assert Source(body=Plus()).run() == [2, 3]
    chain = steps.Chain(
        steps=[Source(body=Plus(infra="Cached"), infra="Cached"), Func(function="builtins.sum")], infra=infra
    )
    for _ in range(2):
        assert chain.run() == 5
    assert chain.plan().compute == 0
    assert [stage.status for stage in chain.lookup().stages] == ["success", "success"]

    class Gathered(Source):
        def gather(self, results: list[BranchResult]) -> tp.Any:
            return super(Source, self).gather(results)

    with pytest.raises(
        TypeError, match=r"branches of Gathered, such as \{'run': 1\}, cannot be the keys of a dict"
    ):
        Gathered(body=Plus()).run()


def test_an_item_without_branches_is_an_error(tmp_path: Path) -> None:
    for infra in (None, {"folder": tmp_path}):
        with pytest.raises(ValueError, match=r"Split\.branches gave no branches for the item '-be09ad65'"):
            Split(body=Plus(infra=infra)).run([])


@pytest.mark.parametrize("backend", ["Cached", "ThreadPool"])
def test_each_branch_is_cached_by_itself(backend: str, tmp_path: Path) -> None:
    def split() -> Split:
        notes = tmp_path / "notes"
        return Split(
            body=Noted(notes=notes, infra={"backend": backend, "folder": tmp_path / "c"}), notes=notes
        )

    assert list(split().run_many([[1, 2], [3]])) == [{0: 2, 1: 3}, {0: 4}]
    assert noted(tmp_path / "notes") == ["1", "2", "3", "take0", "take0", "take1"]
    assert split().run([1, 2]) == {0: 2, 1: 3}
    assert len(noted(tmp_path / "notes")) == 6
    assert len(extract_cache_folders(tmp_path / "c")) == 1


def test_branches_lie_below_the_scatter_under_the_keys_of_item_and_branch(tmp_path: Path) -> None:
    class AloneInput(Split):
        def _branch_excludes(self) -> list[str]:
            return [self._INPUT, "extra"]

    class AloneUpstream(Split):
        def _branch_excludes(self) -> list[str]:
            return [self._UPSTREAM]

    def keys(cls: type[Split]) -> tuple[str, list[str]]:
        folder = tmp_path / cls.__name__
        chain = steps.Chain(steps=[Numbers(size=2), cls(extra=4, body=Plus(infra="Cached"))])
        steps.Chain(steps=chain.step_list, infra={"backend": "Cached", "folder": folder}).run()
        place = next(
            name for name in extract_cache_folders(folder) if name.split("/")[-1].startswith("type=Plus")
        )
        return place, sorted(
            line.split('"#key":"')[1].split('"')[0]
            for line in next((folder / place).glob("cache/*-info.jsonl")).read_text().splitlines()
        )

    place, found = keys(Split)
    assert place.startswith("size=2,type=Numbers-")
    assert "extra=4" in place.split("/")[1]
    assert found == ["__exca_no_input__/0-7ab85130", "__exca_no_input__/1-8a754ff2"]
    place, found = keys(AloneInput)
    assert "extra" not in place
    assert all("/" not in key for key in found)
    place, _ = keys(AloneUpstream)
    assert place.count("/") == 1


def test_clearing_an_item_clears_its_branches(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    chain = steps.Chain(
        steps=[Split(body=Noted(notes=notes, infra="Cached"))],
        infra={"backend": "Cached", "folder": tmp_path},
    )
    chain.run([1, 2])
    chain.lookup([1, 2]).clear_cache()
    chain.run([1, 2])
    assert noted(notes) == ["1", "1", "2", "2"]


@pytest.mark.parametrize("alone", [True, False])
def test_clearing_takes_branches_of_branches_and_errors_too(alone: bool, tmp_path: Path) -> None:
    class Excluding(Split):
        def _branch_excludes(self) -> list[str]:
            return [self._INPUT] if alone else []

    def nested() -> Excluding:
        infra = {"folder": tmp_path}
        return Excluding(
            body=Split(body=steps.Chain(steps=[Fails(infra="Cached"), Plus(infra="Cached")]), infra="Cached"),
            infra=infra,
        )

    with pytest.raises(ArithmeticError):
        nested().run([[5], [-6]])
    nested().lookup([[5], [-6]]).clear_cache()
    nested().run([[1, 2], [3]])
    nested().run([[4]])
    nested().lookup([[1, 2], [3]]).clear_cache()
    assert nested().lookup([[4]]).status == "success"
    (outer,) = pipeline_of(nested()).stages[0].inner.uncached
    body = outer.step.branch_pipeline(outer)  # type: ignore[attr-defined] # of a Scatter
    (inner,) = body.stages[0].inner.uncached
    stages = [*body.all_stages(), *inner.step.branch_pipeline(inner).all_stages()]
    left = [key for stage in stages for key in stage.store.known()]
    begin = nested().lookup([[4]]).uid
    assert left == ([] if alone else [f"{begin}/0-7ab85130", *[f"{begin}/0-7ab85130/0-7ab85130"] * 2])


@pytest.mark.parametrize("mode", ["force", "retry"])
@pytest.mark.parametrize("place", ["body", "scatter"])
def test_a_mode_of_a_scatter_or_of_its_body_reaches_the_branches(
    mode: str, place: str, tmp_path: Path
) -> None:
    notes, allowed = tmp_path / "notes", tmp_path / "allowed"

    def scatter(**modes: str) -> Split:
        infra = {place: {"folder": tmp_path / "c", "mode": mode} for place, mode in modes.items()}
        body = steps.Chain(
            steps=[Noted(notes=notes, infra={"folder": tmp_path / "c"}), Fails(allowed=allowed)],
            infra=infra["body"],
        )
        return Split(body=body, infra=infra["scatter"])

    cached = {"body": "cached", "scatter": "cached"}
    with pytest.raises(ArithmeticError):
        scatter(**cached).run([1, -3])
    allowed.touch()
    with pytest.raises(ArithmeticError):
        scatter(**cached).run([1, -3])
    again = scatter(**{**cached, place: mode})
    for _ in range(2):
        assert again.run([1, -3]) == {0: 2, 1: -2}
    assert noted(notes) == (["-3", "1"] if mode == "retry" else ["-3", "-3", "1", "1"])
    again.run([7])
    assert noted(notes).count("7") == 1


def test_force_before_a_scatter_reaches_its_branches_once(tmp_path: Path) -> None:
    notes = tmp_path / "notes"

    def chain(mode: str) -> steps.Chain:
        infra = {"backend": "Cached", "folder": tmp_path, "mode": mode}
        return steps.Chain(steps=[Split(body=Noted(notes=notes, infra={"backend": "Cached"}))], infra=infra)

    chain("cached").run([1, 2])
    forced = chain("force")
    forced.run([1, 2])
    forced.run([1, 2])
    assert noted(notes) == ["1", "1", "2", "2"]


def test_a_scatter_has_exactly_one_body(tmp_path: Path) -> None:
    class Two(Split):
        other: steps.Step

    class None_(Scatter):
        def branches(self, item: tp.Any) -> list[int]:
            return []

    class Chosen(Two):
        def _body(self) -> steps.Step:
            return self.other

    with pytest.raises(
        pydantic.ValidationError,
        match=r"exactly one field that holds a step, the body, but has \['body', 'other'\]",
    ):
        Two(body=Plus(), other=Times())
    with pytest.raises(pydantic.ValidationError, match=r"has \[\]"):
        None_()
    assert Chosen(body=Plus(), other=Times()).run([3]) == {0: 6}

    class Unsaid(Scatter):
        body: steps.Step

    with pytest.raises(NotImplementedError, match="does not define the branches of an item"):
        Unsaid(body=pieces.Plus()).run(1)

    class Untaken(Unsaid):
        def branches(self, item: tp.Any) -> list[int]:
            return [0]

    with pytest.raises(NotImplementedError, match="does not define the input of a branch"):
        Untaken(body=pieces.Plus()).run(1)
    alone = Parallel(steps=[pieces.Plus(infra={"backend": "Cached", "folder": tmp_path})])
    with pytest.raises(pydantic.ValidationError, match="gives no output and cannot be the body of Untaken"):
        Untaken(body=alone)


class Around(Scatter):
    """Adds the results for a number and the next one."""

    body: steps.Step = Plus(value=1)

    def branches(self, item: int) -> list[int]:
        return [0, 1]

    def take(self, item: int, branch: int) -> int:
        return item + branch

    def gather(self, results: list[BranchResult]) -> int:
        return sum(result.result for result in results)


@pytest.mark.parametrize("cached", [False, True])
def test_scatters_follow_one_another(cached: bool, tmp_path: Path) -> None:
    infra = {"backend": "Cached", "folder": tmp_path} if cached else None
    chain = steps.Chain(steps=[Around(), Plus(value=0), Around(), Around()], infra=infra)
    one = Around()
    expected = [one.run(one.run(one.run(value))) for value in range(3)]
    assert [chain.run(value) for value in range(3)] == expected
    assert list(chain.run_many(range(3))) == expected


class Kept(steps.Step):
    def _run(self, value: tp.Any) -> tp.Any:
        return value


class TakenThere(Scatter):
    """Says in which process each branch was taken apart, and with which state."""

    body: steps.Step = Kept()
    mark: str = "m"

    def branches(self, item: tp.Any) -> list[int]:
        return [0, 1]

    def take(self, item: tp.Any, branch: int) -> tuple[int, str, tp.Any]:
        return os.getpid(), self.mark, item[branch]


@pytest.mark.parametrize("backend", ["ProcessPool", "LocalProcess"])
def test_branches_are_taken_where_the_body_runs(tmp_path: Path, backend: str) -> None:
    body = Kept(infra={"backend": backend, "folder": tmp_path})
    results = TakenThere(body=body, mark="x").run(["a", "b"])
    assert {branch: result[1:] for branch, result in results.items()} == {0: ("x", "a"), 1: ("x", "b")}
    assert os.getpid() not in {result[0] for result in results.values()}


def test_branches_of_a_body_in_this_process_are_taken_here(tmp_path: Path) -> None:
    for backend in ("Cached", "ThreadPool"):
        body = Kept(infra={"backend": backend, "folder": tmp_path / backend})
        results = TakenThere(body=body).run(["a", "b"])
        assert {result[0] for result in results.values()} == {os.getpid()}
