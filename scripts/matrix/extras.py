"""Take the packages of each extra away: exca has to be imported and to compute, and errors have to name the extra.

Each extra has an interpreter of its own in which importing its packages fails. Extras that are not installed here are
looked at all the same, but for values that they would have stored.
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

# the packages of an extra, and what asks for it: Python, or the command line in JSON
CASES: dict[str, tuple[list[str], list[str]]] = {
    "tables": (["pandas", "pyarrow"], ["exca.table('cache')"]),
    "torch": (["torch"], ["CacheDict('tensors')['key']"]),
    "neuro": (["nibabel", "mne", "pybv"], ["CacheDict('images')['key']"]),
    "dask": (
        ["dask", "distributed"],
        ["Task(x=4, infra=exca.TaskInfra(folder='cache', cluster='dask')).run()"],
    ),
    "search": (
        ["optuna"],
        ["cli('search', 'plain:Task', 'x=1,2,3')"],
    ),
    "plot": (["matplotlib"], ["cli('plot', 'cache', '-o', 'study.svg')"]),
    "ui": (
        ["jinja2", "starlette", "uvicorn"],
        ["cli('report', 'cache', '-o', 'report.html')", "cli('ui', 'cache')"],
    ),
    "completion": (["shtab"], ["cli('completion', 'bash')"]),
    "trackers": (
        ["alembic", "mlflow", "sqlalchemy", "tensorboard", "trackio", "wandb"],
        [
            f"cli('export', 'cache', '--to', '{name}')"
            for name in ("mlflow", "wandb", "trackio", "tensorboard")
        ],
    ),
}
PLAIN = """
import typing as tp
import pydantic
import exca
from exca import steps

class Task(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra(folder="cache")

    @infra.apply
    def run(self) -> int:
        return 2 * self.x

class Map(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    infra: exca.MapInfra = exca.MapInfra(folder="cache")

    @infra.apply(item_uid=str)
    def run(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        for item in items:
            yield 2 * item

class Add(steps.Step):
    y: int = 1

    def _run(self, value: int) -> int:
        return value + self.y
"""
STORED = """
import sys
from exca.cachedict import CacheDict
if sys.argv[1] == "tensors":
    import torch as module
    value = module.ones(3)
else:
    import nibabel, numpy
    value = nibabel.Nifti1Image(numpy.ones((2, 2, 2)), numpy.eye(4))
with CacheDict(folder=sys.argv[1]).writer() as writer:
    writer["key"] = value
"""
LOOK = """
import io, contextlib, sys
gone, asked = sys.argv[1].split(","), sys.argv[2:]
sys.modules.update(dict.fromkeys(gone))
import exca
from exca.cachedict import CacheDict
from exca.cli import main
from plain import Add, Map, Task
from exca import steps

assert [Task(x=x).run() for x in (1, 2, 3)] == [2, 4, 6] and Task(x=3).infra.status() == "completed"
assert list(Map().run([1, 2])) == [2, 4]
assert steps.Chain(steps=[Add(infra={"folder": "cache"}), Add()]).run(1) == 3

def cli(*words):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            code = main(list(words))
        except SystemExit as e:
            code = e.code
    raise RuntimeError(f"exit status {code}: {said.getvalue()}")

for one in asked:
    try:
        print("none", eval(one))
    except Exception as e:
        print(type(e).__name__, str(e).replace("\\n", " "))
"""


def main() -> int:
    """Look at each extra, and say what does not name it."""
    wrong = 0
    for extra, (packages, asked) in CASES.items():
        with tempfile.TemporaryDirectory(prefix="exca-extras-") as folder:
            for name, text in (("plain.py", PLAIN), ("look.py", LOOK), ("stored.py", STORED)):
                (Path(folder) / name).write_text(text, encoding="utf-8")
            stored = {"torch": "tensors", "neuro": "images"}.get(extra)
            if stored is not None:
                if importlib.util.find_spec(packages[0]) is None:
                    print(f"{extra}: values are not tried, since {packages[0]} is not installed here")
                    asked = []
                else:
                    subprocess.run([sys.executable, "stored.py", stored], cwd=folder, check=True)
            command = [sys.executable, "look.py", ",".join(packages), *asked]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                wrong += 1
                print(f"{extra}: {done.stderr}")
            for one, said in zip(asked, done.stdout.splitlines(), strict=False):
                named = f"exca[{extra}]" in said
                wrong += not named
                print(f"{extra}: {one}: {'names it' if named else said}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
