"""What can stand where a step is expected, and what is said where it cannot."""

import copy
import pickle
import typing as tp
from collections import OrderedDict
from pathlib import Path

import pydantic
import pytest

import pipeline_steps as pieces
from exca import steps
from exca.steps import backends
from exca.steps.pipeline import steps_within
from pipeline_steps import Holder, Named, NamedChain, NamedHolder, Numbers, Plus, Sub, Times


def held(value: tp.Any) -> steps.Step:
    step: steps.Step = Holder(step=value).step
    return step


def test_instances_dicts_and_names_become_steps() -> None:
    step = Plus(value=3)
    assert held(step) is step
    assert held({"type": "Plus", "value": 3}) == step
    assert held("Numbers") == Numbers()


@pytest.mark.parametrize("kind", [list, tuple])
def test_sequences_become_chains(kind: type) -> None:
    chain = held(kind(["Numbers", {"type": "Plus"}]))
    assert isinstance(chain, steps.Chain)
    assert [type(step) for step in chain.step_list] == [Numbers, Plus]


def test_a_dict_of_steps_becomes_a_chain_with_names_in_its_order() -> None:
    chain = held({"load": "Plus", "b": {"type": "Times"}, "a": Plus(value=2), "inner": ["Plus"]})
    assert isinstance(chain, steps.Chain)
    assert list(chain.steps) == ["load", "b", "a", "inner"]
    assert isinstance(chain["inner"], steps.Chain)
    assert chain.run(1) == 7
    again = Holder.model_validate(Holder(step=chain).model_dump()).step
    assert again == chain


def test_chains_are_indexed_by_number_slice_and_name() -> None:
    chain = steps.Chain(steps=OrderedDict(a=Plus(), b=Times(), c=Plus(value=3)), infra="Cached")
    assert len(chain) == 3
    assert chain[1] is chain["b"]
    assert chain[-1] == Plus(value=3)
    part = chain[1:]
    assert isinstance(part, steps.Chain)
    assert list(part.steps) == ["b", "c"]
    assert part.infra == chain.infra
    assert isinstance(chain[:1], steps.Chain)
    with pytest.raises(KeyError, match="no step is named 'x'; names of the 3 steps: 'a', 'b', 'c'"):
        chain["x"]
    with pytest.raises(KeyError, match="given as a list"):
        steps.Chain(steps=["Plus"])["x"]
    with pytest.raises(IndexError):
        chain[3]


def test_a_hierarchy_has_its_own_key_and_its_own_chain() -> None:
    assert NamedHolder.model_validate({"step": {"name": "Sub", "k": 3}}).step == Sub(k=3)
    chain = NamedHolder.model_validate(
        {"step": [{"name": "Sub", "k": 3}, "Sub", {"type": "Plus"}, Plus()]}
    ).step
    assert isinstance(chain, NamedChain)
    assert isinstance(chain, Named)
    assert chain.run(1) == 3
    assert NamedHolder.model_validate({"step": chain}).model_dump()["step"]["name"] == "NamedChain"
    assert type(held(["Plus"])) is steps.Chain
    with pytest.raises(pydantic.ValidationError, match="step"):
        NamedHolder.model_validate({"step": Plus()})


# ------------------------------------------------------------------ bad input


def test_an_empty_chain_is_refused() -> None:
    empties: list[tp.Any] = [[], (), {}]
    for empty in empties:
        with pytest.raises(pydantic.ValidationError, match="a chain needs at least one step"):
            steps.Chain(steps=empty)
    with pytest.raises(pydantic.ValidationError, match="a chain needs at least one step"):
        held([])


def test_one_step_in_place_of_several_says_to_write_a_list() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"write steps=\['Plus'\]"):
        steps.Chain(steps="Plus")


def test_a_step_without_run_cannot_be_made() -> None:
    class Nothing(steps.Step):
        value: int = 1

    with pytest.raises(TypeError, match=r"Nothing has nothing to run: write `def _run"):
        Nothing()
    with pytest.raises(TypeError, match="nothing to run"):
        steps.Step()


@pytest.mark.parametrize("name", ["_run", "_run_batch", "_run_items", "_resolve_step"])
def test_any_of_four_methods_makes_a_step(name: str) -> None:
    cls = type("OneWay", (steps.Step,), {name: lambda self, values: values, "__module__": __name__})
    cls()


