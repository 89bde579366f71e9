"""The commands that only read, on folders of tasks, maps, steps, functions and earlier releases."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trained
from exca.cli import commandline
from saying import say

LEGACY = Path(__file__).parents[1] / "legacy_caches"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("looking") / "results"
    trained.make(folder)
    return folder


def test_ls_shows_what_differs(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "ls", cache)
    assert "trained.Train.loss,1   6 tasks: 4 completed, 2 failed   all: model.name=network" in said
    assert re.search(r"id +state +model.layers +rate +seconds +value +host +when +error", said)
    assert re.search(r"failed +8 +9 .*ValueError: diverged", said)
    assert "trained.Squares.of,0   1 cache" in said
    assert re.search(r"stored +1 +3 ", said)


def test_what_all_share_by_default_is_no_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained.train(tmp_path).loss()  # of which nothing is given
    trained.train(tmp_path, model=trained.Network(layers=4)).loss()
    said = say(capsys, "ls", tmp_path)
    assert "2 tasks: 2 completed   all: model.name=network\n" in said
    assert "model.name " not in said


def test_ls_filters_and_sorts(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "ls", cache, "-w", "rate >= 1", "--state", "completed", "--sort", "model.layers", "-r")
    rows = [line.split() for line in said.splitlines() if " completed " in f" {line} "][1:]
    assert [row[2] for row in rows] == ["8", "4"]
    assert say(capsys, "ls", cache, "--user", "nobody") == f"nothing in {cache} fits these filters\n"
    assert say(capsys, "ls", cache, "-w", "raet == 1") == f"nothing in {cache} fits these filters\n"
    assert "...  --all for 4 more" in say(capsys, "ls", cache, "-n", 2)
    assert say(capsys, "ls", cache, "--since", "1d", "--json") == say(capsys, "ls", cache, "--json")
    assert re.search(r"^ +rate +_user$", say(capsys, "ls", cache, "--cols", "rate,_user"), re.MULTILINE)


@pytest.mark.parametrize("command", ["ls", "table"])
def test_a_column_that_no_row_has_is_told(
    cache: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert commandline.main([command, str(cache), "--cols", "ratee,_state", "--sort", "nonsense"]) == 0
    said = capsys.readouterr().err
    assert "exca: no row has 'ratee'; did you mean 'rate'?\n" in said
    assert "exca: no row has 'nonsense'; there are " in said
    assert "_state" not in said.replace("_state,", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-w", "rate >"], "cannot read the filter 'rate >'"),
        (["--state", "done"], "no state is called done: known are completed, failed"),
        (["--since", "yesterday"], "cannot read the time 'yesterday': give an age"),
        (["ffff"], "'ffff' is no folder, and no hash, job id or method in"),
        (["--sweep", "wide"], "there is no sweep 'wide' in"),
        (["--sweep", "../x"], "'../x' is no name of a sweep"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(
    cache: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in say(capsys, "ls", "-C", cache, *arguments, code=2)


def test_formats(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    as_json = json.loads(say(capsys, "ls", cache, "--json"))
    assert {row["state"] for row in as_json} == {"completed", "failed", "stored"}
    rows = list(csv.DictReader(io.StringIO(say(capsys, "table", cache, "--csv"))))
    assert len(rows) == 7
    assert {(row["rate"], row["model.layers"], row["value"]) for row in rows} >= {
        ("1.0", "4", "0.25"),
        ("9.0", "8", ""),
    }
    assert "| id | state |" in say(capsys, "table", cache, "--md")


def test_a_table_goes_into_a_file(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pandas as pd

    say(capsys, "table", cache, "-o", tmp_path / "t.parquet")
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert sorted(frame["_value"].dropna()) == [0.0625, 0.125, 0.125, 0.25]
    say(capsys, "table", cache, "-o", tmp_path / "t.csv")
    assert len(pd.read_csv(tmp_path / "t.csv")) == 7
    assert "t.doc has no ending that is known" in say(
        capsys, "table", cache, "-o", tmp_path / "t.doc", code=2
    )


@pytest.mark.parametrize("name", ["hash", "path", "method", "latest", "uid"])
def test_show_takes_any_name(cache: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    rows = json.loads(say(capsys, "ls", cache, "--json", "-w", "rate == 9 and model.layers == 8"))
    [row] = rows
    names = {
        "hash": [row["id"][:6]],
        "path": [cache / row["method"] / row["uid"]],
        "method": ["Train.loss", "-w", "rate == 9 and model.layers == 8"],
        "latest": ["-", "-w", "rate == 9"],
        "uid": [row["uid"]],
    }
    if name == "latest":  # of all there is, which may be the map's
        assert re.match(r"trained\.\w+\.", say(capsys, "show", "-C", cache, "-"))
        return
    said = say(capsys, "show", "-C", cache, *names[name])
    assert said.startswith("trained.Train.loss,1   rate=9, ") or "rate=9" in said.splitlines()[0]
    assert "error     ValueError: diverged" in said
    assert f"folder    {cache}" in said


def test_show_wants_one(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "several tasks match, and one is needed" in say(capsys, "show", "-C", cache, "Train.loss", code=2)
    assert "nothing in" in say(capsys, "show", "-C", cache, "Train.loss", "--user", "nobody", code=2)


def test_diff(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(say(capsys, "ls", cache, "--json", "-w", "model.layers == 8 and rate < 5"))
    said = say(capsys, "diff", "-C", cache, *(row["id"] for row in rows))
    assert re.search(r"^rate +[\d.]+ -> [\d.]+$", said, re.MULTILINE)
    assert "model.layers" not in said
    assert "two tasks are compared, and 1 fit" in say(capsys, "diff", "-C", cache, rows[0]["id"], code=2)


def test_logs_of_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    obj = trained.train(tmp_path / "jobs", rate=9.0, infra={"cluster": "local"})
    with pytest.raises(ValueError, match="diverged"):
        obj.loss()
    assert "ValueError: diverged" in say(capsys, "logs", "-C", tmp_path / "jobs", "-", "--err")
    assert say(capsys, "logs", "-C", tmp_path / "jobs", "-", "--err", "-n", 1).count("\n") <= 1
    assert say(capsys, "logs", "-C", tmp_path / "jobs", "-", "--err", "-f").endswith("\n")


def test_there_is_no_log_without_a_job(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "logs", "-C", cache, "Train.loss", "-w", "rate == 1 and model.layers == 4", code=2)
    assert "was computed by no job, so there is no log" in said


def test_du(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "du", cache)
    assert re.search(r"trained.Train.loss,1   6 tasks", said)
    assert said.splitlines()[-1].endswith("in all")
    assert sum(row["tasks"] for row in json.loads(say(capsys, "du", cache, "--json"))) == 7


def test_eff_speaks_of_jobs(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no task here was computed by a job" in say(capsys, "eff", cache)
    trained.train(
        tmp_path / "jobs", infra={"cluster": "local", "mem_gb": 64, "timeout_min": 600, "cpus_per_task": 4}
    ).loss()
    said = say(capsys, "eff", tmp_path / "jobs")
    assert re.search(r"memory: used at most 0% of 64 GiB: mem_gb=1 would do", said)
    assert re.search(r"time: the longest took 0.* of 600 minutes: timeout_min=1 would do", said)


def test_verify(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "damaged" in say(capsys, "verify", cache)
    harmed = tmp_path / "harmed"
    trained.make(harmed)
    record = next(harmed.rglob("job.json"))
    record.write_bytes(record.read_bytes().replace(b"state", b"stale"))
    assert "the record is damaged" in say(capsys, "verify", harmed, code=1)
    say(capsys, "verify", harmed, "--repair", code=1)
    say(capsys, "verify", harmed)


def test_earlier_releases(capsys: pytest.CaptureFixture[str]) -> None:
    assert "stored" in say(capsys, "ls", LEGACY)
    assert json.loads(say(capsys, "ls", LEGACY, "--json"))


def test_what_is_no_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert say(capsys, "ls", tmp_path) == f"nothing is cached in {tmp_path}\n"
    assert "is no folder, and no hash" in say(capsys, "ls", tmp_path / "nowhere", code=2)


def test_hostile_names_move_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained.train(tmp_path / "c", title="\x1b[2J\u202e<script>\n=1+1|x").loss()
    for arguments in (
        ["ls", tmp_path / "c", "--all-cols"],
        ["show", "-C", tmp_path / "c", "-"],
        ["table", tmp_path / "c"],
    ):
        said = say(capsys, *arguments)
        assert "\x1b" not in said
        assert "\u202e" not in said
        assert "script" in said


def exca(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "exca", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_a_broken_pipe_is_no_error(cache: Path) -> None:
    command = f"{sys.executable} -m exca ls {cache} --all | true; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert ran.stdout == "0\n"
    assert ran.stderr == ""


def test_help_and_version() -> None:
    assert exca("--version").stdout.startswith("exca ")
    helped = exca("--help")
    assert helped.returncode == 0
    assert "list what is there" in helped.stdout
    assert exca().returncode == 0
    wrong = exca("lst")
    assert wrong.returncode == 2
    assert "invalid choice: 'lst'" in wrong.stderr


def test_help_imports_little() -> None:
    code = """
import sys, exca.cli.commandline as m
m.parser()
print(sorted({'rich', 'pydantic', 'numpy', 'yaml'} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_an_ambiguous_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for uid in ("x=1-abcd0001", "x=2-abcd0002"):
        (tmp_path / "m.C.run,1" / uid).mkdir(parents=True)
        (tmp_path / "m.C.run,1" / uid / "uid.yaml").write_text("x: 1\n")
    said = say(capsys, "show", "-C", tmp_path, "abcd", code=2)
    assert "'abcd' is the beginning of several hashes: abcd0001, abcd0002. Give more of its digits" in said
    assert "abcd0002" in say(capsys, "show", "-C", tmp_path, "abcd0002")


def test_a_damaged_sweep(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".sweeps").mkdir()
    for text, said in (
        ("{", "is damaged"),
        (
            '{"version": 1, "name": "a", "source": "b", "target": "c", "uids": [1]}',
            "it holds other things than texts",
        ),
        ('{"version": 9}', "is of version 9, and this release knows 1: update exca"),
    ):
        (tmp_path / ".sweeps" / "wide.json").write_text(text)
        assert said in say(capsys, "ls", tmp_path, "--sweep", "wide", code=2)
