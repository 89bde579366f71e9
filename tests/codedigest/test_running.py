"""The digest is of the code that runs: in scripts, in files that changed after they were imported, without source."""

import subprocess
import sys
import textwrap
import typing as tp
from pathlib import Path

import pytest

from exca.codedigest import CodeDigest, comparable
from projects import SOURCE, Project, unresolved

RUN = """
import sys
sys.path.insert(0, {source!r})
{body}
from exca.codedigest import digest_of
code = digest_of(Model, Model.run)
print(code.digest, code.method, sorted(code.content.parts), flush=True)
"""


def run(folder: Path, *arguments: str, code: str | None = None, stdin: str | None = None) -> list[str]:
    """Run Python; return the digest, the method and the parts."""
    command = [sys.executable, *arguments, *(["-c", code] if code is not None else [])]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, input=stdin)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip().splitlines()[-1].split(" ", 2)


def script(body: str) -> str:
    return RUN.format(source=SOURCE, body=textwrap.dedent(body))


BODY = """
SCALE = 1
def helper(x):
    return x * SCALE
def unused(x):
    return 2
class Model:
    rate = 3
    def run(self):
        "Doc."
        return helper(4) + self.rate
"""


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("SCALE = 1", "SCALE = 5", True),
        ("x * SCALE", "x / SCALE", True),
        ("rate = 3", "rate = 5", True),
        ("helper(4)", "helper(5)", True),
        ("return 2", "return 5", False),
        ("Doc.", "Docs.", False),
        ("SCALE = 1", "SCALE: int = 1  # one", False),
    ],
)
def test_scripts(tmp_path: Path, old: str, new: str, counts: bool) -> None:
    (tmp_path / "train.py").write_text(script(BODY))
    before = run(tmp_path, "train.py")
    assert before[1:] == [
        "train.Model.run",
        "['train.Model.rate', 'train.Model.run', 'train.SCALE', 'train.helper']",
    ]
    assert len(before[0]) == 16
    (tmp_path / "train.py").write_text(script(BODY.replace(old, new)))
    assert (run(tmp_path, "train.py")[0] != before[0]) is counts


def test_a_script_in_another_folder_or_run_as_a_module_is_the_same(tmp_path: Path) -> None:
    found = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.py").write_text(script(BODY))
        found.add(tuple(run(tmp_path, f"{name}/train.py")))
        found.add(tuple(run(tmp_path / name, "-m", "train")))
        found.add(tuple(run(tmp_path / name, "-c", "import train")))
    assert len(found) == 1


@pytest.mark.parametrize("how", ["-c", "stdin", "exec"])
def test_without_source_the_compiled_code_counts(tmp_path: Path, how: str) -> None:
    """It never equals a digest of source, and says nothing about one."""

    def digest(body: str) -> str:
        text = script(body)
        if how == "stdin":
            return run(tmp_path, stdin=text)[0]
        return run(tmp_path, code=f"exec({text!r}, {{'__name__': 'made'}})" if how == "exec" else text)[0]

    before = digest(BODY)
    assert before.startswith("cpython3")
    assert digest(BODY) == before
    assert digest("\n\n# moved\n" + BODY) == before
    for old, new, counts in (
        ("x * SCALE", "x / SCALE", True),
        ("SCALE = 1", "SCALE = 2", True),
        ("rate = 3", "rate = 4", True),
        ("return 2", "return 5", False),
        ("Doc.", "Docs.", False),
    ):
        assert (digest(BODY.replace(old, new)) != before) is counts, old
    assert not comparable(before, "0123456789abcdef")
    assert not comparable(before, "cpython299-0123456789abcdef")
    assert comparable(before, f"{before.partition('-')[0]}-0123456789abcdef")
    assert comparable("0123456789abcdef", "1123456789abcdef")


HELPED = "import helper\nclass Model:\n    def run(self):\n        return helper.f(helper.K)\n"
HELPER = "K = 1\ndef f(x):\n    return x + 2\ndef unused():\n    return 3\n"


def again(project: Project) -> CodeDigest:
    """Return the digest in this process, where the modules stay as they were imported."""
    from exca.codedigest.computing import compute

    cls = project.load("Model")
    content = compute(cls, vars(cls)["run"], (), (), ())[2]
    return CodeDigest(content.digest(), content.method, content=content)


@pytest.fixture
def imported(project: Project) -> Project:
    project.write({"model.py": HELPED, "helper.py": HELPER})
    return project


