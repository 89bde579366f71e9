"""Records and claims of other versions: earlier ones are read, later ones are reported and left alone."""

import json
import os
import subprocess
import sys
import typing as tp
from collections.abc import Callable
from pathlib import Path

import orjson
import pydantic
import pytest
import xxhash

import exca
from exca import errors
from exca.cachedict import CacheDict
from exca.engine.record import SEALED


class Doubling(pydantic.BaseModel):
    """A task that counts how often it is computed."""

    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        assert self.infra.folder is not None
        with open(f"{self.infra.folder}/computed", "a", encoding="ascii") as file:
            file.write("x")
        return 2 * self.x


class Squares(pydantic.BaseModel):
    """A map."""

    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        for item in items:
            yield item * item


def sealed(content: dict[str, tp.Any]) -> bytes:
    body = orjson.dumps(content)[:-1]
    return SEALED % (body, xxhash.xxh3_64_intdigest(body))


def task_in(folder: Path, **infra: tp.Any) -> Doubling:
    return Doubling.model_validate({"infra": {"folder": folder, **infra}})


def computed(folder: Path) -> int:
    return (folder / "computed").stat().st_size


def as_version(folder: Path, version: int, *, seal: bool = True) -> bytes:
    """Compute a task, and make its record one of another version."""
    task = task_in(folder)
    assert task.run() == 2
    home = task.infra.uid_folder()
    assert home is not None
    content = {**orjson.loads((home / "job.json").read_bytes()), "version": version}
    if version == 1:
        for name in ("config", "resources", "submitted", "used", "code"):
            content.pop(name, None)
    content.pop("#xxh")
    data = sealed(content) if seal else orjson.dumps(content)
    (home / "job.json").write_bytes(data)
    return data


def test_a_record_of_version_1_is_read(tmp_path: Path) -> None:
    as_version(tmp_path, 1)
    assert task_in(tmp_path).run() == 2
    assert computed(tmp_path) == 1
    assert exca.verify(tmp_path).sound


@pytest.mark.parametrize("seal", [True, False], ids=["sealed as today", "sealed otherwise"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda task: task.run(),
        lambda task: task.infra.status(),
        lambda task: task.infra.job(),
        lambda task: task.infra.clear_job(),
        lambda task: task.infra.clone_obj({"infra.mode": "force"}).run(),
        lambda task: task.infra.clone_obj({"infra.mode": "retry"}).run(),
        lambda task: task.infra.clone_obj({"infra.cluster": "local"}).run(),
    ],
    ids=["call", "status", "job", "clear_job", "force", "retry", "local"],
)
def test_a_record_of_version_3_is_reported_and_left_alone(
    tmp_path: Path, ask: Callable[[tp.Any], object], seal: bool
) -> None:
    data = as_version(tmp_path, 3, seal=seal)
    with pytest.raises(errors.UnknownVersionError, match=r"job\.json is a record of version 3.*update exca"):
        ask(task_in(tmp_path))
    report = exca.verify(tmp_path)
    assert not any(folder.damaged for folder in report.folders)
    assert any(
        "record of version 3" in str(found) for folder in report.folders for found in folder.unreadable
    )
    exca.repair(tmp_path)
    [path] = tmp_path.rglob("job.json*")
    assert path.read_bytes() == data
    assert computed(tmp_path) == 1


def test_a_damaged_version_is_damage_and_no_later_release(tmp_path: Path) -> None:
    """One bit makes a 3 of the 2: the checksum tells that the record is one of this release."""
    whole = as_version(tmp_path, 2)
    [path] = tmp_path.rglob("job.json")
    path.write_bytes(whole.replace(b'"version":2', b'"version":3', 1))
    assert task_in(tmp_path).run() == 2
    assert computed(tmp_path) == 2


def test_a_claim_of_version_3_is_reported_and_left_alone(tmp_path: Path) -> None:
    squares = Squares.model_validate({"infra": {"folder": tmp_path}})
    assert list(squares.run([1])) == [1]
    home = squares.infra.uid_folder()
    assert home is not None
    claim = home / "host-1-1-abcdefabcdef.0.abcdef.claim"
    claim.write_text(json.dumps({"state": "owned", "version": 3, "owner": "by other means"}) + "\n")
    again = Squares.model_validate({"infra": {"folder": tmp_path}})
    assert list(again.run([1])) == [1]  # what is there needs no claim
    with pytest.raises(
        errors.UnknownVersionError, match=r"abcdef\.claim is a claim of version 3.*update exca"
    ):
        list(again.run([2]))
    report = exca.verify(tmp_path)
    assert any("claim of version 3" in str(found) for folder in report.folders for found in folder.unreadable)
    exca.repair(tmp_path)
    assert claim.exists()


