"""What rows show of results: numbers of all types, and nothing of how they are stored."""

import dataclasses
import math
import typing as tp
from pathlib import Path

import numpy as np
import pydantic
import pytest

import exca
from exca.catalog import results, scan


@dataclasses.dataclass
class Fitted:
    """A result with a number and an array."""

    loss: float = 0.5
    weights: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(3))


class Holder(pydantic.BaseModel):
    """Returns what it is told to."""

    what: str
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> tp.Any:
        return RESULTS[self.what][0]


RESULTS: dict[str, tuple[tp.Any, dict[str, tp.Any]]] = {
    "scalar": (np.float64(0.25), {"value": 0.25}),
    "array": (np.ones(3), {}),
    "dataclass": (Fitted(), {"value.loss": 0.5}),
    "dict": (
        {"loss": np.float32(0.5), "epochs": np.int64(3), "best": np.bool_(True), "curve": np.ones((4, 2))},
        {"value.loss": 0.5, "value.epochs": 3, "value.best": True},
    ),
    "nested": (
        {"val": {"acc": 0.75, "fit": Fitted()}, "note": "fine", "pair": (1, 2), "huge": 10**30},
        {"value.val.acc": 0.75, "value.val.fit.loss": 0.5, "value.note": "fine", "value.huge": 10**30},
    ),
    "infinite": ({"loss": math.inf, "size": np.float16(2)}, {"value.loss": math.inf, "value.size": 2.0}),
}


@pytest.mark.parametrize("what", RESULTS)
def test_a_row_shows_the_numbers_of_a_result(what: str, tmp_path: Path) -> None:
    Holder(what=what, infra=exca.TaskInfra(folder=tmp_path)).run()
    [row] = scan.rows(tmp_path)
    shown = {name: value for name, value in row.facts.items() if name.partition(".")[0] == "value"}
    assert shown == RESULTS[what][1]


@pytest.mark.parametrize(
    "part",
    [
        {"#type": "py.numpy_scalar", "dtype": "float64", "content": "AA=="},
        {"#type": "py.numpy_scalar", "dtype": "float64", "content": "%"},
        {"#type": "py.float", "content": "one"},
        {"#type": "py.int", "content": "1" * 5000},
        {"#type": ["Auto"], "content": 1},
        {"#type": "Auto"},
    ],
)
def test_a_damaged_part_shows_nothing(part: tp.Any) -> None:
    assert list(results.shown({"content": {"a": part, "b": 1}, "#type": "Auto"})) == [("value.b", 1)]


def test_a_part_that_is_nested_without_end_is_cut() -> None:
    part: dict[str, tp.Any] = {}
    part["in"] = part
    assert list(results.shown(part)) == []
