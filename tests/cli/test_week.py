"""A week of work, written as commands of a shell in the documents, does what the page says."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import blocks

PAGE = Path(__file__).parents[2] / "docs" / "a-week.md"
BLOCKS = blocks.blocks_of(PAGE)
DAYS = [
    (script, output)
    for script, output in itertools.pairwise(BLOCKS)
    if script.language == "bash" and "output" in output.words
]


@pytest.mark.timeout(240)
def test_a_week(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    for block in BLOCKS:
        if block.file:
            (tmp_path / block.file).write_text(block.body, encoding="utf-8")
    command = tmp_path / "bin" / "exca"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m exca "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "COLUMNS": "120"}
    assert len(DAYS) == 5
    for day, output in DAYS:
        ran = subprocess.run(
            ["bash", "-eu", day.file],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{day.file}\n{ran.stdout}\n{ran.stderr}"
        assert blocks.pattern_of(output.body).fullmatch(ran.stdout), f"{day.file}\n{ran.stdout}\n{ran.stderr}"
