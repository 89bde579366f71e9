"""The commands that import the user's code: run, why, sweep, retry, shell, accept."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trained
from saying import say

SUPPORT = Path(trained.__file__).parent


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], here: Path, *arguments: str, code: int = 0) -> str:
    return say(capsys, *arguments, f"infra.folder={here / 'results'}", code=code)


def test_run_computes_and_prints(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, here, "run", "trained:Train.loss", "rate=1,2", "model.layers=2,4")
    assert said.startswith("4 tasks: 4 to compute here\n")
    assert [line.split()[-1] for line in said.splitlines()[1:]] == ["0.5", "0.25", "1.0", "0.5"]
    assert run(capsys, here, "run", "trained:Train", "rate=1,2", "--dry-run").startswith(
        "2 tasks: 2 cached\n"
    )


def test_equal_points_are_one_task(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, here, "run", "trained:Train", "rate=1,1.0,1e0").startswith("1 task: 1 to compute here")


def test_a_failure_is_an_exit_code(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, here, "run", "trained:Train", "rate=1,9", code=1)
    assert "failed: ValueError: diverged" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trained:Train", "rat=1"], "in 'rat=1': rat: Extra inputs are not permitted; did you mean 'rate'?"),
        (["trained:Train", "rate=fast"], "in 'rate=fast': rate: Input should be a valid number"),
        (
            ["trained:Train", "model.name=net"],
            "in 'model.name=net': model: Input tag 'net' found using 'name'",
        ),
        (
            ["trained:Train", "model.layers=x"],
            "in 'model.layers=x': model.network.layers: Input should be a valid integer",
        ),
        (["trained:Train", "~rate"], "'~rate' removes 'rate', which the configuration does not set"),
        (["trained:Train", "rate"], "'rate' is no override"),
        (["trained:Train", "rate=interval(0,1)"], "'rate=interval(0,1)' is for a search"),
        (["trained:Trein"], "trained has no 'Trein': did you mean 'Train'?"),
        (["trained:Train.lose"], "did you mean 'loss'?"),
        (["trained:make"], "'trained:make' is a function: what can be run is a class with an infra"),
        (["trained:Network"], "'trained:Network' names no method, and the class has none"),
        (["nowhere:Train"], "there is no module 'nowhere' to import for 'nowhere:Train'"),
        (["trained"], "'trained' names nothing to run: write module:Class"),
        (["trained:Train", "a.yaml", "b.yaml"], "one configuration file is read, and these are several"),
        (["trained:Train", "nowhere.yaml"], "cannot read nowhere.yaml"),
    ],
)
def test_what_cannot_be_run(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    found = run(capsys, here, "run", *arguments, code=2)
    assert said in found
    assert not (here / "results").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rate: 1\nmodel:\n  name: network\n  layrs: 3\n", "c.yaml:4: model.network.layrs: Extra inputs"),
        ("rate: fast\n", "c.yaml:1: rate: Input should be a valid number"),
        ("rate: 1\nrate: 2\n", "c.yaml:2: 'rate' is given twice, in line 1 too"),
        ("- 1\n", "holds a list: a configuration is a mapping"),
        ("rate: [1\n", "c.yaml cannot be read"),
        ("rate: !!python/name:os.system\n", "c.yaml cannot be read"),
    ],
)
def test_errors_point_to_the_line(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (here / "c.yaml").write_text(text)
    assert said in run(capsys, here, "run", "trained:Train", "c.yaml", code=2)


def test_values_take_the_type_of_the_field(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "c.yaml").write_text("rate: 2\nmodel: {name: network, layers: 8}\n")
    said = run(
        capsys, here, "run", "trained:Train", "c.yaml", "title=12", "model.name=linear", "~model.layers"
    )
    assert said.splitlines()[-1].endswith("   2.0")
    assert "title=12" in said


def test_help_of_a_target(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "run", "trained:Train", "--help")
    assert "rate: float   (default 0.5)" in said
    assert "A training." in said
    assert "  model.layers: int   (default 2)   [Network]\n" in said


def test_a_module_that_fails_on_import(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "broken_module.py").write_text("1 / 0\n")
    assert "importing 'broken_module' for 'broken_module:X' failed: ZeroDivisionError" in say(
        capsys, "run", "broken_module:X", code=2
    )


def test_why(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, here, "why", "trained:Train", "rate=1").startswith("miss: trained.Train.loss,1/")
    run(capsys, here, "run", "trained:Train", "rate=1")
    assert run(capsys, here, "why", "trained:Train", "rate=1").startswith("hit: trained.Train.loss,1/")


SWEEP = """
task: trained:Train.loss
base: {title: s, infra: {folder: FOLDER}}
grid: {model.layers: [2, 4], rate: {log: [0.01, 1], num: 3}}
zip: [{title: [a, b]}]
points: [{rate: 0.3}, {rate: 0.30}, {rate: 9}]
where: "not (model.layers == 4 and rate > 0.5)"
"""


def write_sweep(here: Path, text: str = SWEEP, name: str = "wide.yaml") -> str:
    (here / name).write_text(text.replace("FOLDER", str(here / "results")))
    return name


def test_a_sweep_computes_what_is_missing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_sweep(here)
    assert "13 points -> 12 tasks (1 equal)   12 to compute here" in say(capsys, "sweep", file, "--dry-run")
    assert not (here / "results").exists()
    assert "11 completed, 1 failed" in say(capsys, "sweep", file, code=1)
    assert "11 cached  1 failed (kept; --retry failed)" in say(capsys, "sweep", file, "--dry-run")
    assert "12 tasks: 11 completed, 1 failed" in say(capsys, "ls", "results", "--sweep", "wide")
    write_sweep(here, SWEEP.replace("[2, 4]", "[2, 4, 6]").replace(", {rate: 9}", ""))
    said = say(capsys, "sweep", file)
    assert "1 tasks of before are no longer in the sweep" in said
    assert "6 to compute here" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("grid:", "gird:", "wide.yaml:4: gird: Extra inputs are not permitted; did you mean 'grid'?"),
        ("rate: 9", "rat: 9", "the point rat=9 is not valid, so nothing was submitted"),
        (
            "{title: [a, b]}",
            "{title: [a, b], rate: [1]}",
            "must have equally many values: title has 2, rate has 1",
        ),
        ("log: [0.01, 1]", "log: [0, 1]", "has a bound that is not positive"),
        ("log: [0.01, 1]", "lag: [0.01, 1]", "wide.yaml:4: grid.rate"),
        (
            "log: [0.01, 1]",
            "log: [1, 2], linear: [1, 2]",
            "give either log: [low, high] or linear: [low, high]",
        ),
        (
            "grid:",
            "limits: {per_job: 2}\ngrid:",
            "wide.yaml:4: limits.per_job: Extra inputs are not permitted; there are",
        ),
        ('"not (', '"not not (', None),
        ("rate > 0.5)", "rate > )", "cannot read the filter"),
        ("trained:Train.loss", "trained:Trein", "did you mean 'Train'?"),
        ("infra: {folder: FOLDER}", "rate: 1", "keeps no results: set infra.folder"),
        ("rate > 0.5)", "rate > 0.5) and rate > 99", "has no points"),
    ],
)
def test_sweeps_that_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str | None
) -> None:
    assert old in SWEEP
    file = write_sweep(here, SWEEP.replace(old, new))
    if said is None:
        say(capsys, "sweep", file, "--dry-run")
        return
    assert said in say(capsys, "sweep", file, code=2)
    assert not (here / "results").exists()


def test_states_that_a_sweep_does_not_retry(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "sweep", write_sweep(here), "--retry", "failed,timeout", code=2)
    assert "--retry takes failed, not timeout: `exca retry --lost`" in said


def test_two_sweeps_of_one_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say(capsys, "sweep", write_sweep(here), code=1)
    (here / "other").mkdir()
    write_sweep(here, name="other/wide.yaml")
    said = say(capsys, "sweep", "other/wide.yaml", code=2)
    assert "there is a sweep 'wide' in" in said
    say(capsys, "sweep", "other/wide.yaml", "--name", "wider", code=1)


def test_a_sweep_in_python(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "grids.py").write_text(
        f"""