@pytest.mark.parametrize("name", ["host-1-0123abcd-info.v3", "host-1-0123abcd.0123456789abcdef-info.v12"])
def test_an_index_of_version_3_is_reported_and_left_alone(tmp_path: Path, name: str) -> None:
    squares = Squares.model_validate({"infra": {"folder": tmp_path}})
    assert list(squares.run([1])) == [1]
    home = squares.infra.uid_folder()
    assert home is not None
    later = home / name
    later.write_bytes(b"by other means")
    before = sorted(path.name for path in home.iterdir())
    again = Squares.model_validate({"infra": {"folder": tmp_path}})
    again.infra.cache_dict.doubt(["1"])
    with pytest.raises(errors.UnknownVersionError, match=r"info\.v\d+ is an index of a version.*update exca"):
        again.infra.cache_dict._index.refresh()
    script = (
        "import test_record_versions as t, pathlib, sys\n"
        "list(t.Squares.model_validate({'infra': {'folder': pathlib.Path(sys.argv[1])}}).run([1, 2]))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", script, str(tmp_path)]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert "UnknownVersionError" in ran.stderr
    report = exca.verify(tmp_path)
    assert any("index of a version" in str(found) for folder in report.folders for found in folder.unreadable)
    exca.repair(tmp_path)
    assert sorted(path.name for path in home.iterdir()) == before
    assert later.read_bytes() == b"by other means"


def test_a_side_index_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    side = tmp_path / ".exca-index"
    cache: CacheDict[int] = CacheDict(tmp_path)
    with cache.write():
        for number in range(5_000):
            cache[str(number)] = number
    assert side.exists()
    side.write_bytes(b"EXCAIDX2 and what that release keeps there")
    script = (
        "import sys\nfrom exca.cachedict import CacheDict\ncache = CacheDict(sys.argv[1])\n"
        "with cache.write():\n    for number in range(5_000, 10_000):\n        cache[str(number)] = number\n"
        "print(cache['3'], len(cache))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "3 10000\n"
    exca.repair(tmp_path)
    assert side.read_bytes().startswith(b"EXCAIDX2")
    assert exca.verify(tmp_path).sound


def test_a_record_tells_what_was_asked_for_and_used(tmp_path: Path) -> None:
    task = task_in(tmp_path, cluster="local", mem_gb=1.5)
    assert task.infra.clone_obj({"x": 3}).run() == 6
    [path] = tmp_path.rglob("job.json")
    content = json.loads(path.read_text())
    assert content["config"] == {"x": 3}
    assert content["resources"] == {"mem_gb": 1.5}
    assert content["submitted"] <= content["started"] <= content["finished"]
    assert 5 < content["used"]["max_rss_mb"] < 1000
    assert content["used"]["cpu_seconds"] > 0
    assert not os.path.isabs(content["logs"])
    assert path.stat().st_size < 2048


def test_a_cache_that_was_moved_keeps_its_logs(tmp_path: Path) -> None:
    assert task_in(tmp_path / "here", cluster="local").infra.job().result() == 2
    (tmp_path / "here").rename(tmp_path / "there")
    job = task_in(tmp_path / "there", cluster="local").infra.job()
    assert job.paths.stdout.is_relative_to(tmp_path / "there")
    assert job.stdout() is not None


def test_numbers_that_json_has_not_stay_in_the_configuration_of_a_record(tmp_path: Path) -> None:
    class Limited(pydantic.BaseModel):
        limit: float = 1.0
        infra: exca.TaskInfra = exca.TaskInfra(folder=tmp_path)

        @infra.apply
        def run(self) -> bool:
            return self.limit > 1

    assert Limited(limit=float("inf")).run()
    [path] = tmp_path.rglob("job.json")
    assert json.loads(path.read_text())["config"] == {"limit": "inf"}
