"""How far a call of the user's goes: at most as far as the design says."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import counted_calls
import counted_instructions

STRACE, VALGRIND, COMPILER = (shutil.which(name) for name in ("strace", "valgrind", "gcc"))
DESIGN = Path(__file__).parents[1] / "docs" / "design.md"
SLACK = 1.05  # builds of one Python differ by a few percent, runs by one


def in_the_design() -> str:
    return DESIGN.read_text(encoding="utf-8").partition("## How far a call goes")[2].partition("\n## ")[0]


def told() -> dict[str, tuple[int, ...]]:
    """Return modules, own functions and file system calls of each case, as the table of the design has them."""
    table = in_the_design()
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


def instructions_told() -> dict[str, float]:
    rows = re.findall(r"^\| ([\w ,]+) \| (\d+\.\d+) \|$", in_the_design(), re.MULTILINE)
    return {name: float(ratio) for name, ratio in rows}


@pytest.mark.skipif(
    VALGRIND is None or COMPILER is None, reason="needs valgrind and gcc, to count instructions"
)
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the design has the instructions of Python 3.11")
def test_hot_paths_take_no_more_instructions_than_the_design_says(tmp_path: Path) -> None:
    assert VALGRIND is not None
    assert COMPILER is not None
    source = Path(counted_instructions.__file__)
    marks = tmp_path / "marks.so"
    build = [
        COMPILER,
        "-shared",
        "-fPIC",
        "-O1",
        "-o",
        str(marks),
        str(source.with_name("callgrind_marks.c")),
    ]
    subprocess.run(build, check=True)
    command = [VALGRIND, "-q", "--tool=callgrind", "--instr-atstart=no"]
    command += [f"--callgrind-out-file={tmp_path}/callgrind.out", sys.executable, str(source)]
    with tempfile.TemporaryDirectory(prefix="exca-calls-") as folder:
        command += [folder, str(marks)]
        ran = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0"}, check=False
        )
    assert ran.returncode == 0, ran.stderr
    found, expected = counted_instructions.ratios(tmp_path), instructions_told()
    assert found.keys() == expected.keys()
    assert {name: ratio for name, ratio in found.items() if ratio > SLACK * expected[name]} == {}
