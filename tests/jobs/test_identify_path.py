"""What a name given to a working directory stands for: a path, or a package installed in editable mode."""

import json
import os
import shutil
import subprocess
import textwrap
import venv
from pathlib import Path

import pydantic
import pytest

import editable_backend
from exca.workdir import WorkDir, identify_path
from trees import tree, write

SRC = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in the current directory."""
    folder = tmp_path / "project"
    write(folder, pkg__sub__deep_py="", pkg__mod_py="")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return folder


def test_a_local_path_is_found_first_then_pythonpath(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, libs__pkg__mod_py="", libs__lib__a_py="", more__lib__a_py="", libs__single_py="")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", str(tmp_path / "libs"), str(tmp_path / "more")]))
    assert identify_path("pkg") == project / "pkg"
    assert identify_path(Path("pkg/sub")) == project / "pkg" / "sub"
    assert identify_path("lib") == tmp_path / "libs" / "lib"
    assert identify_path("lib/a.py") == tmp_path / "libs" / "lib" / "a.py"
    assert identify_path(".") == project
    assert identify_path(tmp_path / "more") == tmp_path / "more"
    monkeypatch.syspath_prepend(str(tmp_path / "libs"))
    assert identify_path("single") == tmp_path / "libs" / "single.py"
    assert tree(WorkDir(copied=["lib", "single"]).prepare(tmp_path / "copy")) == ["lib/a.py", "single.py"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert identify_path("~/more/lib") == tmp_path / "more" / "lib"


def test_a_file_is_found_where_python_would_import_it_from(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, libs__module_py="", libs__lib__a_py="", other__module_py="")
    monkeypatch.syspath_prepend(str(tmp_path / "libs"))
    assert identify_path("module.py") == tmp_path / "libs" / "module.py"
    assert identify_path("lib/a.py") == tmp_path / "libs" / "lib" / "a.py"
    assert tree(WorkDir(copied=["module.py"]).prepare(tmp_path / "copy")) == ["module.py"]
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    assert identify_path("module.py") == tmp_path / "other" / "module.py"


def test_a_name_that_is_nowhere_says_where_was_looked(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "libs"))
    for name in ("nowhere", "no/where.py", "no.where"):
        with pytest.raises(ValueError, match=name) as caught:
            identify_path(name)
        assert str(project / name) in str(caught.value)
        assert str(tmp_path / "libs" / name) in str(caught.value)
    with pytest.raises(pydantic.ValidationError, match="nowhere"):
        WorkDir(copied=["pkg", "nowhere"])
    with pytest.raises(ValueError, match="nowhere"):
        identify_path(tmp_path / "nowhere")


def test_what_is_installed_but_not_editable_is_refused_with_its_place(project: Path) -> None:
    place = Path(pydantic.__file__).parent
    with pytest.raises(ValueError, match=f"{place}.*not in editable mode"):
        identify_path("pydantic")
    with pytest.raises(ValueError, match=r"'json' is installed in .*not in editable mode"):
        identify_path("json")
    for name in ("sys", "os"):
        with pytest.raises(
            ValueError, match=f"'{name}' is part of Python itself and needs no copy: remove it from"
        ):
            identify_path(name)
    with pytest.raises(ValueError, match="not in editable mode"):
        identify_path("pydantic-core")  # a distribution whose module has another name


def test_an_editable_distribution_without_code_is_refused_with_where_it_was_looked_for(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "site" / "hollow-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hollow\nVersion: 1\n")
    (info / "direct_url.json").write_text(
        json.dumps({"url": (tmp_path / "elsewhere").as_uri(), "dir_info": {"editable": True}})
    )
    monkeypatch.syspath_prepend(str(info.parent))
    with pytest.raises(
        ValueError,
        match=rf"The distribution 'hollow' is installed in editable mode from {tmp_path}/elsewhere, but none of these "
        rf"is there: {tmp_path}/elsewhere/src/hollow",
    ):
        identify_path("hollow")


def test_a_namespace_package_in_several_folders_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, one__space__a_py="", two__space__b_py="")
    monkeypatch.syspath_prepend(str(tmp_path / "one"))
    assert identify_path("space") == tmp_path / "one" / "space"
    monkeypatch.syspath_prepend(str(tmp_path / "two"))
    with pytest.raises(ValueError, match="several folders"):
        identify_path("space")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment in which three projects are installed by pip, two of them editable, one not."""
    root = tmp_path_factory.mktemp("scratch")
    for name in ("bypath", "by-finder", "solid"):
        module = name.replace("-", "_")
        (root / name).mkdir()
        shutil.copy(editable_backend.__file__, root / name)
        write(root / name / "src" / module, sub__a_py="")
        (root / name / "src" / module / "__init__.py").write_text("VALUE = 1")
        build = '[build-system]\nrequires = []\nbuild-backend = "editable_backend"\nbackend-path = ["."]\n'
        (root / name / "pyproject.toml").write_text(f'{build}[project]\nname = "{name}"\nversion = "1"\n')
    venv.create(root / "env", with_pip=True)
    python = str(root / "env" / "bin" / "python")
    options_of_all = ["-q", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    pip = [python, "-m", "pip", "install", *options_of_all]
    for options in (["-e", "bypath"], ["-e", "by-finder"], ["solid"]):
        subprocess.run([*pip, *options[:-1], str(root / options[-1])], check=True)
    return root


@pytest.mark.skipif(os.name == "nt", reason="the layout of an environment is that of POSIX")
@pytest.mark.long
def test_packages_installed_in_editable_mode(scratch: Path, tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import json, os, sys
        sys.path += sys.argv[1:3]
        from exca.workdir import WorkDir, identify_path
        found = {}
        for name in ("bypath", "by_finder", "by-finder", "solid"):
            try:
                found[name] = str(identify_path(name))
            except ValueError as error:
                found[name] = f"error: {error}"
        folder = WorkDir(copied=["bypath", "by_finder"]).prepare("copy")
        found["copy"] = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.py"))
        print(json.dumps(found))
        """
    )
    packages = str(Path(pydantic.__file__).parent.parent)
    done = subprocess.run(
        [scratch / "env" / "bin" / "python", "-c", code, SRC, packages],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["bypath"] == str(scratch / "bypath" / "src" / "bypath")
    assert found["by_finder"] == str(scratch / "by-finder" / "src" / "by_finder")
    assert found["by-finder"] == str(scratch / "by-finder" / "src" / "by_finder")
    assert found["solid"].startswith("error: 'solid' is installed in " + str(scratch / "env"))
    assert found["copy"] == [
        f"{name}/{end}" for name in ("by_finder", "bypath") for end in ("__init__.py", "sub/a.py")
    ]
