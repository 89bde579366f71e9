"""Folders as users write them: the home, variables, parents that are missing, and none at all."""

import logging
import os
import subprocess
import sys
import typing as tp
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pydantic
import pytest

import exca
from exca import steps
from exca.cachedict import CacheDict
from exca.jobs import resources


class Task(pydantic.BaseModel):
    """A task."""

    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 2 * self.x


class Map(pydantic.BaseModel):
    """A map."""

    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: Iterable[int]) -> Iterator[int]:
        for item in items:
            yield 2 * item


class InFolder(steps.Step):
    """A step."""

    def _run(self, x: int) -> int:
        return 2 * x


def use_task(folder: tp.Any) -> None:
    assert Task.model_validate({"infra": {"folder": folder}}).run() == 2


def use_map(folder: tp.Any) -> None:
    assert list(Map.model_validate({"infra": {"folder": folder}}).run([1])) == [2]


def use_step(folder: tp.Any) -> None:
    assert InFolder.model_validate({"infra": {"backend": "Cached", "folder": folder}}).run(1) == 2


def use_cache(folder: tp.Any) -> None:
    cache: CacheDict[int] = CacheDict(folder)
    with cache.write():
        cache["1"] = 2


every_use = pytest.mark.parametrize("use", [use_task, use_map, use_step, use_cache])
Use = Callable[[tp.Any], None]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a home, and a current directory beside it."""
    for name in ("home", "current"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "current")
    return tmp_path / "home"


@every_use
@pytest.mark.parametrize("kind", [str, Path])
def test_the_home_is_expanded(home: Path, use: Use, kind: type) -> None:
    use(kind("~/cache"))
    assert os.listdir(home) == ["cache"]
    assert os.listdir() == []


@every_use
def test_what_an_earlier_release_kept_under_a_literal_name_is_found(
    home: Path, use: Use, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "exca")
    os.makedirs("~/cache")
    use("~/cache")
    use("~/cache")
    assert os.listdir(home) == []
    assert os.listdir("~/cache")
    (record,) = caplog.records
    assert f"literally called {os.path.abspath('~/cache')}" in record.getMessage()
    assert f"move it to {home}/cache" in record.getMessage()
    os.rename("~/cache", home / "cache")
    before = os.listdir(home / "cache")
    use("~/cache")
    assert set(before) <= set(os.listdir(home / "cache"))
    assert os.listdir("~") == []


@every_use
@pytest.mark.parametrize("folder", ["$NAME/cache", "${NAME}/cache", "under/a$NAME", "~/$NAME"])
def test_a_variable_is_refused(home: Path, use: Use, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", str(home / "cache"))
    with pytest.raises(ValueError, match=r"holds an environment variable.*os\.path\.expandvars"):
        use(folder)
    assert os.listdir() == os.listdir(home) == []


@every_use
def test_a_folder_whose_name_holds_a_dollar_is_used_if_it_is_there(
    home: Path, use: Use, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "exca")
    (home / "a$NAME").mkdir()
    use(home / "a$NAME" / "cache")
    assert os.listdir(home / "a$NAME") == ["cache"]
    assert any(str(home / "a$NAME") in record.getMessage() for record in caplog.records)
    use(home / "5$")  # no variable has such a name
    assert (home / "5$").is_dir()


def test_an_unknown_user_has_no_home(home: Path) -> None:
    with pytest.raises(ValueError, match="names a user that this machine does not know"):
        use_task("~nobody-of-this-name/cache")


def test_logs_and_the_working_directory_are_expanded_too(home: Path) -> None:
    (home / "code.py").touch()
    infra = exca.TaskInfra(
        folder=home / "cache",
        logs="~/logs/%j",
        workdir={"copied": [home / "code.py"], "folder": "~/copy"},  # type: ignore[arg-type] # validated
    )
    assert infra.logs == f"{home}/logs/%j"
    assert infra.workdir is not None
    assert infra.workdir.folder == f"{home}/copy"
    with pytest.raises(ValueError, match=r"logs='\$X/%j' holds"):
        infra.logs = "$X/%j"


def test_a_map_is_not_kept_where_the_parent_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "cahce" / "maps"
    with pytest.raises(pydantic.ValidationError, match=r"parent of .* does not exist: create it"):
        Map.model_validate({"infra": {"folder": folder}})
    with pytest.raises(pydantic.ValidationError, match="parent of"):
        exca.MapInfra(folder="missing/maps")
    assert os.listdir(tmp_path) == []
    folder.parent.mkdir()
    use_map(folder)
    use_task(tmp_path / "many" / "new" / "folders")  # as in earlier releases


def test_a_folder_of_null_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    resources.warn_of_no_folder.cache_clear()
    caplog.set_level(logging.WARNING, "exca")
    assert Task().run() == 2
    assert caplog.records == []
    for _ in range(2):
        use_task(None)
        use_map(None)
    (record,) = caplog.records
    assert "its results are not kept" in record.getMessage()


def test_a_relative_entry_of_the_import_path_reaches_a_job(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "study.py").write_text(Path(__file__).read_text().partition("def use_task")[0])
    code = "import study; print(study.Task(infra={'folder': 'cache', 'cluster': 'local'}).run())"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(["lib", str(Path(exca.__file__).parents[1])])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "2\n", done.stderr
