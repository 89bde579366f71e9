"""What the page about the inside of a computation shows is what its reader gets."""

import subprocess
import sys
from pathlib import Path

import blocks

PAGE = Path(__file__).parents[2] / "docs" / "inside.md"
BLOCKS = blocks.blocks_of(PAGE)


SCRIPTS = {script.block.file: script for script in blocks.scripts_of(BLOCKS)}


def test_script_does_what_the_page_says(tmp_path: Path) -> None:
    blocks.run(SCRIPTS["train.py"], BLOCKS, tmp_path)


def test_tests_of_the_page_pass(tmp_path: Path) -> None:
    for name in ("conftest.py", "test_scaled.py"):
        (tmp_path / name).write_text(SCRIPTS[name].block.body)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
