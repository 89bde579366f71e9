"""What the page about changed code shows is what its reader gets."""

from pathlib import Path

import blocks

PAGE = Path(__file__).parents[2] / "docs" / "changed-code.md"


def test_the_study_runs_and_its_change_is_told(tmp_path: Path) -> None:
    every = blocks.blocks_of(PAGE)
    scripts = {script.block.file: script for script in blocks.scripts_of(every)}
    for name in ("first.py", "later.py"):
        blocks.run(scripts[name], every, tmp_path)
