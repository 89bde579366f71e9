"""What the page about the inside of a computation shows is what its reader gets."""

from pathlib import Path

import pytest

import blocks

PAGE = Path(__file__).parents[2] / "docs" / "inside.md"
BLOCKS = blocks.blocks_of(PAGE)


@pytest.mark.parametrize("script", blocks.scripts_of(BLOCKS), ids=lambda script: script.block.file)
def test_script_does_what_the_page_says(script: blocks.Script, tmp_path: Path) -> None:
    blocks.run(script, BLOCKS, tmp_path)
