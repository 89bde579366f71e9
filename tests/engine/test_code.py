"""Results know which code computed them: tasks, maps, steps and functions, in modules, scripts and jobs."""

import json
import os
import subprocess
import sys
import textwrap
import typing as tp
import warnings
from pathlib import Path

import pydantic
import pytest

import exca
from exca import codedigest

SOURCE = str(Path(__file__).parents[2] / "src")

HELPER = """
SCALE = 2

def scale(x):
    # a comment
    return x * SCALE

def unused(x):
    return x
"""

STUDY = '''
import typing as tp
import pydantic
import exca
from exca import steps
import helper

class Task(pydantic.BaseModel):
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra(folder="cache")

    @infra.apply
    def run(self) -> int:
        """Doc."""
        return helper.scale(self.x)

class Map(pydantic.BaseModel):
    infra: exca.MapInfra = exca.MapInfra(folder="cache")

    @infra.apply(item_uid=str)
    def run(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        for item in items:
            yield helper.scale(item)

class First(steps.Step):
    def _run(self, x: int) -> int:
        return helper.scale(x)

class Second(steps.Step):
    def _run(self, x: int) -> int:
        return x + 100

@exca.cached(folder="cache")
def function(x: int) -> int:
    return helper.scale(x)

def task(**infra):
    return Task(x=3, infra=infra).run()

def mapped(**infra):
    return list(Map(infra=infra).run([3, 4]))

def step(cluster="Cached", **infra):
    names = {"local": "LocalProcess", "slurm": "Slurm", "processpool": "ProcessPool"}
    backend = names.get(cluster, cluster)
    infra = {"backend": backend, "folder": "cache", **infra}
    return steps.Chain(steps=[First(infra=infra), Second(infra=infra)]).run(3)

def func(code="warn", **infra):
    return function.infra_of(3).clone_obj({"infra.code": code}).build()
'''

CALL = """
import json, sys, warnings
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    import study
    result = getattr(study, sys.argv[1])(**json.loads(sys.argv[2]))
told = [str(w.message) for w in found if w.category.__name__ == "CodeChangedWarning"]
print(json.dumps([result, told]))
"""


