"""What docs/from-joblib.md shows is what its reader gets, with joblib as before the change too."""

from pathlib import Path

import pytest

import blocks

DOCUMENT = Path(__file__).parents[2] / "docs" / "from-joblib.md"
BLOCKS = blocks.blocks_of(DOCUMENT)
SCRIPTS = [script for script in blocks.scripts_of(BLOCKS) if script.block.file != "train.py"]


def test_every_block_is_run() -> None:
    assert {block.file for block in BLOCKS if block.language != "text"} == {
        "study.diff",
        "train.py",
        *(script.block.file for script in SCRIPTS),
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.block.file)
def test_script_does_what_stands_behind_it(script: blocks.Script, tmp_path: Path) -> None:
    assert script.output is not None
    blocks.run(script, BLOCKS, tmp_path)


def test_joblib_prints_the_same_before_the_change(tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    [diff] = [block for block in BLOCKS if block.language == "diff"]
    [study] = [script for script in SCRIPTS if script.block.file == "study.py"]
    body = study.block.body
    for removed, added in zip(*[iter(diff.body.splitlines())] * 2, strict=True):
        assert (removed[0], added[0]) == ("-", "+")
        assert body.count(f"{added[1:]}\n") == 1
        body = body.replace(added[1:], removed[1:])
    before = blocks.Block("python", study.block.words, body, study.block.line)
    blocks.run(blocks.Script(before, study.output), [before], tmp_path)
