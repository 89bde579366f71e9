"""The code blocks of a document, run the way its reader would: as files in an empty folder, in their order.

What is written behind the language of a fence says what a block is (neither GitHub nor the site shows it):

* ``python file=NAME`` or ``bash file=NAME``: a script. ``slurm`` behind it: needs the cluster; ``raises=ERROR``: ends
  with that error; ``fresh``: has a folder without what the scripts before it left. pytest runs files ``test_*.py``;
* ``python`` alone: one script, of all such blocks of the page; ``untyped=REASON``: why type checkers would complain;
* any language with ``notest=REASON``: cannot be run here, and why; with ``played=PATH``: this test plays it;
* any language with ``file=NAME``: a file that the scripts find beside them;
* ``text output`` and ``text error``: lines that the script before it prints, or ends with; ``...`` matches anything;
* ``text tree``: files that are there after all scripts ran.
"""

import atexit
import dataclasses
import functools
import itertools
import os
import re
import sys
from pathlib import Path

from play import Player

JOINED = "page.py"  # all blocks of a page that have no name
KINDS = ("stdout", "stderr", "code")
_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block: its language, the words behind it, its text, and the line it starts at."""

    language: str
    words: dict[str, str]
    body: str
    line: int

    @property
    def file(self) -> str:
        """Name of the file that it is, or an empty text."""
        return self.words.get("file", "")


@dataclasses.dataclass(frozen=True)
class Script:
    """A script of a document and what is said to come of it."""

    block: Block
    output: str | None = None
    error: str | None = None


def blocks_of(document: Path) -> list[Block]:
    """Return all code blocks of a document, in order."""
    text = document.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        language, *words = match["info"].split() or [""]
        pairs = (word.partition("=") for word in words)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(language, {key: value for key, _, value in pairs}, match["body"], line))
    return found


def scripts_of(blocks: list[Block]) -> list[Script]:
    """Return the scripts among the blocks, each with the output that follows it."""
    found: list[Script] = []
    joined: int | None = None  # where the script of the blocks without a name is
    last = 0
    for block in blocks:
        if block.language == "python" and not block.file and not {"notest", "played"} & set(block.words):
            if joined is None:
                joined = len(found)
                found.append(Script(dataclasses.replace(block, words={**block.words, "file": JOINED})))
            else:
                before = found[joined].block
                body = f"{before.body}\n\n{block.body}"
                found[joined] = dataclasses.replace(
                    found[joined], block=dataclasses.replace(before, body=body)
                )
            last = joined
        elif block.file and (block.language == "python" or block.file.endswith(".sh")):
            found.append(Script(block))
            last = len(found) - 1
        elif "output" in block.words:
            found[last] = dataclasses.replace(found[last], output=(found[last].output or "") + block.body)
        elif "error" in block.words:
            found[last] = dataclasses.replace(found[last], error=block.body)
    return found


def files_of(blocks: list[Block]) -> dict[str, str]:
    """Return the files that a page gives its reader, by their names."""
    found = {script.block.file: script.block.body for script in scripts_of(blocks)}
    return found | {block.file: block.body for block in blocks if block.file}


def play(blocks: list[Block], scripts: list[Script], folder: Path) -> None:
    """Run scripts of a page, each in a fork of one interpreter, and compare what they print.

    Each of them finds the files of the page as the page has them, and what the scripts before it left.
    """
    if not scripts:
        return
    fresh = [number for number, script in enumerate(scripts) if number == 0 or "fresh" in script.block.words]
    for start, end in itertools.pairwise([*fresh, len(scripts)]):
        here = folder / str(start)
        _play(blocks, scripts[start:end], here)
    for tree in (block for block in blocks if "tree" in block.words):
        assert missing_files(tree, folder / "0") == []


@functools.cache
def _player() -> Player:
    player = Player()
    atexit.register(player.close)
    return player


def _play(blocks: list[Block], scripts: list[Script], folder: Path) -> None:
    came, binaries = folder.with_name(f"{folder.name}-came"), folder.with_name(f"{folder.name}-bin")
    for each in (folder, came, binaries):
        each.mkdir(parents=True)
    for name, body in files_of(blocks).items():
        (folder / name).write_text(body, encoding="utf-8")
    command = binaries / "exca"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m exca "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "COLUMNS": "120"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # as in the player, for the processes that scripts start
    names = [script.block.file for script in scripts if script.block.file != "conftest.py"]
    _player().play(folder, came, names, environment)
    for script in scripts:
        if script.block.file in names:
            _compare(script, *((came / f"{script.block.file}.{kind}").read_text() for kind in KINDS))


def _compare(script: Script, stdout: str, stderr: str, code: str) -> None:
    name, error = script.block.file, script.block.words.get("raises")
    assert (code != "0") == (error is not None), f"{name}: exit code {code}\n{stdout}\n{stderr}"
    if error is not None:
        assert re.search(rf"^[\w.]*\b{error}\b", stderr, re.MULTILINE), f"{name}\n{stderr}"
    if script.output is not None:
        assert pattern_of(script.output).fullmatch(stdout.rstrip() + "\n"), f"{name}\n{stdout}\n{stderr}"
    for line in (script.error or "").splitlines():
        assert re.search(f"^{_escaped(line)}$", stderr, re.MULTILINE), f"{name}: {line}\n\nnot in\n{stderr}"


def pattern_of(output: str) -> re.Pattern[str]:
    """Return the pattern of an output in which ``...`` matches anything."""
    return re.compile(_escaped(output), re.DOTALL)


def _escaped(text: str) -> str:
    return re.escape(text).replace(re.escape("..."), ".*")


def missing_files(tree: Block, folder: Path) -> list[str]:
    """Return those lines of a tree of files that match no file in a folder.

    A line holds a name, in which ``*`` matches anything, and a comment after two or more spaces; the file is in the
    folder named above it that is indented by two spaces less.
    """
    above: list[str] = []
    missing = []
    for line in tree.body.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], re.split(r"  +", line.strip())[0]]
        if not list(folder.glob("/".join(above))):
            missing.append("/".join(above))
    return missing
