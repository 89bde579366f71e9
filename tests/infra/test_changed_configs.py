"""Configurations that change where freezing does not reach: in their lists and dicts."""

import typing as tp
from collections.abc import Iterable, Iterator
from pathlib import Path

import pydantic
import pytest

import exca
from exca.errors import ChangedConfigError, FrozenError


class Listed(pydantic.BaseModel):
    """Holds what can be changed in place."""

    values: list[int] = []
    table: dict[str, tp.Any] = {}
    grow: bool = False
    fail: bool = False
    infra: exca.TaskInfra = exca.TaskInfra()
    items: exca.MapInfra = exca.MapInfra()

    @infra.apply
    def total(self) -> int:
        if self.grow:
            self.values.append(5)
        if self.fail:
            raise ValueError("failed")
        return sum(self.values)

    @items.apply(item_uid=str)
    def add(self, items: Iterable[int]) -> Iterator[int]:
        for item in items:
            if self.grow:
                self.values.append(item)
            yield item + sum(self.values)


def listed(folder: Path, **fields: tp.Any) -> Listed:
    infra = {"folder": folder, "cluster": fields.pop("cluster", None)}
    return Listed.model_validate({"infra": infra, "items": {"folder": folder}, **fields})


@pytest.mark.parametrize("cluster", [None, "local"])
@pytest.mark.parametrize("fail", [False, True])
def test_a_task_changed_after_its_uid_was_in_use_stores_nothing(
    tmp_path: Path, cluster: str | None, fail: bool
) -> None:
    obj = listed(tmp_path, cluster=cluster, fail=fail)
    assert obj.infra.status() == "not submitted"
    with pytest.raises(FrozenError):
        obj.values = [1]
    obj.values.append(1)
    obj.table["key"] = 2
    with pytest.raises(ChangedConfigError, match=r"values, table of .*Listed changed.*clone_obj"):
        obj.total()
    assert listed(tmp_path, fail=fail).infra.status() == "not submitted"
    assert listed(tmp_path, values=[1], table={"key": 2}).total() == 1
    assert listed(tmp_path).total() == 0


@pytest.mark.parametrize("fail", [False, True])
def test_a_task_that_changes_its_own_configuration_stores_nothing(tmp_path: Path, fail: bool) -> None:
    for _ in range(2):
        with pytest.raises(ChangedConfigError, match="values of"):
            listed(tmp_path, grow=True, fail=fail).total()
    assert listed(tmp_path, grow=True, fail=fail).infra.status() == "not submitted"


def test_a_job_that_changes_its_configuration_says_so(tmp_path: Path) -> None:
    with pytest.raises(ChangedConfigError, match="values of"):
        listed(tmp_path, grow=True, cluster="local").total()


def test_a_map_changed_after_its_uid_was_in_use_stores_nothing(tmp_path: Path) -> None:
    obj = listed(tmp_path)
    assert list(obj.add([1, 2])) == [1, 2]
    obj.values.append(10)
    with pytest.raises(ChangedConfigError, match="values of"):
        obj.add([3])
    assert sorted(listed(tmp_path).items.cache_dict) == ["1", "2"]
    with pytest.raises(ChangedConfigError, match="values of"):
        listed(tmp_path, grow=True).add([1, 2])
    assert list(listed(tmp_path, grow=True).items.cache_dict) == []


def test_what_is_changed_back_is_unchanged(tmp_path: Path) -> None:
    obj = listed(tmp_path, values=[1, 2], table={"nan": float("nan"), "b": 1})
    obj.infra.uid()
    obj.values[:] = [1.0, 2.0]  # type: ignore[list-item] # the same uid
    obj.table["b"] = obj.table.pop("b")
    assert obj.total() == 3