task = "trained:Train.loss"
def wide():
    for rate in (1, 2):
        yield {{"rate": rate, "infra.folder": {str(here / "results")!r}}}
"""
    )
    assert "2 completed, 0 failed" in say(capsys, "sweep", "grids.py:wide")
    assert "has no function 'narrow'" in say(capsys, "sweep", "grids.py:narrow", code=2)
    assert "2 tasks: 2 completed" in say(capsys, "ls", "results", "--sweep", "wide")


def test_a_sweep_with_a_relative_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_sweep(here, SWEEP.replace("FOLDER", "results"))
    assert "11 completed, 1 failed" in say(capsys, "sweep", file, code=1)
    assert "12 tasks" in say(capsys, "ls", "results", "--sweep", "wide")


def test_a_sweep_in_jobs_goes_on_and_waits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_sweep(
        here,
        f"""
task: trained:Train.loss
base: {{infra: {{folder: {here / "results"}, cluster: local}}}}
points: [{{rate: 1}}, {{rate: 9}}]
""",
    )
    assert "1 completed, 1 failed" in say(capsys, "sweep", file, "--wait", code=1)
    said = say(capsys, "sweep", file)  # there is nothing left to submit
    assert said == "2 points -> 2 tasks   1 cached  1 failed (kept; --retry failed)\n"
    assert "1 completed, 1 failed" in say(capsys, "sweep", file, "--wait", code=1)


@pytest.mark.parametrize("method", ["random", "sobol", "halton", "lhs"])
def test_samples(here: Path, capsys: pytest.CaptureFixture[str], method: str) -> None:
    text = f"""