def test_run_takes_one_value_at_most() -> None:
    with pytest.raises(TypeError, match="takes a, b, but a step computes from one value"):

        class Two(steps.Step):
            def _run(self, a: int, b: int) -> int:
                return a + b


def test_an_unknown_type_lists_the_known_ones() -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        steps.Chain(steps=["Plus", [{"type": "Minus"}]])
    text = str(caught.value)
    assert "'Minus' is not a kind of Step" in text
    assert "Plus" in text
    assert "Times" in text


def test_a_dict_without_type_says_so() -> None:
    with pytest.raises(
        pydantic.ValidationError, match=r"\{'value': 3\} has no 'type', which names the class of a step"
    ):
        held({"value": 3})


def test_a_field_error_deep_in_a_pipeline_names_its_path_in_the_users_words() -> None:
    config = {
        "load": "Plus",
        "inner": {"type": "Chain", "steps": ["Plus", {"type": "Times", "coeff": "abc"}]},
    }
    with pytest.raises(pydantic.ValidationError) as caught:
        Holder.model_validate({"step": config})
    (error,) = caught.value.errors()
    path = [part for part in error["loc"] if part != "Step"]
    assert path == ["step", "steps", "inner", "steps", 1, "coeff"]
    with pytest.raises(pydantic.ValidationError) as caught:
        steps.Chain(steps=["Plus", {"type": "Decomposed", "transforms": [{"type": "Plus", "valeu": 1}]}])
    (error,) = caught.value.errors()
    assert [part for part in error["loc"] if part != "Step"] == ["steps", 1, "transforms", 0, "valeu"]


def test_two_steps_of_one_name_in_different_modules_are_told_apart_or_refused() -> None:
    one, two = (
        type("Twin", (steps.Step,), {"_run": lambda self, x: x, "__module__": place})
        for place in ("here", "there")
    )
    with pytest.raises(
        pydantic.ValidationError, match=r"several classes bear the name 'Twin': .*there\.Twin"
    ):
        steps.Chain(steps=["Twin"])
    assert steps.Chain(steps=[one(), two()]).run(1) == 1


def test_what_takes_no_input_can_only_be_first() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"Numbers \(step 1\) takes no input"):
        steps.Chain(steps=[Plus(), Numbers()])
    steps.Chain(steps=[Numbers(), Plus()])


def test_a_step_that_cannot_travel_with_the_one_after_it_is_refused_when_the_chain_is_made(
    tmp_path: Path,
) -> None:
    off = Plus(infra={"backend": "LocalProcess", "folder": tmp_path})
    with pytest.raises(
        pydantic.ValidationError, match=r"Unpicklable \(step 0\) before it is not cached"
    ) as caught:
        steps.Chain(steps=[pieces.Unpicklable(), off])
    assert "Give it an infra of its own" in str(caught.value)
    steps.Chain(steps=[pieces.Unpicklable(infra={"backend": "Cached", "folder": tmp_path}), off])
    steps.Chain(steps=[pieces.Unpicklable(), Plus(infra={"backend": "ThreadPool", "folder": tmp_path})])


# ------------------------------------------------------------------ infra


class Seeded(steps.Step):
    infra: backends.Backend | None = backends.LocalProcess(cpus_per_task=3, timeout_min=5, folder=Path("/x"))

    def _run(self, x: float) -> float:
        return x


def seeded(infra: tp.Any) -> tp.Any:
    return Seeded(infra=infra).infra


def test_the_default_infra_of_a_class_seeds_instances_field_by_field() -> None:
    slurm = seeded({"backend": "Slurm", "partition": "a", "timeout_min": 7})
    assert slurm == backends.Slurm(cpus_per_task=3, timeout_min=7, folder=Path("/x"), partition="a")
    assert seeded(backends.Slurm(timeout_min=3)).cpus_per_task == 3
    assert seeded("Cached") == backends.Cached(folder=Path("/x"))
    assert seeded({"timeout_min": 9}) == backends.LocalProcess(
        cpus_per_task=3, timeout_min=9, folder=Path("/x")
    )
    assert seeded(None) is None
    assert Seeded().infra == backends.LocalProcess(cpus_per_task=3, timeout_min=5, folder=Path("/x"))


