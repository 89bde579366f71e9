"""What is told without computing: lookup, show and plan."""

import typing as tp
from pathlib import Path

import pytest

from exca import steps
from exca.claims import Claims
from exca.errors import NoResultError
from pipeline_steps import Fails, Noted, Numbers, Plus, Times, noted


@pytest.fixture
def chain(tmp_path: Path) -> steps.Chain:
    return made(tmp_path)


def made(tmp_path: Path, **fields: tp.Any) -> steps.Chain:
    infra = {"backend": "Cached", "folder": tmp_path / "cache", **fields}
    parts = [
        Noted(notes=tmp_path / "notes", infra={"backend": "Cached"}),
        Times(),
        Fails(infra={"backend": "Cached"}),
        Plus(),
    ]
    return steps.Chain(steps=parts, infra=infra)


def test_a_handle_knows_status_places_and_result(chain: steps.Chain, tmp_path: Path) -> None:
    handle = chain.lookup(3)
    assert (handle.status, handle.cached(), handle.job()) == (None, False, None)
    with pytest.raises(NoResultError, match="has no result for '3-d2021aee'"):
        handle.result()
    chain.run(3)
    assert (handle.status, handle.cached(), handle.result(), handle.uid) == ("success", True, 9, "3-d2021aee")
    assert handle.paths.step_folder == tmp_path / "cache" / handle.paths.step_uid
    assert handle.paths.cache_folder == handle.paths.step_folder / "cache"
    assert handle.paths.step_uid.count("/") == 3
    assert list(handle.cache_dict.keys()) == ["3-d2021aee"]
    assert [stage.name for stage in handle.stages] == ["Noted", "Fails", "Chain"]
    assert [stage.status for stage in handle.stages] == ["success"] * 3


def test_looking_computes_and_writes_nothing(chain: steps.Chain, tmp_path: Path) -> None:
    chain.lookup(3).cached()
    chain.show(3)
    chain.plan([1, 2])
    assert not (tmp_path / "cache").exists()
    assert noted(tmp_path / "notes") == []


def test_errors_and_running_computations_are_told(chain: steps.Chain) -> None:
    with pytest.raises(ArithmeticError):
        chain.run(-3)
    handle = chain.lookup(-3)
    assert [stage.status for stage in handle.stages] == ["success", "error", "error"]
    with pytest.raises(ArithmeticError, match="below zero"):
        handle.result()
    chain.run(1)
    other = chain.lookup(2)
    claim, _ = Claims(other.stages[0].paths.step_folder).acquire([other.uid])
    assert claim is not None
    with claim:
        assert [stage.status for stage in other.stages] == ["running", None, None]
        assert "running" in chain.show(2)
        assert chain.plan([2]).stages[0].running == 1
    assert other.stages[0].status is None


def test_what_is_not_kept_has_no_status() -> None:
    handle = Plus().lookup(1)
    assert (handle.status, handle.cached(), handle.job(), handle.stages) == (None, False, None, [])
    with pytest.raises(NoResultError, match="Plus has no infra"):
        handle.result()


def test_clear_cache_is_for_one_item_and_all_stages_or_the_last(chain: steps.Chain) -> None:
    list(chain.run_many([1, 2]))
    chain.lookup(1).clear_cache(recursive=False)
    assert [stage.status for stage in chain.lookup(1).stages] == ["success", "success", None]
    chain.lookup(1).clear_cache()
    assert [stage.status for stage in chain.lookup(1).stages] == [None] * 3
    assert chain.lookup(2).status == "success"
    with pytest.raises(ArithmeticError):
        chain.run(-3)
    chain.lookup(-3).clear_cache()
    assert chain.lookup(-3).status is None


def test_a_look_without_a_value_at_what_needs_one_finds_nothing(chain: steps.Chain) -> None:
    chain.run(1)
    handle = chain.lookup()
    assert (handle.status, handle.cached(), handle.job(), handle.uid) == (
        None,
        False,
        None,
        "__exca_no_input__",
    )
    handle.clear_cache()
    handle.clear_cache(recursive=False)
    with pytest.raises(NoResultError, match="has no result for '__exca_no_input__'"):
        handle.result()
    assert chain.lookup(1).status == "success"
    with pytest.raises(TypeError, match="takes no input"):
        Numbers().lookup(3)


