"""Batches of steps whose items need items of other batches, or of their own."""

import concurrent.futures
import time
import typing as tp
from pathlib import Path

import pytest

from exca import steps
from exca.errors import ReentrantClaimError


class NeedingStep(steps.Step):
    """Counts what an item needs, itself included."""

    name: str
    place: Path
    needs: dict[str, str] = {}  # of "name item"
    together: tuple[str, ...] = ()

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return [*super()._exclude_from_cls_uid(), "place", "needs", "together"]

    def _run(self, item: str) -> int:
        me = f"{self.name} {item}"
        with (self.place / "trace").open("a") as file:
            file.write(f"{me}\n")
        while me in self.together and not set(self.together) <= set(trace(self.place)):
            time.sleep(0.01)
        if me not in self.needs:
            return 1
        name, needed = self.needs[me].split()
        return 1 + int(self.clone(name=name).run(needed))


def trace(place: Path) -> list[str]:
    return sorted((place / "trace").read_text().splitlines())


def counts(place: Path, backend: str, name: str, items: str, **fields: tp.Any) -> list[int]:
    infra: dict[str, tp.Any] = {"backend": backend, "folder": place / "cache"}
    if backend != "Cached":
        infra["max_jobs"] = 1
    step = NeedingStep(name=name, place=place, infra=infra, **fields)
    return list(step.run_many(items.split()))


@pytest.mark.parametrize("backend", ["Cached", "ThreadPool", "ProcessPool", "LocalProcess"])
def test_batches_that_need_each_other(tmp_path: Path, backend: str) -> None:
    fields: tp.Any = {"needs": {"one x": "two y", "two z": "one w"}, "together": ("one x", "two z")}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        one = pool.submit(counts, tmp_path, backend, "one", "x w", **fields)
        two = pool.submit(counts, tmp_path, backend, "two", "z y", **fields)
    assert (one.result(), two.result()) == ([2, 1], [2, 1])
    assert trace(tmp_path) == ["one w", "one x", "two y", "two z"]


@pytest.mark.parametrize("backend", ["Cached", "ThreadPool"])
def test_a_batch_that_needs_an_item_of_its_own(tmp_path: Path, backend: str) -> None:
    assert counts(tmp_path, backend, "one", "a b c", needs={"one a": "one c"}) == [2, 1, 1]
    assert trace(tmp_path) == ["one a", "one b", "one c"]


@pytest.mark.parametrize("backend", ["Cached", "ThreadPool"])
def test_a_circle_is_an_error_that_is_not_kept(tmp_path: Path, backend: str) -> None:
    needs = {"one a": "two b", "two b": "one a"}
    with pytest.raises(ReentrantClaimError, match="asks for its own result"):
        counts(tmp_path, backend, "one", "a", needs=needs)
    assert counts(tmp_path, backend, "one", "a") == [1]