task: trained:Train.loss
base: {{infra: {{folder: FOLDER}}}}
sample: {{method: {method}, n: 8, seed: 0, space: {{rate: {{log: [0.001, 1]}}, model.layers: {{integer: [1, 4]}}}}}}
"""
    file = write_sweep(here, text)
    assert "8 points -> 8 tasks" in say(capsys, "sweep", file)
    assert "8 cached" in say(capsys, "sweep", file, "--dry-run")  # the same points each time


def test_retry_of_failures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, here, "run", "trained:Train", "rate=1,9", code=1)
    assert "would compute 1 again" in say(capsys, "retry", "results", "--dry-run")
    assert "failed again: ValueError: diverged" in say(capsys, "retry", "results", code=1)
    assert "no task that failed or was interrupted fits" in say(
        capsys, "retry", "results", "-w", "rate == 1", code=2
    )


def test_retry_with_other_resources(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, here, "run", "trained:Train", "rate=9", "infra.cluster=local", "infra.timeout_min=3", code=1)
    assert "asked for no mem_gb, so x2 of it cannot be computed" in say(
        capsys, "retry", "results", "--mem", "x2", code=2
    )
    assert "submitted 1 of trained.Train.loss,1 again" in say(capsys, "retry", "results", "--time", "x2")
    obj = trained.train(here / "results", rate=9.0)
    with pytest.raises(ValueError, match="diverged"):
        obj.loss()
    assert "timeout_min 6" in say(capsys, "show", "-C", "results", "-")


@pytest.mark.parametrize("factor", ["xfast", "x", "xnan", "xinf", "x0", "x-1"])
def test_retry_takes_factors_that_are_some(
    factor: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = {"cluster": "local", "timeout_min": 3, "retries": 0}
    with pytest.raises(ValueError, match="diverged"):
        trained.train(here / "results", rate=9.0, infra=job).loss()
    said = say(capsys, "retry", "results", "--time", factor, code=2)
    assert f"{factor} is no factor for timeout_min: give one as in x1.5, or a number" in said


def test_retry_leaves_what_another_configuration_computed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file that the object is made of may be changed, and its object be another one, whose result would go."""
    run(capsys, here, "run", "trained:Train", "rate=1,9", code=1)
    config = next(path for path in here.rglob("config.yaml") if "rate=9" in path.parent.name)
    config.write_text(config.read_text().replace("9.0", "1.0"))
    before = json.loads(say(capsys, "ls", "results", "--json"))
    said = say(capsys, "retry", "results", code=2)
    assert re.search(
        r"the configuration in \S+rate=9\S* makes \S+rate=1\S* with trained:Train.loss: it was changed", said
    )
    assert json.loads(say(capsys, "ls", "results", "--json")) == before


def test_shell(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, here, "run", "trained:Train", "rate=1")
    command = [sys.executable, "-m", "exca", "shell", "-C", "results", "-"]
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    ran = subprocess.run(
        command, input="print(obj.rate, result)", capture_output=True, text=True, env=environment, check=True
    )
    assert "1.0 0.5" in ran.stdout


def test_a_strangers_folder_names_no_module(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid():
        pytest.skip("needs root, which can give a folder to another user")
    run(capsys, here, "run", "trained:Train", "rate=9", code=1)
    for path in [here / "results", *(here / "results").rglob("*")]:
        os.chown(path, 64_321, 64_321)
    said = say(capsys, "retry", "results", code=2)
    assert "so the module that it names is not imported: name it yourself" in said


def test_a_configuration_that_is_no_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "c.yaml").write_bytes(b"title: \xff\xfe")
    assert "c.yaml is no text in UTF-8" in run(capsys, here, "run", "trained:Train", "c.yaml", code=2)


def test_accept_wants_a_reason(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, here, "run", "trained:Train", "rate=1")
    assert "say why the change is harmless: --why" in say(capsys, "accept", "results", code=2)
    assert "no code has changed since the results" in say(capsys, "accept", "results", "--why", "x", code=2)
    assert say(capsys, "accept", "results", "--list") == "nothing was accepted here\n"


def test_why_names_only_what_differs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, here, "run", "trained:Train", "model.layers=4")
    said = run(
        capsys, here, "why", "trained:Train", "rate=0.7"
    )  # model.name is network in both, here by default
    assert re.search(r"nearest: .* differs in model\.layers 4 -> 2, rate 0\.5 -> 0\.7$", said, re.MULTILINE)