def test_a_file_that_changed_after_it_was_imported_is_not_digested(imported: Project) -> None:
    before = imported.digest()
    imported.write({"helper.py": HELPER.replace("x + 2", "x + 4")})
    found = again(imported)
    assert found.digest != imported.elsewhere().digest
    assert found.digest.startswith("cpython3")
    assert "source not available" in str(found.content.unresolved["helper.f"])
    assert found.content.parts["model.Model.run"] == before.content.parts["model.Model.run"]
    assert imported.digest().digest == imported.elsewhere().digest  # once imported again


def test_a_constant_that_changed_after_it_was_imported_is_not_digested(imported: Project) -> None:
    imported.digest()
    imported.write({"helper.py": HELPER.replace("K = 1", "K = 5")})
    found = again(imported)
    assert found.digest != imported.elsewhere().digest
    assert found.content.sources["helper.K"] == "1"


def test_a_list_that_functions_change_counts_by_its_source_whatever_it_holds(project: Project) -> None:
    text = "SEEN = []\ndef f(x):\n    SEEN.append(x)\n    return x\ndef unused():\n    return 3\n"
    project.write({"model.py": HELPED.replace("helper.K", "1"), "helper.py": text})
    before = project.digest()
    model: tp.Any = project.load("Model")
    model().run()
    assert again(project).digest == before.digest
    project.write({"helper.py": text.replace("return 3", "return 4")})  # another function than is in memory
    assert again(project).digest == before.digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x + 2", "x + 2  # two"),
        ("return 3", "return 4"),
        ("def f", "\n\n\ndef f"),
        ("def unused", "def added():\n    return f(7)\ndef unused"),
        ("def f(x):\n", "def f(x):\n    'Doc.'\n"),
    ],
)
def test_a_change_of_what_is_not_reached_is_harmless_also_after_the_import(
    imported: Project, old: str, new: str
) -> None:
    before = imported.digest()
    imported.write({"helper.py": HELPER.replace(old, new)})
    found = again(imported)
    assert found.digest == before.digest
    assert not unresolved(found)


def test_a_file_that_is_gone(imported: Project) -> None:
    before = imported.digest()
    (imported.folder / "helper.py").unlink()
    found = again(imported)
    assert found.digest != before.digest
    assert found.content.unresolved


def test_a_module_that_is_reloaded_gets_a_new_digest(imported: Project) -> None:
    import importlib

    from exca.codedigest import digest_of

    before = imported.digest()
    cls = imported.load("Model")
    same = digest_of(cls, vars(cls)["run"])
    assert digest_of(cls, vars(cls)["run"]) is same
    imported.write({"helper.py": HELPER.replace("x + 2", "x + 4")})
    sys.path.insert(0, str(imported.folder))
    try:
        importlib.reload(sys.modules["helper"])
    finally:
        sys.path.remove(str(imported.folder))
    assert digest_of(cls, vars(cls)["run"]).digest == imported.elsewhere().digest != before.digest


CLOSURES = """
def make(n, f):
    class Model:
        def run(self):
            return f(n)
    return Model
def double(x):
    return x * 2
def triple(x):
    return x * 3
First = make(1, double)
Second = make(2, double)
Third = make(1, triple)
Fourth = make(1, lambda x: x * 4)
Fifth = make([1], double)
"""


def test_what_a_class_finds_around_it_counts(project: Project) -> None:
    project.write({"model.py": CLOSURES})
    digests = [project.digest(f"{name}.run") for name in ("First", "Second", "Third", "Fourth", "First")]
    assert len({each.digest for each in digests}) == 4
    assert digests[0].digest == digests[4].digest
    assert not any(unresolved(each) for each in digests)
    assert "n" in str(unresolved(project.digest("Fifth.run")))
    project.write({"model.py": CLOSURES.replace("x * 2", "x * 5")})
    assert project.digest("First.run").digest != digests[0].digest
    assert project.digest("Third.run").digest == digests[2].digest


def test_a_checkout_an_installation_and_a_copy_agree(tmp_path: Path) -> None:
    found = set()
    for place in ("checkout/src", "venv/lib/python3.11/site-packages", "cache/code/20260101-abc"):
        project = Project(tmp_path / place)
        project.write(
            {
                "package/__init__.py": "",
                "package/model.py": "from .helper import f\nclass Model:\n    def run(self):\n        return f(1)\n",
                "package/helper.py": HELPER,
            }
        )
        code = project.elsewhere("package.model:Model.run")
        assert sorted(code.parts) == ["package.helper.f", "package.model.Model.run"]
        found.add(code.digest)
    (tmp_path / "checkout" / ".git").mkdir()
    found.add(Project(tmp_path / "checkout/src").elsewhere("package.model:Model.run").digest)
    assert len(found) == 1


