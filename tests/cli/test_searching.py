"""The command search: spaces from fields, points from a seed, and a driver that is killed and goes on."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import typing as tp
from pathlib import Path

import pytest

import searched
from saying import say
from waiting import wait_for

optuna: tp.Any = pytest.importorskip("optuna")

if tp.TYPE_CHECKING:
    from exca.cli.spaces import Space

SUPPORT = Path(searched.__file__).parent


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def search(capsys: pytest.CaptureFixture[str], here: Path, *arguments: str, code: int = 0) -> str:
    given = [*arguments, f"infra.folder={here / 'cache'}"]
    return say(capsys, "search", "searched:Task", *given, code=code)


RATE = ("rate=interval(0.5,10)", "--minimize", "loss.test")
LOW = ("rate=interval(0.5,5)", "--minimize", "loss.test")  # where none fails


def points(said: str) -> list[str]:
    """What was searched, line by line."""
    return re.findall(r"^ +\d+[* ] .*?([a-z.]+=.*?)(?:   .*)?$", said, re.MULTILINE)


# ------------------------------------------------------------------------------------------------------------ spaces


def space(*names: str, base: dict[str, tp.Any] | None = None, **wanted: tp.Any) -> "Space":
    from exca.cli.configuring import File
    from exca.cli.spaces import Search, Space

    asked = {**dict.fromkeys(names), **{name.replace("__", "."): each for name, each in wanted.items()}}
    given = Search.model_validate({"minimize": ".", "space": asked})
    return Space(searched.Task, None if base is None else File("c.yaml", base, {}), given.space)


def test_spaces_come_from_types_and_bounds() -> None:
    found = space("rate", "width", "colour", "fast", "size", "model", "optimizer").described()
    assert dict(found) == {
        "rate": "4.941e-324 to 10",
        "width": "1 to 8",
        "colour": "red, blue",
        "fast": "false, true",
        "size": "s, m, l, -",
        "model.kind": "tree, net",
        "model[tree].depth": "1 to 6",
        "model[net].depth": "8 to 64 in steps of 8",
        "model[net].dropout": "0 to 1",
        "optimizer.name": "Adam, Optimizer, Sgd",
        "optimizer[Sgd].momentum": "0 to 1",
        "optimizer[Adam].beta": "0.5 to 1",
    }


@pytest.mark.parametrize(
    ("name", "wanted", "said"),
    [
        ("rate", {"log": [0.01, 1]}, "0.01 to 1 (log)"),
        ("rate", [0.5, 2], "0.5 to 2"),
        ("rate", {"linear": [0, 1], "step": 0.25}, None),
        ("rate", {"linear": [0.25, 1], "step": 0.25}, "0.25 to 1 in steps of 0.25"),
        ("width", "log", "1 to 8 (log)"),
        ("width", {"integer": [2, 4]}, "2 to 4"),
        ("free", [-1, 1], "-1 to 1"),
        ("title", ["a", "b"], "a, b"),
        ("model", {"choice": [{"kind": "tree"}, {"kind": "net", "depth": 16}]}, None),
    ],
)
def test_what_is_asked_for_counts(name: str, wanted: tp.Any, said: str | None) -> None:
    if said is None:
        said = {"rate": "rate is searched from 0 to 1", "model": '{"kind": "tree"}'}[name]
    try:
        [(_, found)] = space(**{name: wanted}).described()
    except ValueError as e:
        found = str(e)
    assert said in found


@pytest.mark.parametrize(
    ("name", "wanted", "said"),
    [
        ("free", None, "free is a number without bounds: write the bounds"),
        ("title", None, "title is a str, which has neither choices nor bounds"),
        ("rat", None, "Task has no field 'rat'; did you mean 'rate'?"),
        ("model__dept", None, "Task has no field 'model.dept'; did you mean 'depth'?"),
        ("infra__cluster", ["a", "b"], "Task has no field 'infra.cluster'"),
        ("rate", "log", "cannot"),
        ("rate", {"log": [0, 1]}, "the logarithm of 0.0 does not exist: begin above 0"),
        ("rate", [2, 1], "are not two rising numbers"),
        ("rate", [1, 2, 3], "for choices, write {choice: [1, 2, 3]}"),
        ("rate", {"choice": []}, "there is nothing to choose from"),
        ("rate", {"linear": [1, 2], "integer": [1, 2]}, "linear and integer are both given"),
        ("width", [0.5, 2], "width is a whole number, and its bounds 0.5 and 2 are not"),
        ("width", [1, 9], "width is searched from 1 to 9, and the field itself allows 1 to 8"),
        ("colour", "log", "which have no logarithm"),
        ("model", [1, 2], "model is a model, and has no bounds: name its fields"),
    ],
)
def test_spaces_that_are_refused(name: str, wanted: tp.Any, said: str) -> None:
    if said == "cannot":  # from the smallest number there is
        assert space(**{name: wanted}).described() == [("rate", "4.941e-324 to 10 (log)")]
        return
    with pytest.raises(ValueError, match=re.escape(said)):
        space(**{name: wanted})


def test_variants_are_drawn_with_what_they_hold() -> None:
    drawn = space("model", "optimizer.name", base={"model": {"kind": "net", "label": "x"}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    kinds = set()
    for _ in range(30):
        trial = study.ask()
        point = drawn.draw(trial)
        obj = tp.cast(searched.Task, drawn.object(point))
        kinds.add((obj.model.kind, type(obj.optimizer).__name__))
        assert ("model.dropout" in point) == (obj.model.kind == "net")
        assert (
            getattr(obj.model, "label", "x") == "x"
        )  # what all points share is of the variant that they share
        assert drawn.point(trial.params) == point
    assert len(kinds) == 6


def test_a_run_chooses_another_class_than_the_default(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["optimizer.name=Adam,Sgd", f"infra.folder={here / 'cache'}"]
    assert "2 tasks: 2 to compute here" in say(capsys, "run", "searched:Task", *given, "rate=1")


def test_a_dimension_of_the_variant_that_all_points_share() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    assert list(space("model.depth").draw(study.ask())) == ["model.depth"]
    net = space("model.depth", base={"model": {"kind": "net"}})
    assert net.draw(study.ask())["model.depth"] % 8 == 0
    assert net.point({"model[tree].depth": 3}) is None
    assert net.point({"model[net].depth": 9}) is None


# ------------------------------------------------------------------------------------------------------- its course


def test_a_search_finds_and_goes_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = search(capsys, here, *RATE, "-n", "12", "--seed", "1", f"file={here / 'computed'}")
    assert "12 trials: " in said
    assert "failed" in said
    assert "ValueError: diverged" in said
    assert float(re.findall(r"^best: (\S+)", said, re.MULTILINE)[0]) < 1
    computed = (here / "computed").read_text()
    assert computed.count("\n") == 12
    again = search(capsys, here, *RATE, "-n", "12", "--seed", "1", f"file={here / 'computed'}")
    assert again.startswith("goes on after 12 trials, 0 on their way\n12 trials: ")
    search(capsys, here, *RATE, "-n", "14", "--seed", "1", f"file={here / 'computed'}")
    assert (here / "computed").read_text().count("\n") == 14  # what failed is not computed again
    assert "14 tasks" in say(capsys, "ls", "cache", "--sweep", "Task")


def test_the_same_seed_gives_the_same_points(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*RATE, "fast=true,false", "-n", "10", "--seed", "3"]
    first = points(search(capsys, here, *given))
    assert len(set(first)) == 10
    for file in (here / "cache" / ".sweeps").iterdir():
        file.unlink()
    assert points(search(capsys, here, *given, f"file={here / 'computed'}")) == first
    assert not (here / "computed").exists()  # all is in the cache
    for file in (here / "cache" / ".sweeps").iterdir():
        file.unlink()
    search(capsys, here, *given[:-4], "-n", "4", "--seed", "3")
    assert points(search(capsys, here, *given)) == first[4:]  # stopped after four


def test_trials_of_a_seed_that_run_at_a_time_are_the_same(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*RATE, "-n", "4", "--seed", "5", "--jobs", "2"]
    first = points(search(capsys, here, *given))
    for file in (here / "cache" / ".sweeps").iterdir():
        file.unlink()
    assert points(search(capsys, here, *given)) == first


def test_the_cache_is_the_truth(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*RATE, "-n", "6", "--seed", "1"]
    said = search(capsys, here, *given)
    best = re.findall(r"^best: \S+ +(\w+)", said, re.MULTILINE)[0]
    say(capsys, "rm", "-C", "cache", best, "-y")
    said = search(capsys, here, *given)
    assert said.startswith("goes on after 5 trials")
    journal = here / "cache" / ".sweeps" / "Task.optuna.jsonl"
    for text in ("{", journal.read_text()[:-20], journal.read_text() + '{"op_code": 99}\n', "[]\n" * 9, ""):
        journal.write_text(text)
        assert "6 trials: " in search(capsys, here, *given, f"file={here / 'computed'}")
    said = search(capsys, here, "rate=interval(0.5,10)", "--maximize", "loss.test", "-n", "6")
    told = [float(value) for value in re.findall(r"\* (\S+)", said)]
    assert said.startswith("goes on after 6 trials")  # which are known by now, whatever is searched for
    assert not told


@pytest.mark.parametrize(
    "seed", [pytest.param([], marks=pytest.mark.long), ["--seed", "2"]], ids=["", "seed"]
)
def test_a_killed_driver_goes_on(here: Path, capsys: pytest.CaptureFixture[str], seed: list[str]) -> None:
    """Killed with two tasks on their way, which go on without it."""
    given = [*LOW, "-n", "3", "--jobs", "2", *seed, f"file={here / 'computed'}", f"gate={here / 'gate'}"]
    command = [
        sys.executable,
        "-m",
        "exca",
        "search",
        "searched:Task",
        *given,
        f"infra.folder={here / 'cache'}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as driver:
        computed = here / "computed"
        try:
            wait_for(lambda: computed.exists() and computed.read_text().count("\n") == 2, "two tasks")
            assert "is run by" in search(capsys, here, *given, code=2)
        finally:
            driver.send_signal(signal.SIGKILL)
            (here / "gate").touch()
    said = search(capsys, here, *given)
    assert said.startswith("goes on after 0 trials, 2 on their way")
    assert "3 trials: " in said
    assert computed.read_text().count("\n") == 3


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("cluster", ["local", pytest.param("slurm", marks=pytest.mark.slurm)])
def test_a_driver_that_is_killed_again_and_again(
    here: Path, capsys: pytest.CaptureFixture[str], cluster: str, request: pytest.FixtureRequest
) -> None:
    """At whatever moment: in the end there are the points of a search that was left alone, each computed once."""
    folder = request.getfixturevalue("slurm_folder") if cluster == "slurm" else here
    given = ["searched:Task", *LOW, "--space", "model,fast", "-n", "10", "--jobs", "2", "--seed", "4"]
    given += [f"infra.cluster={cluster}", f"file={folder / 'computed'}", f"infra.folder={folder / 'cache'}"]
    command = [sys.executable, "-m", "exca", "search", *given]
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    moments = random.Random(4)
    done = False
    while not done:
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as driver:
            try:
                done = driver.wait(moments.uniform(0.5, 6)) == 0
            except subprocess.TimeoutExpired:
                driver.send_signal(signal.SIGKILL)
    study = (folder / "cache" / ".sweeps" / "Task.json").read_text()
    uids = json.loads(study)["uids"]
    assert (folder / "computed").read_text().count("\n") == len(uids)
    for file in (folder / "cache" / ".sweeps").iterdir():
        file.unlink()
    assert "10 trials: 10 completed" in say(capsys, "search", *given)
    assert json.loads((folder / "cache" / ".sweeps" / "Task.json").read_text())["uids"] == uids
    assert (folder / "computed").read_text().count("\n") == len(uids)


def test_trials_are_pruned(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By what they give to log_metrics; pruned ones would take longer than the test may."""
    (here / "s.yaml").write_text(f"""
task: searched:Curve
base: {{infra: {{folder: {here / "cache"}}}}}
search:
  minimize: .
  space: {{level: {{choice: [0, 5]}}}}
  n: 9
  sampler: BruteForceSampler
  seed: 0
  prune: {{metric: loss, pruner: {{name: ThresholdPruner, upper: 4}}}}
""")
    said = say(capsys, "search", "s.yaml")
    assert "2 trials: 1 completed, 1 pruned" in said
    assert re.search(r"pruned at \d +\w+ +level=5$", said, re.MULTILINE)
    assert "2 trials: 1 completed, 1 pruned" in say(capsys, "search", "s.yaml")
    states = {row["state"]: row for row in json.loads(say(capsys, "ls", "cache", "--sweep", "s", "--json"))}
    assert states.keys() == {"completed", "pruned"}
    assert "nothing to remove" in say(capsys, "gc", "cache", "--failed")
    task = here / "cache" / states["pruned"]["method"] / states["pruned"]["uid"]
    assert json.loads((task / "pruned.json").read_text())["search"] == "s"
    infra = tp.cast(tp.Any, {"folder": "cache"})
    assert searched.Curve(level=5, infra=infra).infra.status() == "failed"  # one of four words
    text = (here / "s.yaml").read_text().replace("BruteForceSampler", "RandomSampler")
    (here / "s.yaml").write_text(text)
    said = say(capsys, "search", "s.yaml", "-n", "6")  # the same points again, which are as they were
    assert re.search(r"6 trials: \d completed, \d pruned", said)


