"""The code blocks of a document, run the way its reader would: as files in a folder of his own.

What stands behind the language of a fence says what a block is (GitHub shows none of it):

* ``python file=NAME``: a script; ``slurm`` behind it: needs the cluster; ``raises=ERROR``: ends with that error;
* any language with ``file=NAME``: a file that the scripts find beside them;
* ``text output`` and ``text error``: lines that the script before it prints, or ends with; ``...`` stands for anything;
* ``text tree``: files that are there after all scripts ran.
"""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

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
    for block in blocks:
        if block.language == "python":
            found.append(Script(block))
        elif "output" in block.words:
            found[-1] = dataclasses.replace(found[-1], output=block.body)
        elif "error" in block.words:
            found[-1] = dataclasses.replace(found[-1], error=block.body)
    return found


def run(script: Script, blocks: list[Block], folder: Path) -> None:
    """Write all files of a document, run one of its scripts there and compare what it prints."""
    for block in blocks:
        if block.file:
            (folder / block.file).write_text(block.body, encoding="utf-8")
    command = [sys.executable, script.block.file]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    error = script.block.words.get("raises")
    assert (done.returncode != 0) == (error is not None), done.stderr
    if error is not None:
        assert re.search(rf"^[\w.]*\b{error}\b", done.stderr, re.MULTILINE), done.stderr
    if script.output is not None:
        assert pattern_of(script.output).fullmatch(done.stdout.rstrip() + "\n"), done.stdout
    for line in (script.error or "").splitlines():
        assert re.search(f"^{_escaped(line)}$", done.stderr, re.MULTILINE), f"{line}\n\nnot in\n{done.stderr}"


def pattern_of(output: str) -> re.Pattern[str]:
    """Return the pattern of an output in which ``...`` stands for anything."""
    return re.compile(_escaped(output), re.DOTALL)


def _escaped(text: str) -> str:
    return re.escape(text).replace(re.escape("..."), ".*")


def missing_files(tree: Block, folder: Path) -> list[str]:
    """Return those lines of a tree of files that match no file in a folder.

    A line holds a name, in which ``*`` stands for anything, and a comment two or more spaces behind it; it lies in
    the folder above it that is indented by two spaces less.
    """
    above: list[str] = []
    missing = []
    for line in tree.body.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], re.split(r"  +", line.strip())[0]]
        if not list(folder.glob("/".join(above))):
            missing.append("/".join(above))
    return missing
