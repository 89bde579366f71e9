"""Every block of docs/pipelines.md runs, in its order."""

import re
import typing as tp
from pathlib import Path

DOC = Path(__file__).parents[2] / "docs" / "pipelines.md"


def test_the_blocks_run_as_written(tmp_path: Path) -> None:
    namespace: dict[str, tp.Any] = {"__name__": "pipelines_doc"}
    blocks = re.findall(r"^```python([^\n]*)\n(.*?)^```$", DOC.read_text("utf8"), re.MULTILINE | re.DOTALL)
    ran = [code for marks, code in blocks if "notest" not in marks]
    assert len(ran) >= 4
    for number, code in enumerate(ran):
        namespace["tmp_path"] = tmp_path / str(number)
        exec(compile(code, f"{DOC.name}, block {number}", "exec"), namespace)