def test_a_search_in_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"""
task: searched:Task
base: {{infra: {{folder: {here / "cache"}}}}}
where: "rate < 4"
search:
  maximize: loss.test
  space: {{rate: [0.5, 8], model: null}}
  n: 5
  seed: 0
"""
    (here / "s.yaml").write_text(text)
    assert "maximize loss.test, 5 trials, 1 at a time here" in say(capsys, "search", "s.yaml", "--dry-run")
    assert not (here / "cache").exists()
    said = say(capsys, "search", "s.yaml", "-n", "4")
    assert "4 trials: 4 completed" in said
    assert all(float(re.findall(r"rate=([\d.]+)", point)[0]) < 4 for point in points(said))
    assert len(json.loads(say(capsys, "table", "cache", "--sweep", "s", "--json"))) == 4
    assert "s.yaml describes a search: run it with `exca search s.yaml`" in say(
        capsys, "sweep", "s.yaml", code=2
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  n: 5", "  m: 5", "s.yaml:4: search.m: Extra inputs are not permitted; there are minimize"),
        ("  minimize: x", "", "the search has no goal: give minimize or maximize"),
        ("  minimize: x", "  minimize: x\n  maximize: y", "the search has no goal"),
        ("  n: 5", "  n: 5\n  sampler: TPESamplr", "has no class 'TPESamplr'; did you mean 'TPESampler'?"),
        ("  n: 5", "  n: 5\n  sampler: {name: TPESampler, x: 1}", "TPESampler cannot be made with {'x': 1}"),
        ("  n: 5", "  n: 5\n  prune: {metric: a, pruner: X}", "has no class 'X'"),
        ("search:", "grid: {fast: [true]}\nsearch:", "a search draws its own points: leave out grid"),
        ("rate: [1, 2]", "rate: [1, 2, 3]", "search.space.rate: Value error, two bounds are expected"),
        ("rate: [1, 2]", "model: {choice: [{kind: x}]}", "is not valid, so nothing was computed"),
        ("rate: [1, 2]", "", "the space of the search is empty"),
        ("folder: c", "cluster: null", "keeps no results: set infra.folder"),
    ],
)
def test_searches_that_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    text = "task: searched:Task\nbase: {infra: {folder: c}}\nsearch:\n  n: 5\n  minimize: x\n  space: {rate: [1, 2]}\n"
    assert old in text
    (here / "s.yaml").write_text(text.replace(old, new))
    assert said in say(capsys, "search", "s.yaml", code=2)
    assert not (here / "c").exists()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("loss.train", "has nothing at 'loss.train': it is a dict with the keys test"),
        ("loss", "has at 'loss' is no number: it is a dict with the keys test"),
        ("text", "is no number: it is a str"),
    ],
)
def test_a_key_that_leads_to_no_number(
    here: Path, capsys: pytest.CaptureFixture[str], key: str, said: str
) -> None:
    assert said in search(capsys, here, "rate=interval(1,2)", "--minimize", key, code=2)
    assert "1 on their way" in search(
        capsys, here, "rate=interval(1,2)", "--minimize", "loss.test", "-n", "1"
    )