class Study:
    """A study in a folder of its own, run by fresh interpreters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "helper.py").write_text(HELPER)
        (folder / "study.py").write_text(STUDY)

    def change(self, old: str, new: str, file: str = "helper.py") -> None:
        path = self.folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def call(self, name: str, **infra: tp.Any) -> tuple[tp.Any, list[str]]:
        """Return the result, and the warnings of changed code."""
        result, told = json.loads(self.python("-c", CALL, name, json.dumps(infra)))
        return result, told

    def python(self, *args: str) -> str:
        env = {**os.environ, "PYTHONPATH": SOURCE, "EXCA_CACHE_DIR": str(self.folder / "user")}
        env["PYTHONDONTWRITEBYTECODE"] = "1"  # a file that changes twice a second has one time
        ran = subprocess.run(
            [sys.executable, *args], cwd=self.folder, capture_output=True, text=True, check=False, env=env
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


KINDS = {"task": (6, 15), "mapped": ([6, 8], [15, 20]), "step": (106, 115), "func": (6, 15)}
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_a_changed_constant_of_a_helper_is_told_and_strict_computes_again(study: Study, kind: str) -> None:
    before, after = KINDS[kind]
    assert study.call(kind) == (before, [])
    assert study.call(kind) == (before, [])
    study.change("SCALE = 2", "SCALE = 5")
    result, told = study.call(kind)
    assert result == before
    assert len(told) == 1
    assert "helper.SCALE changed" in told[0]
    assert "code='strict'" in told[0]
    assert study.call(kind, code="off") == (before, [])
    assert study.call(kind, code="strict") == (after, [])
    assert study.call(kind, code="strict") == (after, [])
    assert study.call(kind) == (after, [])


@kinds
@pytest.mark.parametrize(
    ("old", "new", "file"),
    [
        ("# a comment", "# another one, longer", "helper.py"),
        ("def unused(x):\n    return x", "def unused(x):\n    return -x", "helper.py"),
        ('"""Doc."""', '"""Other."""', "study.py"),
        ("return x * SCALE", "return (x *\n        SCALE)", "helper.py"),
    ],
    ids=["comment", "unreached", "docstring", "layout"],
)
def test_what_runs_the_same_is_not_told(study: Study, kind: str, old: str, new: str, file: str) -> None:
    before, _ = KINDS[kind]
    assert study.call(kind) == (before, [])
    study.change(old, new, file)
    assert study.call(kind) == (before, [])
    assert study.call(kind, code="strict") == (before, [])


@pytest.mark.parametrize(
    ("cluster", "kind"),
    [
        ("slurm", "task"),
        ("local", "mapped"),
        ("processpool", "step"),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (("slurm", "mapped"), ("slurm", "step"), ("local", "task"), ("local", "step"))
        ),
        pytest.param("processpool", "mapped", marks=pytest.mark.long),
    ],
)
def test_jobs_record_the_code_that_runs(study: Study, kind: str, cluster: str) -> None:
    before, after = KINDS[kind]
    assert study.call(kind, cluster=cluster) == (before, [])
    assert study.call(kind) == (before, [])
    study.change("SCALE = 2", "SCALE = 5")
    assert len(study.call(kind, cluster=cluster)[1]) == 1
    assert study.call(kind, cluster=cluster, code="strict") == (after, [])
    assert study.call(kind) == (after, [])


@kinds
def test_results_without_a_digest_never_warn_and_get_none(study: Study, kind: str) -> None:
    before, _ = KINDS[kind]
    assert study.call(kind, code="off") == (before, [])
    study.change("SCALE = 2", "SCALE = 5")
    assert study.call(kind) == (before, [])
    assert study.call(kind, code="strict") == (before, [])
    study.change("SCALE = 5", "SCALE = 6")
    assert study.call(kind, code="strict") == (before, [])


def test_an_index_line_is_not_longer_by_its_code(study: Study) -> None:
    study.call("mapped", code="off", version="off")
    study.call("mapped", version="on")
    lines = [sorted(path.read_text().splitlines()) for path in study.folder.rglob("*-info.jsonl")]
    assert len(lines) == 2
    assert lines[0] == lines[1]


def test_a_cached_error_of_other_code_is_told_or_computed_again(study: Study) -> None:
    study.change("return x * SCALE", "raise ValueError('broken')")
    script = "import study\ntry:\n    print(study.task(**{}))\nexcept ValueError as e:\n    print('error', e)"
    assert study.python("-c", script) == "error broken\n"
    study.change("raise ValueError('broken')", "return x * SCALE")
    assert study.python("-c", script) == "error broken\n"
    assert study.call("task", code="strict") == (6, [])


def test_read_only_does_not_compute_what_is_of_other_code(study: Study) -> None:
    study.call("task")
    study.change("SCALE = 2", "SCALE = 5")
    script = """
        import study
        try:
            study.task(mode="read-only", code="strict")
        except RuntimeError as e:
            print(type(e).__name__, e)
    """
    said = study.python("-c", textwrap.dedent(script))
    assert said.startswith("ReadOnlyError")
    assert "is of other code (helper.SCALE changed)" in said


def test_status_of_a_strict_task_of_other_code_is_not_submitted(study: Study) -> None:
    study.call("task")
    script = "import study; print(study.Task(x=3, infra={'code': 'CODE'}).infra.status())"
    assert study.python("-c", script.replace("CODE", "strict")) == "completed\n"
    study.change("SCALE = 2", "SCALE = 5")
    assert study.python("-c", script.replace("CODE", "strict")) == "not submitted\n"
    assert study.python("-c", script.replace("CODE", "warn")) == "completed\n"


SCRIPT = """
import sys
import pydantic
import exca

SCALE = 2

class Task(pydantic.BaseModel):
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra(folder="cache", cluster=CLUSTER)

    @infra.apply
    def run(self) -> int:
        return SCALE * self.x

print(Task(x=3).run())
"""


@pytest.mark.parametrize("cluster", [None, "local", "slurm"])
def test_a_class_of_a_script_that_runs_in_a_job_is_compared_too(study: Study, cluster: str | None) -> None:
    script = study.folder / "script.py"
    text = SCRIPT.replace("CLUSTER", repr(cluster))
    script.write_text(text)
    run = ("-W", "error::UserWarning", str(script))
    assert study.python(*run) == "6\n"
    assert study.python(*run) == "6\n"
    script.write_text(text.replace("SCALE = 2", "SCALE = 5"))
    with pytest.raises(AssertionError, match="CodeChangedWarning"):
        study.python(*run)
    script.write_text(text.replace("SCALE = 2", "SCALE = 5").replace("cluster=", "code='strict', cluster="))
    assert study.python(*run) == "15\n"


RELOADED = """
import importlib, pathlib, sys, time, warnings
import helper, study
from exca import steps