def test_derive_keeps_what_both_backends_have() -> None:
    local = backends.LocalProcess(cpus_per_task=3, folder=Path("/x"))
    assert local.derive("Slurm", partition="b") == backends.Slurm(
        cpus_per_task=3, folder=Path("/x"), partition="b"
    )
    assert local.derive(timeout_min=2) == backends.LocalProcess(
        cpus_per_task=3, folder=Path("/x"), timeout_min=2
    )
    assert local.derive("Cached") == backends.Cached(folder=Path("/x"))
    with pytest.raises(pydantic.ValidationError, match="timeout_min"):
        local.derive("Cached", timeout_min=2)
    with pytest.raises(pydantic.ValidationError, match="'Blu' is not a kind of Backend"):
        local.derive("Blu")


def test_backends_check_their_fields() -> None:
    with pytest.raises(pydantic.ValidationError, match="use_srun"):
        backends.Slurm(tasks_per_node=2)
    with pytest.raises(pydantic.ValidationError, match="timeout_min"):
        Plus(infra={"backend": "Cached", "timeout_min": 3})
    with pytest.raises(pydantic.ValidationError) as caught:
        Plus(infra="Blu")
    known = str(caught.value)
    for name in ("Cached", "LocalProcess", "SubmititDebug", "Slurm", "Auto", "ProcessPool", "ThreadPool"):
        assert name in known
    assert "_Jobs" not in known


def test_an_infra_without_backend_runs_in_place_and_keeps(tmp_path: Path) -> None:
    step = Plus(infra={"folder": tmp_path, "mode": "retry"})
    assert step.infra == backends.Backend(folder=tmp_path, mode="retry")
    assert step.run(1) == 2
    assert Plus(infra={"backend": "Backend", "folder": tmp_path, "mode": "read-only"}).run(1) == 2
    assert step.lookup(1).status == "success"
    assert backends.Backend(folder=tmp_path).derive("ThreadPool") == backends.ThreadPool(folder=tmp_path)
    with pytest.raises(pydantic.ValidationError, match="no 'backend' is given, which names the class"):
        Plus(infra={"max_jobs": 3})


def test_one_backend_given_to_several_steps_is_copied_into_each(tmp_path: Path) -> None:
    given = backends.Cached(folder=tmp_path)
    one, two = Plus(infra=given), Plus(value=2, infra=given)
    one.infra.mode = "force"
    two.run(1)  # and freezes its own
    given.mode = "retry"
    assert (one.infra.mode, two.infra.mode) == ("force", "cached")
    chain = steps.Chain(steps=[Plus(infra=given), Plus(infra=given)], infra=given)
    assert len({id(given), id(chain.infra), *(id(step.infra) for step in chain.step_list)}) == 4


class Around(steps.Step):
    inner: tp.Any = None
    step: steps.Step | None = None
    held: Holder | None = None
    parts: dict[str, list[steps.Step]] = {}

    def _run(self, x: float) -> float:
        found = [self.step, *([self.held.step] if self.held else []), *self.parts.get("a", [])]
        return float(sum(step.run(x) for step in found if step is not None))


@pytest.mark.parametrize("place", ["step", "held", "parts", "inner"])
def test_a_folder_reaches_steps_in_fields_and_in_plain_models(place: str, tmp_path: Path) -> None:
    given = Plus(infra="Cached")
    values: dict[str, tp.Any] = {
        "step": given,
        "held": Holder.model_validate({"step": [Times(), given]}),
        "parts": {"a": [given, Plus(infra={"backend": "Cached", "folder": tmp_path / "own"})]},
        "inner": [(Around(step=given),)],
    }
    value = values[place]
    for around in (
        Around(**{place: value}, infra={"backend": "Cached", "folder": tmp_path}),
        steps.Chain(steps=[[Around(**{place: value})]], infra={"folder": tmp_path}).steps[0][0],
        Around(inner=Around(**{place: value}, infra="Cached"), infra={"folder": tmp_path}).inner,
    ):
        found = [step for step in steps_within(around) if type(step) is Plus]
        folders = [step.infra.folder for step in found]
        assert folders == ([tmp_path, tmp_path / "own"] if place == "parts" else [tmp_path])
        around.run(1)
        assert found[0].lookup(3 if place == "held" else 1).paths.base_folder == tmp_path
    assert given.infra.folder is None  # nobody else's objects change
    assert getattr(Around(**{place: value}), place) == values[place]