def test_a_handle_gives_what_follows_the_last_stage_too(tmp_path: Path) -> None:
    chain = steps.Chain(steps=[Plus(infra={"backend": "Cached", "folder": tmp_path}), Times()])
    chain.run(1)
    assert chain.lookup(1).result() == 4


# ------------------------------------------------------------------ show


def test_show_draws_the_tree(tmp_path: Path) -> None:
    inner = steps.Chain(steps={"a": Plus(), "b": Times(coeff=3, infra="Cached")})
    chain = steps.Chain(
        steps=[Plus(value=2), inner], infra={"backend": "ThreadPool", "folder": "/x", "mode": "retry"}
    )
    assert chain.show().splitlines() == [
        "Chain  [ThreadPool, /x, retry]",
        "└── steps",
        "    ├── Plus  value=2.0",
        "    └── Chain",
        "        └── steps",
        "            ├── a: Plus",
        "            └── b: Times  coeff=3.0  [Cached, /x]",
    ]


def test_show_tells_which_stages_are_cached_failed_or_missing(chain: steps.Chain, tmp_path: Path) -> None:
    def words(step: steps.Step, *value: float) -> list[str]:
        return [line.rsplit("]  ", 1)[1] for line in step.show(*value).splitlines() if "]  " in line]

    assert words(chain, 1) == ["missing"] * 3
    with pytest.raises(ArithmeticError):
        chain.run(-3)
    assert words(chain, -3) == ["failed", "cached", "failed"]
    load = Numbers(infra={"backend": "Cached", "folder": tmp_path})
    assert load.show().endswith("missing")
    load.run()
    assert load.show().endswith("cached")


# ------------------------------------------------------------------ plan


def test_plan_tells_what_would_be_computed_where_and_for_how_many_items(tmp_path: Path) -> None:
    def pipeline() -> steps.Chain:
        first = Noted(
            notes=tmp_path / "notes", infra={"backend": "LocalProcess", "folder": tmp_path, "max_jobs": 3}
        )
        last = Fails(infra={"backend": "ThreadPool", "folder": tmp_path, "max_jobs": 2})
        return steps.Chain(steps=[first, Times(), last, Plus()])

    plan = pipeline().plan(range(7))
    assert [(s.name, s.backend, s.items, s.compute, s.jobs) for s in plan] == [
        ("Noted", "LocalProcess", 7, 7, 3),
        ("Times", "in place", 7, 7, 1),
        ("Fails", "ThreadPool", 7, 7, 2),
        ("Plus", "in place", 7, 7, 1),
    ]
    assert (plan.items, plan.compute, len(plan)) == (7, 14, 4)
    assert str(plan).splitlines()[1].split() == ["Noted", "LocalProcess", "7", "0", "0", "0", "7", "3"]
    head = Noted(notes=tmp_path / "notes", infra={"backend": "Cached", "folder": tmp_path})
    list(head.run_many([0, 1]))
    list(
        steps.Chain(steps=[head, Times(), Fails(infra={"backend": "Cached", "folder": tmp_path})]).run_many(
            [0]
        )
    )
    plan = pipeline().plan([0, 0, 1, 2])
    assert [(s.name, s.items, s.cached, s.compute) for s in plan] == [
        ("Noted", 2, 1, 1),
        ("Times", 2, 0, 2),
        ("Fails", 3, 1, 2),
        ("Plus", 3, 0, 3),
    ]


def test_plan_knows_modes_and_errors(chain: steps.Chain, tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError):
        chain.run(-3)
    assert [(s.name, s.failed, s.compute) for s in chain.plan([-3])][-1] == ("Chain", 1, 0)
    assert made(tmp_path, mode="retry").plan([-3]).stages[-1].compute == 1
    chain.run(1)
    forced = made(tmp_path, mode="force")
    assert forced.plan([1]).compute == 3
    forced.run(1)
    assert forced.plan([1]).compute == 0
    plan = made(tmp_path, mode="read-only").plan([1, 2])
    assert (plan.stages[-1].allowed, plan.stages[-1].compute) == (False, 1)
    assert "read-only: an error" in str(plan)


def test_plan_of_what_needs_no_input(tmp_path: Path) -> None:
    load = Numbers(infra={"backend": "Cached", "folder": tmp_path})
    assert load.plan().compute == 1
    load.run()
    assert load.plan().compute == 0
    with pytest.raises(TypeError, match="needs a value"):
        Plus().plan()