kind, infra = sys.argv[1], {"code": sys.argv[2], "keep_in_ram": sys.argv[3] == "ram"}
if kind == "step":
    infra = {"backend": "Cached", "folder": "cache", **infra}
    obj = steps.Chain(steps=[study.First(infra=infra), study.Second(infra=infra)])
    call = lambda: obj.run(3)
elif kind == "mapped":
    obj = study.Map(infra=infra)
    call = lambda: list(obj.run([3, 4]))
elif kind == "func":
    function = study.function.using(**infra)
    call = lambda: function(3)
else:
    obj = study.Task(x=3, infra=infra)
    call = obj.run
before = call()
print(before, call())
path = pathlib.Path("helper.py")
path.write_text(path.read_text().replace("SCALE = 2", "SCALE = 50"))
importlib.reload(helper)
deadline = time.monotonic() + 5
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    while not found and call() == before and time.monotonic() < deadline:
        pass
print(call(), len({str(w.message) for w in found}))
"""


@kinds
@pytest.mark.parametrize("kept", ["ram", "disk"])
@pytest.mark.parametrize("code", ["warn", "strict"])
def test_an_object_that_computed_a_result_sees_that_code_was_reloaded(
    study: Study, kind: str, kept: str, code: str
) -> None:
    before = KINDS[kind][0]
    after = {"task": 150, "mapped": [150, 200], "step": 250, "func": 150}[kind]
    told = (before, 1) if code == "warn" else (after, 0)
    said = study.python("-W", "ignore", "-c", RELOADED, kind, code, kept).splitlines()
    assert said == [f"{before} {before}", f"{told[0]} {told[1]}"]


WHY = """
import json, study, exca
from exca import steps
task = study.Task(x=3)
"""


def test_why_tells_what_changed_and_accept_takes_it(study: Study) -> None:
    study.call("task")
    said = study.python("-c", WHY + "print(exca.why(study.Task(x=4)), exca.why(study.Task()))")
    assert "miss" in said
    assert "nearest: x=3-" in said
    assert "differs in x 3 -> 4" in said
    assert "differs in x 3 -> 1" in said  # a default
    assert "version '0' has this" in study.python(
        "-c", WHY + "print(exca.why(study.Task(x=3, infra={'version': '7'})))"
    )
    study.change("SCALE = 2", "SCALE = 5")
    said = study.python("-c", WHY + "print(exca.why(task))")
    assert "-SCALE = 2\n" in said
    assert "+SCALE = 5\n" in said
    assert study.python("-c", WHY + "print(len(exca.accept(task, why='the same for us')))") == "1\n"
    assert study.call("task") == (6, [])
    assert study.call("task", code="strict") == (6, [])
    said = study.python("-c", WHY + "[a] = exca.accepted(task); print(a.part, a.why); a.take_back()")
    assert said == "helper.SCALE the same for us\n"
    assert len(study.call("task")[1]) == 1
    study.python("-c", WHY + "exca.accept(task, why='again', part='helper.SCALE')")
    study.change("return x * SCALE", "return SCALE * x")
    assert len(study.call("task")[1]) == 1  # another change of another part


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ("exca.accept(study.Task(x=3), why='')", "no code has changed"),
        ("exca.accept(study.Task(x=3), why='', part='helper.nothing')", "'helper.nothing' has not changed"),
        ("exca.accept(study.Task(x=3, infra={'code': 'off'}), why='')", "no code is compared"),
        ("exca.why(study.Task(x=3, infra={'folder': None}))", "has no folder"),
        ("exca.why(study.First())", "First has no infra, so nothing of it is kept"),
        ("exca.why(3)", "3 has no infra: give an object with one, an infra of an object, or a step"),
    ],
)
def test_what_cannot_be_explained_is_an_error_that_says_so(study: Study, ask: str, said: str) -> None:
    study.call("task")
    script = WHY + f"try:\n    {ask}\nexcept (ValueError, RuntimeError) as e:\n    print(e)"
    assert said in study.python("-c", script)


def test_maps_and_steps_are_explained(study: Study) -> None:
    study.call("mapped")
    study.call("step")
    study.change("SCALE = 2", "SCALE = 5")
    chain = (
        "infra = {'backend': 'Cached', 'folder': 'cache'}\n"
        "chain = steps.Chain(steps=[study.First(infra=infra), study.Second(infra=infra)])\n"
    )
    said = study.python("-c", WHY + chain + "print(exca.why(study.Map(), 3), exca.why(study.Map(), 5))")
    assert "+SCALE = 5" in said
    assert "miss" in said
    said = study.python("-c", WHY + chain + "print(exca.why(chain, 3), exca.why(chain, 5))")
    assert "+SCALE = 5" in said
    assert "miss" in said
    study.python("-c", WHY + chain + "exca.accept(study.Map(), why='x'); exca.accept(chain, why='x')")
    assert study.call("mapped", code="strict") == ([6, 8], [])
    assert study.call("step", code="strict") == (106, [])


def test_a_function_tells_why(study: Study) -> None:
    script = (
        "import study; print(bool(study.function.why(3)), study.function(3), bool(study.function.why(3)))"
    )
    assert study.python("-c", script) == "False 6 True\n"
    study.change("SCALE = 2", "SCALE = 5")
    assert "+SCALE = 5" in study.python("-c", "import study; print(study.function.why(3))")


STEP_MODULE = """
from exca import steps

