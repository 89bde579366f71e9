"""Batches whose items need items of other batches, or of their own: no deadlock, and circles have a name."""

import concurrent.futures
import json
import subprocess
import typing as tp
from pathlib import Path

import pytest

import elsewhere
from exca.errors import ReentrantClaimError
from map_models import Needing

CLUSTERS = [None, "threadpool", "processpool", "local", pytest.param("slurm", marks=pytest.mark.slurm)]
CROSSED = {"one x": "two y", "two z": "one w"}


class Case:
    """Batches over one folder."""

    def __init__(self, folder: Path, cluster: str | None = None, **fields: tp.Any) -> None:
        self.folder = folder
        fields["infra"] = {"folder": folder / "cache", "cluster": cluster, **fields.get("infra", {})}
        self.fields = json.loads(json.dumps({"place": folder, **fields}, default=str))

    def run(self, name: str, items: str) -> list[int]:
        return list(Needing(name=name, **self.fields).process(items.split()))

    def start(self, name: str, items: str) -> "subprocess.Popen[str]":
        code = (
            "import json, sys; from map_models import Needing; "
            "print(list(Needing(**json.loads(sys.argv[1])).process(sys.argv[2].split())))"
        )
        return elsewhere.start(code, json.dumps({"name": name, **self.fields}), items)

    def trace(self) -> list[str]:
        return sorted((self.folder / "trace").read_text().splitlines())


def in_threads(*calls: tp.Callable[[], tp.Any]) -> "list[concurrent.futures.Future[tp.Any]]":
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return [pool.submit(call) for call in calls]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_two_threads_whose_batches_need_each_other(slurm_folder: Path, cluster: str | None) -> None:
    infra = {"max_jobs": 1}
    case = Case(slurm_folder, cluster, needs=CROSSED, together=["one x", "two z"], infra=infra)
    one, two = in_threads(lambda: case.run("one", "x w"), lambda: case.run("two", "z y"))
    assert (one.result(), two.result()) == ([2, 1], [2, 1])
    assert case.trace() == ["one w", "one x", "two y", "two z"]  # each once


def test_two_processes_whose_batches_need_each_other(tmp_path: Path) -> None:
    case = Case(tmp_path, needs=CROSSED, together=["one x", "two z"])
    one, two = case.start("one", "x w"), case.start("two", "z y")
    assert [process.communicate(timeout=60)[0] for process in (one, two)] == ["[2, 1]\n"] * 2
    assert case.trace() == ["one w", "one x", "two y", "two z"]


@pytest.mark.parametrize("cluster", [None, "threadpool"])
def test_batches_that_ask_how_many_items_there_are(tmp_path: Path, cluster: str | None) -> None:
    """They get as many, though what they have not begun is given back: its second result is dropped."""
    infra = {"max_jobs": 1}
    case = Case(tmp_path, cluster, needs=CROSSED, together=["one x", "two z"], how="counted", infra=infra)
    one, two = in_threads(lambda: case.run("one", "x w"), lambda: case.run("two", "z y"))
    assert (one.result(), two.result()) == ([2, 1], [2, 1])
    assert set(case.trace()) == {"one w", "one x", "two y", "two z"}


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_batch_that_needs_an_item_of_its_own_which_is_not_started(
    slurm_folder: Path, cluster: str | None
) -> None:
    needs = {"one a": "one c", "one c": "one b"}
    case = Case(slurm_folder, cluster, needs=needs, infra={"max_jobs": 1})
    assert case.run("one", "a b c d") == [3, 1, 2, 1]
    assert case.trace() == ["one a", "one b", "one c", "one d"]


@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool"])
def test_what_was_taken_and_not_begun_is_computed_by_the_call_inside(
    tmp_path: Path, cluster: str | None
) -> None:
    case = Case(tmp_path, cluster, needs={"one a": "one b"}, how="all at once", infra={"max_jobs": 1})
    assert case.run("one", "a b c") == [2, 1, 1]
    assert case.trace() == ["one a", "one b", "one b", "one c"]  # its second result was dropped


def test_shares_of_a_pool_that_need_each_other(tmp_path: Path) -> None:
    for cluster in ("threadpool", "processpool"):
        folder = tmp_path / cluster
        folder.mkdir()
        needs = {"one a": "one d", "one c": "one b"}  # two shares: a b, c d
        case = Case(folder, cluster, needs=needs, together=["one a", "one c"], infra={"max_jobs": 2})
        assert case.run("one", "a b c d") == [2, 1, 2, 1]
        assert case.trace() == ["one a", "one b", "one c", "one d"]


@pytest.mark.parametrize("cluster", [None, "threadpool"])
@pytest.mark.parametrize("how", ["one by one", "all at once"])
@pytest.mark.parametrize("needs", [{"one a": "one a"}, {"one a": "two b", "two b": "one a"}])
def test_a_circle_in_one_thread_is_an_error(
    tmp_path: Path, cluster: str | None, how: str, needs: dict[str, str]
) -> None:
    case = Case(tmp_path, cluster, needs=needs, how=how)
    with pytest.raises(ReentrantClaimError, match="asks for its own result"):
        case.run("one", "x a")
    assert case.run("one", "x") == [1]


CIRCLE = {"one a": "two b", "two b": "three c", "three c": "one a"}


@pytest.mark.parametrize(
    "cluster", [None, "threadpool", pytest.param("processpool", marks=pytest.mark.long), "local"]
)
def test_a_circle_over_threads_is_named(tmp_path: Path, cluster: str | None) -> None:
    case = Case(tmp_path, cluster, needs=CIRCLE, together=["one a", "two b", "three c"])
    futures = in_threads(*(lambda n=n, i=i: case.run(n, i) for n, i in map(str.split, CIRCLE)))
    errors = [future.exception() for future in futures]
    assert {type(error) for error in errors} == {ReentrantClaimError}
    named = [str(error) for error in errors if "in a circle" in str(error)]
    assert named
    for item in "abc":
        assert f"'{item}' in {tmp_path}" in named[0]


def test_a_circle_over_processes_is_named(tmp_path: Path) -> None:
    case = Case(tmp_path, needs=CIRCLE, together=["one a", "two b", "three c"])
    processes = [case.start(*need.split()) for need in CIRCLE]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert all("ReentrantClaimError" in text for text in said)
    assert any("wait for each other in a circle" in text for text in said)


def test_waiting_for_long_is_no_circle(tmp_path: Path) -> None:
    """Each waits longer than it takes to note it in the claims, for what is computed in the end."""
    case = Case(tmp_path, needs={"one a": "two b", "two c": "one d"}, together=["two b", "last"])
    waits = case.start("one", "a d")
    other = case.start("two", "b c")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        done = pool.submit(other.communicate, timeout=60)
        assert not concurrent.futures.wait([done], 4).done
        with (tmp_path / "trace").open("a") as file:
            file.write("last\n")
        assert done.result()[0] == "[1, 2]\n"
    assert waits.communicate(timeout=60)[0] == "[2, 1]\n"
