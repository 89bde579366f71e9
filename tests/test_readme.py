"""What the README shows is what its reader gets."""

import re
import tomllib
from pathlib import Path

import pytest

import blocks

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = blocks.blocks_of(README)
SCRIPTS = blocks.scripts_of(BLOCKS)


def name(script: blocks.Script) -> str:
    return script.block.file


def test_every_block_is_run_or_a_shell_command() -> None:
    assert all(script.block.file for script in SCRIPTS)
    rest = [block for block in BLOCKS if not block.file and block.language != "text"]
    assert {block.language for block in rest} == {"bash"}


@pytest.mark.parametrize("script", [s for s in SCRIPTS if "slurm" not in s.block.words], ids=name)
def test_script_does_what_stands_behind_it(script: blocks.Script, tmp_path: Path) -> None:
    blocks.run(script, BLOCKS, tmp_path)


@pytest.mark.slurm
@pytest.mark.parametrize("script", [s for s in SCRIPTS if "slurm" in s.block.words], ids=name)
def test_slurm_script_does_what_stands_behind_it(script: blocks.Script, slurm_folder: Path) -> None:
    blocks.run(script, BLOCKS, slurm_folder)


def test_files_lie_where_the_tree_shows_them(tmp_path: Path) -> None:
    for script in SCRIPTS:
        if script.block.file in ("first.py", "grid.py", "lengths.py"):
            alone = blocks.Script(script.block)  # what it prints depends on what ran before
            blocks.run(alone, BLOCKS, tmp_path)
    [tree] = [block for block in BLOCKS if "tree" in block.words]
    assert blocks.missing_files(tree, tmp_path) == []


def test_commands_and_links_exist() -> None:
    shell = "".join(block.body for block in BLOCKS if block.language == "bash")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"^make (\S+)", shell, re.MULTILINE)) <= set(targets)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r"\[(\w+)\]\"", shell)) <= set(project["optional-dependencies"])
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT):
        assert (ROOT / link).exists(), link