def test_a_folder_handed_down_is_not_one_that_was_chosen(tmp_path: Path) -> None:
    around = Around(step=Seeded(infra=None), infra={"folder": tmp_path})
    assert around.step is not None
    assert around.step.infra is None

    class Inner(steps.Step):
        infra: backends.Backend | None = backends.ThreadPool(keep_in_ram=True)

        def _run(self, x: float) -> float:
            return x

    class Outer(steps.Step):
        inner: Inner = Inner()

        def _run(self, x: float) -> float:
            return x

    outer = Outer(infra={"folder": tmp_path})
    assert outer.inner.infra == backends.ThreadPool(keep_in_ram=True, folder=tmp_path)
    assert "infra" not in outer.inner.model_fields_set
    assert Outer().inner.infra == backends.ThreadPool(keep_in_ram=True)


def test_a_chain_hands_its_folder_down_and_changes_nobodys_steps(tmp_path: Path) -> None:
    own = Plus(infra={"backend": "Cached", "folder": tmp_path / "own"})
    without = Times(infra="Cached")
    chain = steps.Chain(steps=[own, [without, Plus()]], infra=backends.Cached(folder=tmp_path))
    assert chain[0].infra.folder == tmp_path / "own"
    inner = chain[1]
    assert isinstance(inner, steps.Chain)
    assert inner[0].infra.folder == tmp_path
    assert inner.infra is None
    assert without.infra.folder is None
    assert chain[0] is own


# ------------------------------------------------------------------ copies


def test_clone_changes_fields_by_dotted_name() -> None:
    chain = steps.Chain(steps=[Plus(), [Times(), Plus()]])
    other = chain.clone({"steps.0.value": 4, "steps.1.steps.0.coeff": 5})
    assert other[0] == Plus(value=4)
    assert other.run(1) == 26
    assert chain.run(1) == 5
    named = steps.Chain(steps={"a": Plus(), "b": Times()})
    assert named.clone({"steps.a.value": 3})["a"] == Plus(value=3)
    assert Plus(value=2).clone(value=3) == Plus(value=3)
    assert Plus().clone(infra="Cached").infra == backends.Cached()
    with pytest.raises(pydantic.ValidationError):
        Plus().clone(valeu=3)


def test_a_step_in_use_refuses_changes_and_its_copies_do_not(tmp_path: Path) -> None:
    step = Plus(infra={"backend": "Cached", "folder": tmp_path})
    step.value = 2
    assert step.run(1) == 3
    with pytest.raises(RuntimeError, match="frozen"):
        step.value = 3
    for other in (
        step.model_copy(update={"value": 5.0}),
        copy.deepcopy(step),
        copy.copy(step),
        step.clone(),
        pickle.loads(pickle.dumps(step)),
    ):
        other.value = 5.0
        assert other.run(1) == 6


def test_copies_share_what_is_kept_in_memory(tmp_path: Path) -> None:
    step = Plus(infra={"backend": "Cached", "folder": tmp_path, "keep_in_ram": True})
    assert step.model_copy().lookup(1).cache_dict is step.lookup(1).cache_dict  # nothing in it yet
    step.run(1)
    assert step.model_copy().lookup(1).cache_dict is step.lookup(1).cache_dict
    moved = step.model_copy(update={"infra": backends.Cached(folder=tmp_path / "b", keep_in_ram=True)})
    assert moved.lookup(1).status is None


def test_pickles_hold_no_run_time_state(tmp_path: Path) -> None:
    step = Plus(infra={"backend": "Cached", "folder": tmp_path})
    step.run(1)
    assert b"Pipeline" not in pickle.dumps(step)
    assert pickle.loads(pickle.dumps(step)) == step


def test_a_step_may_be_named_with_its_module() -> None:
    """As the message about several steps of one name says."""
    made: list[type[steps.Step]] = []
    for module in ("first_module", "second_module"):

        class Shared(steps.Step):
            factor: int = 2

            def _run(self, value: int) -> int:
                return value * self.factor

        Shared.__module__, Shared.__qualname__ = module, "Shared"
        made.append(Shared)
    with pytest.raises(
        pydantic.ValidationError, match=r"first_module\.Shared and second_module\.Shared; write one of"
    ):
        steps.Chain(steps=[{"type": "Shared"}])
    chain = steps.Chain(steps=[{"type": "first_module.Shared", "factor": 3}, "second_module.Shared"])
    assert [type(step) for step in chain.steps] == made
    assert chain.run(1) == 6
