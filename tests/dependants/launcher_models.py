"""Configurations of a package that depends on exca."""

import os
import typing as tp

import pydantic

import exca


class Study(pydantic.BaseModel):
    """One infra of each kind."""

    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra(version="1")
    items: exca.MapInfra = exca.MapInfra()

    @infra.apply(exclude_from_cache_uid=("x",))
    def run(self) -> str:
        return os.environ.get("EXCA_TEST_LAUNCHED", "")

    @items.apply(item_uid=str)
    def double(self, numbers: tp.Iterable[int]) -> tp.Iterator[int]:
        for number in numbers:
            yield 2 * number