class Same(steps.Step):
    infra: steps.backends.Backend | None = steps.backends.Cached(folder="cache")

    def _run(self, x: int) -> int:
        return x + 1
"""


@pytest.mark.parametrize("kind", ["script", "step"])
def test_another_class_of_the_same_name_is_refused_unless_its_code_is_the_same(
    study: Study, kind: str
) -> None:
    text = SCRIPT.replace("CLUSTER", "None") if kind == "script" else STEP_MODULE + "\nprint(Same().run(1))"
    change = ("SCALE = 2", "SCALE = 5") if kind == "script" else ("x + 1", "x + 7")
    result = "6\n" if kind == "script" else "2\n"
    names = ("one.py", "two.py", "three.py")
    for name in names[:2]:
        (study.folder / name).write_text(text)
    (study.folder / names[2]).write_text(text.replace(*change))

    def run(name: str) -> str:
        if kind == "script":
            return study.python("-W", "error::UserWarning", name)
        return study.python("-W", "error::UserWarning", "-c", f"import {name[:-3]}")

    assert run("one.py") == result
    assert run("two.py") == result  # moved or copied
    if kind == "step":  # what is edited after it was moved is the same class all the same
        [names_file] = study.folder.glob("cache/*/classes.json")
        assert json.loads(names_file.read_text())["classes"] == {"Same": ["one.Same", "two.Same"]}
    said = r"OtherClassError.*was computed by .*one.*, and .*three.*other-class"
    with pytest.raises(AssertionError, match=f"(?s){said}"):
        run("three.py")
    assert run("one.py") == result
    env = {**os.environ, "PYTHONPATH": SOURCE, "EXCA_ALLOW": "other-class"}
    command = [sys.executable, "three.py"] if kind == "script" else [sys.executable, "-c", "import three"]
    ran = subprocess.run(command, cwd=study.folder, capture_output=True, text=True, check=True, env=env)
    assert ran.stdout == result
    assert "RefusalWarning" in ran.stderr


class Plain(pydantic.BaseModel):
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 7


def test_a_digest_that_fails_is_told_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such an error would be a mistake of ours, so it is put in the place of the function."""

    def fail(*args: object, **kwargs: object) -> tp.NoReturn:
        raise LookupError("not foreseen")

    monkeypatch.setattr(codedigest, "digest_of", fail)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for name in ("one", "two"):
            assert Plain(infra=exca.TaskInfra(folder=tmp_path / name)).run() == 7
    [warning] = found
    assert "cannot tell what the code of Plain.run is, so changes of it are not noticed" in str(
        warning.message
    )
    assert "LookupError('not foreseen')" in str(warning.message)
