"""What has no why."""

import typing as tp
from pathlib import Path

import pydantic
import pytest

import exca
from exca.errors import InfraError


class Two(pydantic.BaseModel):
    """Two tasks, each with an infra."""

    first: exca.TaskInfra = exca.TaskInfra()
    second: exca.TaskInfra = exca.TaskInfra()

    @first.apply
    def one(self) -> int:
        return 1

    @second.apply
    def two(self) -> int:
        return 2


class Sends(pydantic.BaseModel):
    infra: exca.SubmitInfra = exca.SubmitInfra()

    @infra.apply
    def add(self, x: int) -> int:
        return x + 1


class Without(pydantic.BaseModel):
    x: int = 1


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (lambda folder: Two(), r"Two has several infras \(first, second\): .* as in exca\.why\(obj\.first\)"),
        (lambda folder: Without(), r"Without\(x=1\) has no infra: give an object with one"),
        (
            lambda folder: Sends(infra=exca.SubmitInfra(folder=folder)),
            "a SubmitInfra keeps no results, so there is no why",
        ),
        (lambda folder: Two().first, "has no folder: nothing is cached"),
        (lambda folder: 3, "3 has no infra: give an object with one"),
    ],
)
def test_what_has_no_why(asked: tp.Callable[[Path], tp.Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InfraError, match=words):
        exca.why(asked(tmp_path))
