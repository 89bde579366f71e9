"""The examples on the page about the command line print what the page shows."""

import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import blocks
from exca.cli import main
from exca.cli.commandline import parser

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
BLOCKS = blocks.blocks_of(PAGE)
ELSEWHERE = {"watch", "ui", "plot"}  # which do not end, or are played in tests of their own


def examples() -> Iterator[tuple[str, str]]:
    """Each command line after the files of the examples, and what it is said to print."""
    first = next(k for k, block in enumerate(BLOCKS) if block.file == "fit.py")
    for block in BLOCKS[first:]:
        if block.language == "console":
            for example in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]:
                line, _, output = example.partition("\n")
                yield line, output


def test_every_command_has_an_example() -> None:
    commands = next(action for action in parser()._actions if action.choices).choices
    shown = {shlex.split(line)[1] for line, _ in examples()}
    assert set(commands or ()) == shown | ELSEWHERE


def test_examples_print_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in BLOCKS:
        if block.file:
            (tmp_path / block.file).write_text(block.body, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "fit", raising=False)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # the doctor has no Slurm to ask
    for line, output in examples():
        command, _, given = line.partition(" <<< ")
        words = shlex.split(command, comments=True)
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{text}\n" for text in shlex.split(given))))
        expected = int(match[1]) if (match := re.search(r"# exit code (\d)", line)) else 0
        code = main(words[1:])
        printed, errors = capsys.readouterr()
        assert code == expected, f"{line}\n{printed}{errors}"
        assert blocks.pattern_of(output).fullmatch(printed + errors), f"{line}\n{printed}{errors}"
    sys.modules.pop("fit", None)
