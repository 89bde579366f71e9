"""The backend of the page on backends is registered as a package registers it, and passes the published tests."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import blocks
from packages import installed

PAGE = Path(__file__).parents[2] / "docs" / "own-backend.md"


def test_the_backend_of_the_page_passes_the_published_tests(tmp_path: Path) -> None:
    """A few of them: each starts interpreters."""
    page = blocks.blocks_of(PAGE)
    code = {block.file: block.body for block in page if block.language == "python"}
    [project] = [tomllib.loads(block.body)["project"] for block in page if block.language == "toml"]
    [(name, value)] = project["entry-points"]["exca.backends"].items()
    installed(tmp_path, "my_engine", name, value, code["my_engine.py"])
    (tmp_path / "test_my_engine.py").write_text(code["test_my_engine.py"])
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["exca.testing.backend_tests"]\n')
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    wanted = "again or cancelled or tag or step or exchanged or question"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", wanted, "-rs"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=110
    )
    assert re.search(r"^6 passed", done.stdout, re.MULTILINE), done.stdout
