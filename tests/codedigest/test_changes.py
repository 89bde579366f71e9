"""What changes the result of a method changes its digest; what is only written in another way changes neither."""

import json
import typing as tp
from pathlib import Path

import pytest

from projects import Project, unresolved

CASES: list[dict[str, tp.Any]] = json.loads(
    (Path(__file__).parent / "data" / "changes.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_changes(project: Project, case: dict[str, tp.Any]) -> None:
    """Each change has a method that runs give another result, and another digest; or neither."""
    files = {name: case[name] for name in ("model.py", "helper.py")}
    project.write(files)
    before = project.digest()
    result = repr(project.load("Model")().run())
    assert not unresolved(before)
    for change in case["changes"]:
        text = files[change["file"]]
        assert change["old"] in text
        project.write({**files, change["file"]: text.replace(change["old"], change["new"])})
        after = project.digest()
        changed = repr(project.load("Model")().run()) != result
        assert (after.digest != before.digest) is change["counts"], sorted(after.content.parts)
        assert change["counts"] or not changed
