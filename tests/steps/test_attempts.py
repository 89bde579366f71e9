"""Who waits for a new attempt (mode "force" or "retry"), and who gets the outcome that is there."""

import signal
import subprocess
import threading
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pytest

import elsewhere
from exca import steps
from exca.claims import Claims
from exca.steps.helpers import Parallel
from exca.steps.patterns import BranchResult, Scatter
from pipeline_steps import Planned, Plus, noted
from waiting import wait_for

BACKENDS = [
    "Cached",
    "ThreadPool",
    "ProcessPool",
    "LocalProcess",
    pytest.param("Slurm", marks=pytest.mark.slurm),
]


class Asking:
    """A call in a thread of its own."""

    def __init__(self, call: tp.Callable[[], tp.Any]) -> None:
        self._call = call
        self.outcome: tp.Any = None
        self.thread = threading.Thread(target=self._ask, daemon=True)
        self.thread.start()

    def _ask(self) -> None:
        try:
            self.outcome = self._call()
        except Exception as error:
            self.outcome = error

    def answer(self) -> tp.Any:
        """What the call gave or raised."""
        self.thread.join(100)
        assert not self.thread.is_alive()
        return self.outcome


class Place:
    """A folder in which it is said what steps give, and when."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.folder = folder
        self.backend = backend
        self.plan("old")
        self.open("old")
        self.open("fail")

    def plan(self, text: str) -> None:
        (self.folder / "plan").write_text(text)

    def open(self, text: str) -> None:
        (self.folder / text).touch()

    def started(self, text: str) -> bool:
        return text in noted(self.folder / "started")

    def infra(self, mode: str = "cached", **fields: tp.Any) -> dict[str, tp.Any]:
        return {"backend": self.backend, "folder": self.folder / "cache", "mode": mode, **fields}

    def step(self, mode: str = "cached", **fields: tp.Any) -> steps.Step:
        return Planned(place=self.folder, infra=self.infra(mode, **fields))

    def in_another_interpreter(self, value: int) -> str:
        """What another interpreter gets, in mode "cached"."""
        code = f"""
from pathlib import Path
from pipeline_steps import Planned
infra = dict(backend={self.backend!r}, folder={str(self.folder / "cache")!r})
print(Planned(place=Path({str(self.folder)!r}), infra=infra).run({value}))
"""
        return elsewhere.printed(code)


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    yield (place := Place(tmp_path, request.param))
    place.open("new")  # nothing waits for ever


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    yield (place := Place(tmp_path, "Cached"))
    place.open("new")


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Place]:
    yield (place := Place(tmp_path, "LocalProcess"))
    place.open("new")


@pytest.mark.parametrize("keep_in_ram", [False, True])
def test_who_forces_waits_for_the_new_result_and_others_read_the_old_one(
    place: Place, keep_in_ram: bool
) -> None:
    other = place.step(keep_in_ram=keep_in_ram)
    assert other.run(1) == "old 1"
    claims = Claims(other.lookup(1).paths.step_folder)
    wait_for(lambda: not claims.holders(), "the end of what a pool has computed")
    place.plan("new")
    forced = place.step("force", keep_in_ram=keep_in_ram)
    first = Asking(lambda: list(forced.run_many([1, 2])))
    wait_for(lambda: place.started("new"), "the new attempt")
    second = Asking(lambda: forced.run(1))  # the very object that asked for it
    for _ in range(2):
        assert other.run(1) == place.step().run(1) == place.step().lookup(1).result() == "old 1"
        assert forced.lookup(1).status == "running"
        assert place.step().lookup(1).status == "success"
    assert place.in_another_interpreter(1) == "old 1"
    assert second.thread.is_alive()
    place.open("new")
    assert (first.answer(), second.answer()) == (["new 1", "new 2"], "new 1")
    assert forced.run(1) == place.step().run(1) == place.in_another_interpreter(1) == "new 1"
    assert forced.lookup(1).status == "success"
    assert noted(place.folder / "started") == ["new", "new", "old"]


def test_who_retries_waits_and_so_do_others_whose_outcome_is_the_failure(place: Place) -> None:
    place.plan("fail")
    with pytest.raises(ArithmeticError, match="no result for 1"):
        place.step().run(1)
    place.plan("new")
    retrying = place.step("retry")
    first = Asking(lambda: retrying.run(1))
    wait_for(lambda: place.started("new"), "the new attempt")
    asking = [Asking(lambda: retrying.run(1)), Asking(lambda: place.step().run(1))]
    asking.append(Asking(lambda: place.in_another_interpreter(1)))
    for handle in (retrying.lookup(1), place.step().lookup(1)):
        assert handle.status == "running"
    assert all(asked.thread.is_alive() for asked in asking)
    place.open("new")
    assert [asked.answer() for asked in [first, *asking]] == ["new 1"] * 4
    assert noted(place.folder / "started") == ["fail", "new"]


def test_a_forced_attempt_that_fails_takes_the_place_of_the_result(place: Place) -> None:
    assert list(place.step().run_many([1, 2])) == ["old 1", "old 2"]
    place.plan("fail")
    forced = place.step("force")
    for _ in range(2):  # the second time from the cache
        with pytest.raises(ArithmeticError, match="no result for 1"):
            forced.run(1)
    assert noted(place.folder / "started").count("fail") == 1
    assert place.step().lookup(1).status == "error"
    with pytest.raises(ArithmeticError, match="no result for 1"):
        place.step().run(1)
    assert place.step().run(2) == "old 2"


def test_two_that_force_at_once_get_one_new_result(here: Place) -> None:
    here.step().run(1)
    here.plan("new")
    one, two = here.step("force"), here.step("force")
    first = Asking(lambda: one.run(1))
    wait_for(lambda: here.started("new"), "the new attempt")
    second = Asking(lambda: two.run(1))
    wait_for(lambda: two._exca_state.forced, "the second one")
    here.open("new")
    assert (first.answer(), second.answer()) == ("new 1", "new 1")
    assert noted(here.folder / "started") == ["new", "old"]


INTERRUPTED = """
import os, signal, threading
from pathlib import Path
from pipeline_steps import Planned, noted
from waiting import wait_for

