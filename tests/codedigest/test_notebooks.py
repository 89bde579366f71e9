"""In a notebook, a cell that is run again with another body gives another digest; with the same, the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from projects import SOURCE

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

START = (
    f"import sys\nsys.path[:0] = [{SOURCE!r}, '.']\nfrom exca.codedigest import digest_of\nimport pydantic"
)
SHOW = (
    "code = digest_of(Model, vars(Model)['run'])\nprint(code.digest, code.method, sorted(code.content.parts))"
)
SHOW += "\nprint(code.content.unresolved)"
HELPER = "SCALE = 1\ndef helper(x):\n    return x * SCALE"
MODEL = (
    "class Model(pydantic.BaseModel):\n    x: int = 1\n    def run(self):\n"
    "        'Doc.'\n        return helper(self.x) + self.rate()\n    def rate(self):\n        return 2\n"
    "    def unused(self):\n        return 4\n"
)


def run(folder: Path, *cells: str) -> list[list[str]]:
    """Run cells; return what each that shows a digest found: digest, method, parts and what is unresolved."""
    command = [sys.executable, str(Path(__file__).parent / "notebook.py")]
    environment = {
        **os.environ,
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": str(folder),
        "HOME": str(folder),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    text = json.dumps([START, *cells])
    ran = subprocess.run(
        command, cwd=folder, env=environment, input=text, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    printed = json.loads(ran.stdout.splitlines()[-1])
    found = []
    for cell, out in zip([START, *cells], printed, strict=True):
        if cell == SHOW:
            first, second = out.strip().split("\n")
            found.append([*first.split(" ", 2), second])
    return found


def test_running_a_cell_again(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        HELPER,
        MODEL,
        SHOW,
        SHOW,
        MODEL,  # the same again
        SHOW,
        MODEL.replace("'Doc.'", "'Docs.'  # a comment").replace("return 4", "return 5"),
        SHOW,
        MODEL.replace("return 2", "return 6"),  # another body
        SHOW,
        HELPER,  # a helper of it again, and not the class
        SHOW,
        HELPER.replace("x * SCALE", "x / SCALE"),
        SHOW,
        "SCALE = 2",
        SHOW,
        HELPER + "\n" + MODEL,  # in one cell
        SHOW,
    )
    digests = [each[0] for each in found]
    first, body, helper, value = digests[0], digests[4], digests[6], digests[7]
    assert digests == [first, first, first, first, body, body, helper, value, first]
    assert len({first, body, helper, value}) == 4
    for each in found:
        assert each[1:] == [
            "__main__.Model.run",
            "['__main__.Model.rate', '__main__.Model.run', '__main__.Model.x', '__main__.SCALE', '__main__.helper']",
            "{}",
        ]
        assert len(each[0]) == 16  # of source


def test_values_of_notebooks(tmp_path: Path) -> None:
    """A value that can't change counts; of another, the class counts and that it is not resolved is listed."""
    (tmp_path / "module.py").write_text(
        "K = 1\ndef f(x):\n    return x\nclass A:\n    def go(self):\n        return 2\n"
    )
    cells = [
        "import module as m\nfrom module import f, A\nimport math, functools",
        "it = A()\nvalues = [1]\npair = (1, 'a')\nroot = math.sqrt",
        "part = functools.partial(f, 3)\nother = lambda x: x + 1",
        "class Model:\n    def run(self):\n        return f(m.K), it.go(), values, pair, part(), root(4), other(1)",
        SHOW,
        "part = functools.partial(f, 4)",
        SHOW,
        "pair = (1, 'b')",
        SHOW,
        "other = lambda x: x + 2",
        SHOW,
    ]
    found = run(tmp_path, *cells)
    assert len({each[0] for each in found}) == 4
    for name in ("module.f", "module.K", "module.A.go", "__main__.pair", "__main__.Model.run"):
        assert name in found[0][2]
    assert "__main__.values" in found[0][3]
    assert "__main__.it" in found[0][3]
    assert "__main__.pair" not in found[0][3]
    assert "__main__.values" not in found[0][2]


def test_magics_and_a_module_that_is_reloaded(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("def f(x):\n    return x + 1\n")
    cells = [
        "%load_ext autoreload\n%autoreload 2\nimport module, os",
        "%time 1\nclass Model:\n    def run(self):\n        return module.f(1)",
        SHOW,
        "with open('draft', 'w') as file:\n    file.write('def f(x):\\n    return x + 22\\n')",
        "os.replace('draft', 'module.py')",
        SHOW,
        "open('module.py', 'w').write('# a comment\\ndef f(x):\\n    return x + 22\\n')\nimport time; print()",
        SHOW,
    ]
    found = run(tmp_path, *cells)
    assert found[0][0] != found[1][0] == found[2][0]
    assert all(len(each[0]) == 16 for each in found)


def test_importing_something_else_under_a_name(tmp_path: Path) -> None:
    """What a name of a package is shows in no source that runs."""
    cell = MODEL.replace("helper(self.x)", "f(self.x) + m.exp(1)")
    names = "import math as m\nfrom math import sqrt as f"
    cells = [names, cell, SHOW, names, SHOW, names.replace("sqrt", "cbrt"), SHOW, "import cmath as m", SHOW]
    first, same, function, module = [each[0] for each in run(tmp_path, *cells)]
    assert first == same
    assert len({first, function, module}) == 3
