"""The examples on the pages docs/command-line.md and docs/pages.md print what these show."""

import io
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import blocks
from exca.cli import main
from exca.cli.commandline import parser

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = blocks.blocks_of(DOCS / "command-line.md")
PAGES = blocks.blocks_of(DOCS / "pages.md")
FIRST = next(k for k, block in enumerate(BLOCKS) if block.file == "fit.py")
ELSEWHERE = {"watch", "ui", "plot"}  # which do not end, or are on the page about pages
# what the blocks before the examples are about
TRAIN = """
import typing as tp

import pydantic

import exca


class Linear(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: tp.Literal["linear"] = "linear"


class Network(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: tp.Literal["network"] = "network"
    layers: int = pydantic.Field(2, ge=1, le=16)


class Train(pydantic.BaseModel):
    model: Linear | Network = pydantic.Field(default=Network(), discriminator="name")
    rate: float = 0.5
    dropout: float = pydantic.Field(0.0, ge=0, le=0.5)
    title: str = ""
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def loss(self) -> dict[str, tp.Any]:
        return {"loss": {"test": self.rate}, "accuracy": 1 - self.rate / 2}
"""


def examples(listed: Sequence[blocks.Block]) -> Iterator[tuple[str, str]]:
    """Each command line in blocks, and what it is said to print."""
    for block in listed:
        if block.language == "console":
            for example in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]:
                line, _, output = example.partition("\n")
                yield line, output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder of a reader, whose modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # the doctor has no Slurm to ask
    for name in ("fit", "train"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name in ("fit", "train"):
        sys.modules.pop(name, None)


def test_every_command_has_an_example() -> None:
    commands = next(action for action in parser()._actions if action.choices).choices
    shown = {shlex.split(line)[1] for line, _ in examples(BLOCKS[FIRST:])}
    assert set(commands or ()) == shown | ELSEWHERE


def test_examples_print_what_the_page_shows(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in BLOCKS:
        if block.file:
            (folder / block.file).write_text(block.body, encoding="utf-8")
    for line, output in examples(BLOCKS[FIRST:]):
        command, _, given = line.partition(" <<< ")
        words = shlex.split(command, comments=True)
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{text}\n" for text in shlex.split(given))))
        expected = int(match[1]) if (match := re.search(r"# exit code (\d)", line)) else 0
        code = main(words[1:])
        printed, errors = capsys.readouterr()
        assert code == expected, f"{line}\n{printed}{errors}"
        assert blocks.pattern_of(output).fullmatch(printed + errors), f"{line}\n{printed}{errors}"


def test_the_command_the_sweep_and_the_search_before_the_examples(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    pytest.importorskip("scipy")  # sobol
    (folder / "train.py").write_text(TRAIN)
    (folder / "config.yaml").write_text("infra: {folder: cache}\n")
    sweep, search = (block.body for block in BLOCKS[:FIRST] if block.language == "yaml")
    (folder / "sweep.yaml").write_text(sweep)
    (folder / "search.yaml").write_text(search)
    [(line, _)] = examples(BLOCKS[:FIRST])
    assert main(shlex.split(line)[1:]) == 0
    assert "2 tasks: 2 to submit to slurm" in capsys.readouterr().out
    assert main(["sweep", "sweep.yaml", "--dry-run"]) == 0
    assert "to submit to slurm" in capsys.readouterr().out
    assert main(["search", "search.yaml", "--dry-run"]) == 0
    assert "8 at a time on slurm\n  model.name" in capsys.readouterr().out


def test_the_lines_for_shells_write_a_completion(capsys: pytest.CaptureFixture[str]) -> None:
    [script] = [block.body for block in BLOCKS if block.language == "bash"]
    for line in script.splitlines():
        program, *words = shlex.split(line.partition(" > ")[0])
        assert program == "exca"
        assert main(words) == 0
        assert "exca" in capsys.readouterr().out


def without_chance(text: str) -> str:
    """Return a text without what differs from run to run: numbers, a token, the names of user and host."""
    text = re.sub(r"\?token=[\w-]+", "?token=TOKEN", text)
    return re.sub(r"\d[\d.]*", "NUMBER", re.sub(r"\S+@\S+", "USER@HOST", text))


def test_the_commands_on_the_page_about_pages_print_what_it_shows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("starlette")
    from exca.pages.gate import Gate, Keys
    from exca.pages.live import make_app
    from exca.pages.serving import USUAL_PORT, lines_to_print

    (folder / "train.py").write_text(TRAIN)
    assert main(shlex.split("run train:Train rate=0.1,0.2 model.layers=2,4 infra.folder=cache")) == 0
    capsys.readouterr()
    for line, output in examples(PAGES):
        words = shlex.split(line)
        if words[0] == "pip":  # what it names is in pyproject.toml: tests/test_documents.py
            continue
        if words[1] == "ui":  # it does not end
            keys = Keys()
            gate = Gate(make_app(str(folder), keys), keys)
            printed = "".join(f"{text}\n" for text in lines_to_print(gate, USUAL_PORT, ()))
        else:
            assert main(words[1:]) == 0
            printed = capsys.readouterr().out
        assert without_chance(printed) == without_chance(output), line