def test_what_is_not_a_number_has_failed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "2 trials: 2 failed" in search(
        capsys, here, "--space", "fast,colour", "--minimize", "nan", "-n", "2", code=1
    )


def test_another_users_study_is_not_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid():
        pytest.skip("needs root, which can give a file to another user")
    search(capsys, here, *LOW, "-n", "2", "--seed", "1")
    journal = here / "cache" / ".sweeps" / "Task.optuna.jsonl"
    os.chown(journal, 64_321, 64_321)
    assert not search(capsys, here, *LOW, "-n", "2", "--seed", "1").startswith("goes on")
    assert journal.stat().st_uid == os.geteuid()


def test_a_condition_that_no_point_fulfils(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exca.cli.searching._MOST_REJECTED", 5)
    (here / "s.yaml").write_text(
        "task: searched:Task\nbase: {infra: {folder: c}}\nwhere: rate > 9\n"
        "search: {n: 5, minimize: x, space: {rate: [1, 2]}}\n"
    )
    assert "points in a row do not fulfil the condition (where)" in say(capsys, "search", "s.yaml", code=2)


def test_without_optuna(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exca.cli.searching._PACKAGE", "not_there")
    assert "exca search draws points with Optuna: pip install 'exca[search]'" in search(
        capsys, here, *RATE, code=2
    )


def test_two_searches_of_one_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search(capsys, here, *LOW, "-n", "1", "--name", "x")
    said = say(
        capsys, "search", "searched:Task.run", *LOW, f"infra.folder={here / 'cache'}", "--name", "x", code=2
    )
    assert "there is a sweep 'x' in" in said
