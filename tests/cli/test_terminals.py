"""What only reads, on a real terminal, in a pipe and into one that is closed: colours, pager, formats, exit codes."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
import typing as tp
from pathlib import Path

import pytest

import trained
from saying import say

READING: dict[str, list[str]] = {
    "ls": ["ls", "cache"],
    "show": ["show", "-C", "cache", "Train.loss", "-w", "rate == 0.5 and model.layers == 4"],
    "diff": ["diff", "-C", "cache", "Train.loss", "-w", "model.layers == 8 and rate < 5"],
    "table": ["table", "cache"],
    "du": ["du", "cache"],
    "eff": ["eff", "jobs"],
    "why": ["why", "trained:Train", "rate=1", "infra.folder=cache"],
    "verify": ["verify", "cache"],
    "doctor": ["doctor", "cache"],
}
LOGS = ["logs", "-C", "jobs", "-"]
COLOURED = {"ls", "show", "table", "doctor"}
# all in one interpreter, whose output is a terminal
CHILD = """
import sys
from exca.cli import main
for name, words in {commands!r}.items():
    print(f"<{{name}}>", flush=True)
    code = main(words)
    print(f"<end {{code}}>", flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("terminals")
    trained.make(made / "cache")
    trained.train(made / "jobs", infra={"cluster": "local"}).loss()
    return made


def on_terminal(
    folder: Path,
    commands: dict[str, list[str]],
    *,
    lines: int = 500,
    columns: int = 100,
    variables: dict[str, str] | None = None,
) -> dict[str, tuple[str, int]]:
    """What each command shows on a terminal of this size, and its exit code."""
    main, side = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "PAGER", "LESS")}
    environment |= {"TERM": "xterm", "LINES": str(lines), "COLUMNS": str(columns), "PAGER": "cat"}
    environment |= {"PYTHONPATH": str(Path(trained.__file__).parent), **(variables or {})}
    command = [sys.executable, "-c", CHILD.format(commands=commands)]
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=side, stdout=side, stderr=side):
        os.close(side)
        said = b""
        while True:
            try:
                data = os.read(main, 65536)
            except OSError:  # its last process has ended
                break
            if not data:
                break
            said += data
    os.close(main)
    text = said.decode().replace("\r\n", "\n")
    parts = re.findall(r"<(\w+)>\n(.*?)<end (\d+)>\n", text, re.DOTALL)
    assert [name for name, _, _ in parts] == list(commands), text
    return {name: (shown, int(code)) for name, shown, code in parts}


def test_colours_on_a_terminal(folder: Path) -> None:
    found = on_terminal(folder, {**READING, "logs": LOGS})
    assert {name for name, (shown, _) in found.items() if "\x1b" in shown} == COLOURED
    for name, (shown, code) in found.items():
        assert set(re.findall(r"\x1b[^m]*m", shown)) <= {f"\x1b[{n}m" for n in (0, 2, 31, 32, 33, 36)}
        assert code == 0 or name == "doctor"
        assert max(map(len, re.sub(r"\x1b\[\d+m", "", shown).splitlines()), default=0) <= 100 or name in (
            *("show", "why", "verify", "doctor", "logs"),
        )


@pytest.mark.parametrize("more", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours(folder: Path, more: dict[str, str]) -> None:
    for shown, _ in on_terminal(folder, {n: READING[n] for n in sorted(COLOURED)}, variables=more).values():
        assert "\x1b" not in shown


def test_a_pager_where_the_terminal_is_too_small(folder: Path) -> None:
    commands = {n: READING[n] for n in ("ls", "table", "why", "show", "diff")}
    found = on_terminal(folder, commands, lines=4, variables={"PAGER": "sed s/^/paged:/"})
    for name, (shown, code) in found.items():
        assert code == 0
        assert shown.startswith("paged:") == (name != "diff"), name  # which is one line
    assert "ls" in on_terminal(folder, {"ls": READING["ls"]}, lines=4, variables={"PAGER": "/nowhere/less"})


def test_a_narrow_terminal(folder: Path) -> None:
    for name, (shown, _) in on_terminal(folder, {n: READING[n] for n in ("ls", "table")}, columns=40).items():
        rows = [line for line in shown.splitlines() if "completed" in line and "tasks" not in line]
        assert rows, name
        assert all(len(re.sub(r"\x1b\[\d+m", "", line)) <= 40 for line in rows), shown
        assert "not shown, for want of width:" in shown


CLOSED = """
import os, sys
from exca.cli import main
for name, words in {commands!r}.items():
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    print(name, main(words), file=sys.stderr)
"""


def test_a_pipe_whose_reader_has_gone(folder: Path) -> None:
    commands = {
        **{n: w for n, w in READING.items() if n != "doctor"},
        "logs": LOGS,
        "json": ["ls", "cache", "--json"],
    }
    ran = subprocess.run(
        [sys.executable, "-c", CLOSED.format(commands=commands)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(trained.__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr.splitlines() == [f"{name} 0" for name in commands]


@pytest.mark.parametrize("name", READING)
def test_formats_of_what_only_reads(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    code = 1 if say_code(capsys, READING[name]) else 0
    assert json.loads(printed(capsys, [*READING[name], "--json"], code))
    rows = list(csv.reader(io.StringIO(printed(capsys, [*READING[name], "--csv"], code))))
    assert len(rows) > 1
    assert len({len(row) for row in rows}) == 1
    table = printed(capsys, [*READING[name], "--md"], code).splitlines()
    assert table[1].startswith("| --- |")
    assert len(table) == len(rows) + 1
    assert "not allowed with argument" in usage(capsys, [*READING[name], "--md", "--json"])


def say_code(capsys: pytest.CaptureFixture[str], words: list[str]) -> int:
    from exca.cli import main

    code = main(words)
    capsys.readouterr()
    return code


def printed(capsys: pytest.CaptureFixture[str], words: list[str], code: int) -> str:
    from exca.cli import main

    assert main(words) == code
    return capsys.readouterr().out


def usage(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    from exca.cli import main

    with pytest.raises(SystemExit) as e:
        main(words)
    assert e.value.code == 2
    return capsys.readouterr().err


def test_exit_codes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    unknown: tp.Any = {
        "show": ["ffff"],
        "diff": ["ffff"],
        "logs": ["ffff"],
        "ls": ["-w", "rate >"],
        "table": ["--state", "x"],
        "du": ["--since", "x"],
        "eff": ["--sweep", "x"],
        "verify": ["nowhere"],
        "doctor": ["--task", "ffff", "--bundle", "b.tar.gz"],
        "why": ["nowhere:X"],
    }
    for name, words in unknown.items():
        assert say(capsys, name, *words, code=2)
