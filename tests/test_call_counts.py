"""How far a call of the user's goes: at most as far as the design says."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import counted_calls

STRACE = shutil.which("strace")
DESIGN = Path(__file__).parents[1] / "docs" / "design.md"


def told() -> dict[str, tuple[int, ...]]:
    """Return modules, own functions and file system calls of each case, as the table of the design has them."""
    table = DESIGN.read_text(encoding="utf-8").partition("## How far a call goes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\w ]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", table, re.MULTILINE)
    return {name: tuple(int(count.replace(",", "")) for count in counts) for name, *counts in rows}


@pytest.mark.skipif(STRACE is None, reason="needs strace, which records the system calls")
def test_calls_go_no_further_than_the_design_says(tmp_path: Path) -> None:
    assert STRACE is not None
    log = tmp_path / "calls"
    script = str(Path(counted_calls.__file__))
    command = [STRACE, "-o", str(log), sys.executable, script]
    with tempfile.TemporaryDirectory(
        prefix="exca-calls-"
    ) as folder:  # as deep in each run: a level costs calls
        command.append(f"{folder}/one/two/cache")
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if "ptrace" in ran.stderr:
        pytest.skip(f"no process can be traced here: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    own = json.loads(ran.stdout)
    files = counted_calls.file_calls(log.read_text())
    found = {name: (*own[name], files[name]) for name in own}
    expected = told()
    assert found.keys() == expected.keys()
    further = {
        name: (found[name], expected[name])
        for name in found
        if any(map(int.__gt__, found[name], expected[name]))
    }
    assert further == {}
