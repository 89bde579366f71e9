"""What type checkers see of a user's pipeline."""

import subprocess
import sys
from pathlib import Path

import pytest

import user_pipeline

FILE = Path(user_pipeline.__file__)
ROOT = Path(__file__).parents[2]
WRONG = ['Draw(size="many")', "Shift(far=1)"]  # on lines of their own, at the end


def test_the_pipeline_runs(tmp_path: Path) -> None:
    assert user_pipeline.use(tmp_path) == [14, 6, [0, 1, 2**0.5], 5]


@pytest.mark.parametrize(
    "command", [["mypy", "--strict", "--no-error-summary"], ["pyright"]], ids=["mypy", "pyright"]
)
def test_checkers_are_content_but_for_what_is_wrong(command: list[str], tmp_path: Path) -> None:
    pytest.importorskip(command[0])
    copy = tmp_path / FILE.name
    text = FILE.read_text().rstrip() + "\n\n\n"
    copy.write_text(text + "".join(f"{line}\n" for line in WRONG))
    first = text.count("\n") + 1
    done = subprocess.run(
        [sys.executable, "-m", *command, str(copy)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if f"{copy.name}:" in line and "error" in line]
    found = sorted({int(line.split(f"{copy.name}:")[1].split(":")[0]) for line in lines})
    assert found == [first, first + 1], done.stdout
