"""The commands of the README exist. What its scripts do is played with all pages (tests/documents/test_pages.py)."""

import re
import tomllib
from pathlib import Path

import blocks

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BLOCKS = blocks.blocks_of(README)


def test_every_block_is_run_or_a_shell_command() -> None:
    rest = [block for block in BLOCKS if not block.file and block.language != "text"]
    assert {block.language for block in rest} == {"bash"}


def test_commands_exist() -> None:
    shell = "".join(block.body for block in BLOCKS if block.language == "bash")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"^make (\S+)", shell, re.MULTILINE)) <= set(targets)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r"\[(\w+)\]\"", shell)) <= set(project["optional-dependencies"])