place = Path({place!r})
step = Planned(place=place, infra=dict(backend={backend!r}, folder=place / "cache", mode={mode!r}))

def interrupt():
    wait_for(lambda: "new" in noted(place / "started"), "the new attempt")
    os.kill(os.getpid(), signal.{signal})

threading.Thread(target=interrupt, daemon=True).start()
try:
    step.run(1)
except KeyboardInterrupt:
    print("interrupted", step.lookup(1).status, flush=True)
    (place / "new").touch()
    print(step.run(1), flush=True)
"""


def interrupted(place: Place, mode: str, how: str) -> "subprocess.CompletedProcess[str]":
    code = INTERRUPTED.format(
        place=str(place.folder),
        backend=place.backend,
        mode=mode,
        signal=how,
    )
    return elsewhere.run(code)


@pytest.mark.parametrize("mode", ["force", "retry"])
@pytest.mark.parametrize("backend", ["LocalProcess", pytest.param("Slurm", marks=pytest.mark.slurm)])
def test_who_was_interrupted_while_waiting_for_its_attempt_waits_for_it_again(
    backend: str, mode: str, tmp_path: Path
) -> None:
    place = Place(tmp_path, backend)
    if mode == "retry":
        place.plan("fail")
    Asking(lambda: place.step().run(1)).answer()
    place.plan("new")
    done = interrupted(place, mode, "SIGINT")
    assert done.stdout.splitlines() == ["interrupted running", "new 1"], done.stderr
    assert noted(place.folder / "started").count("new") == 1
    assert place.step().run(1) == "new 1"


def test_who_is_killed_in_a_forced_attempt_leaves_the_result_that_was_there(here: Place) -> None:
    here.step().run(1)
    here.plan("new")
    assert interrupted(here, "force", "SIGKILL").returncode == -signal.SIGKILL
    assert here.step().run(1) == "old 1"
    here.open("new")
    assert here.step("force").run(1) == "new 1"


@pytest.mark.parametrize("modes", [("force", "cached", "cached"), ("cached", "cached", "force")])
def test_all_stages_of_a_forced_chain_are_read_by_others_until_each_is_replaced(
    modes: tuple[str, str, str], local: Place
) -> None:
    place = local

    def chain(first: str, second: str, whole: str) -> steps.Chain:
        parts = [
            Planned(place=place.folder, infra=place.infra(first)),
            Upper(infra=place.infra(second, backend="ThreadPool")),
            Upper(times=2),
        ]
        return steps.Chain(steps=parts, infra=place.infra(whole, backend="Cached"))

    cached = ("cached", "cached", "cached")
    assert chain(*cached).run(1) == "OLD 1!!!"
    place.plan("new")
    forced = chain(*modes)
    asked = Asking(lambda: list(forced.run_many([1, 2])))
    wait_for(lambda: place.started("new"), "the new attempt")
    assert chain(*cached).run(1) == "OLD 1!!!"
    assert [stage.status for stage in chain(*cached).lookup(1).stages] == ["success"] * 3
    assert forced.plan([1]).compute == 3
    place.open("new")
    assert asked.answer() == ["NEW 1!!!", "NEW 2!!!"]
    assert chain(*cached).run(1) == forced.run(1) == "NEW 1!!!"
    assert [stage.result() for stage in forced.lookup(1).stages] == ["new 1", "NEW 1!", "NEW 1!!!"]


class Upper(steps.Step):
    times: int = 1

    def _run(self, text: str) -> str:
        return text.upper() + "!" * self.times


class Twice(Scatter):
    body: steps.Step

    def branches(self, item: tp.Any) -> list[str]:
        return ["a", "b"]

    def take(self, item: tp.Any, branch: str) -> str:
        return branch

    def gather(self, results: list[BranchResult]) -> str:
        return ", ".join(result for _, result in results)


def test_branches_of_a_forced_scatter_are_replaced_and_read_until_then(here: Place) -> None:
    def scatter(mode: str) -> Twice:
        return Twice(body=here.step(backend="LocalProcess"), infra=here.infra(mode))

    assert scatter("cached").run(1) == "old a, old b"
    here.plan("new")
    asked = Asking(lambda: scatter("force").run(1))
    wait_for(lambda: here.started("new"), "the new attempt")
    assert scatter("cached").run(1) == "old a, old b"
    here.open("new")
    assert asked.answer() == scatter("cached").run(1) == "new a, new b"


def test_variants_that_are_forced_together_are_replaced(here: Place) -> None:
    def sweep(mode: str) -> Parallel:
        steps_ = [Planned(place=here.folder), [Planned(place=here.folder), Upper()], Plus()]
        return Parallel(steps=steps_, infra=here.infra(mode, backend="LocalProcess", max_jobs=2))

    sweep("cached").run(1)
    here.plan("new")
    asked = Asking(lambda: sweep("force").run(1))
    wait_for(lambda: here.started("new"), "the new attempt")
    assert [step.lookup(1).result() for step in sweep("cached").steps[:2]] == ["old 1", "OLD 1!"]
    here.open("new")
    assert asked.answer() is None
    assert [step.lookup(1).result() for step in sweep("cached").steps] == ["new 1", "NEW 1!", 2]
