"""The study of docs/from-joblib.md prints the same with joblib, before the change that the page shows."""

from pathlib import Path

import pytest

import blocks

DOCUMENT = Path(__file__).parents[2] / "docs" / "from-joblib.md"
BLOCKS = blocks.blocks_of(DOCUMENT)


def test_joblib_prints_the_same_before_the_change(tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    [diff] = [block for block in BLOCKS if block.language == "diff"]
    [study] = [script for script in blocks.scripts_of(BLOCKS) if script.block.file == "study.py"]
    body = study.block.body
    for removed, added in zip(*[iter(diff.body.splitlines())] * 2, strict=True):
        assert (removed[0], added[0]) == ("-", "+")
        assert body.count(f"{added[1:]}\n") == 1
        body = body.replace(added[1:], removed[1:])
    before = blocks.Block("python", study.block.words, body, study.block.line)
    blocks.play([before], [blocks.Script(before, study.output)], tmp_path)