def test_installed_packages_count_by_version_where_they_are_named(project: Project) -> None:
    project.write({"model.py": "import numpy as np\n" + HELPED, "helper.py": HELPER})
    code = project.digest()
    import numpy as np

    assert code.content.packages == {"numpy": np.__version__}
    named = project.digest(packages=["numpy"])
    assert named.digest != code.digest
    assert named.content.parts == code.content.parts


def test_roots_make_installed_code_count(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    installed = Project(tmp_path / "lib" / "site-packages")
    installed.write({"helper_of_roots.py": HELPER})
    project.write({"model.py": HELPED.replace("helper", "helper_of_roots")})
    sys.path.append(str(installed.folder))
    try:
        assert "helper_of_roots.f" not in project.digest().content.parts
        for roots in (["helper_of_roots"], [installed.folder], [str(tmp_path / "lib")]):
            assert "helper_of_roots.f" in project.digest(roots=roots).content.parts
    finally:
        sys.path.remove(str(installed.folder))
        project.forget()
        installed.forget()


BY_VALUE = """
import subprocess, cloudpickle
LOAD = "import pickle, sys; sys.path.insert(0, {source!r}); from exca.codedigest import digest_of; "
LOAD += "cls = pickle.load(sys.stdin.buffer); code = digest_of(cls, cls.run); print(code.digest, code.method)"
if __name__ == "__main__":
    data = cloudpickle.dumps(Model)
    for edit in ("", "edited"):
        if edit:
            text = open(__file__).read()
            open(__file__, "w").write(text.replace("x * SCALE", "x / SCALE"))
        done = subprocess.run([sys.executable, "-c", LOAD], input=data, capture_output=True)
        print(done.stdout.decode() or done.stderr.decode())
"""


def test_a_class_that_came_by_value_from_a_script(tmp_path: Path) -> None:
    """As in a job: its code is that of the process that sent it, whatever the script is by now."""
    (tmp_path / "train.py").write_text(script(BODY) + BY_VALUE.format(source=SOURCE))
    ran = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    here, there, edited = (line.split()[:2] for line in ran.stdout.splitlines() if line)
    assert here == there
    assert edited[0] != here[0]
    assert edited[0].startswith("cpython3")


def test_what_can_not_be_looked_at_has_no_digest(project: Project) -> None:
    """Nothing that a class or a module does when it is looked at reaches the caller."""
    from exca.codedigest import digest_of, write_code

    project.write({"model.py": "class Model:\n    def run(self):\n        return 1\nModel.__module__ = 3\n"})
    project.forget()
    cls = project.load("Model")
    code = digest_of(cls, vars(cls)["run"])
    assert code.digest == ""
    assert "AttributeError" in str(code.content.unresolved)
    write_code(project.folder, code)
    assert not (project.folder / ".code").exists()


def test_a_module_that_is_imported_later_is_looked_at_again(project: Project) -> None:
    """It may have been edited between."""
    from exca.codedigest import digest_of

    text = "class Model:\n    def run(self):\n        import helper\n        return helper.f(1)\n"
    project.write({"model.py": text, "helper.py": HELPER})
    before = project.digest()
    cls = project.load("Model")
    project.write({"helper.py": HELPER.replace("x + 2", "x + 4")})
    assert digest_of(cls, vars(cls)["run"]) == before
    project.load("f", "helper")
    assert digest_of(cls, vars(cls)["run"]).digest == project.elsewhere().digest != before.digest


def test_the_order_of_hashes_does_not_count(project: Project) -> None:
    project.write(
        {"model.py": "import helper as h\n" + HELPED.replace("helper.f", "h.f"), "helper.py": HELPER}
    )
    assert len({project.elsewhere(PYTHONHASHSEED=str(seed)).digest for seed in range(3)}) == 1


POOLS = """
import concurrent.futures, multiprocessing
def found():
    return digest_of(Model, Model.run)
if __name__ == "__main__":
    for kind in ("spawn", "fork", "forkserver"):
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context(kind)) as pool:
            other = pool.submit(found).result()
            assert other == code, kind
            assert other.content == code.content
    print("the same")
"""


def test_the_processes_of_a_pool_find_the_same(tmp_path: Path) -> None:
    """They have the script under another name."""
    (tmp_path / "train.py").write_text(script(BODY) + POOLS)
    ran = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.stdout.splitlines()[-1] == "the same", ran.stderr
