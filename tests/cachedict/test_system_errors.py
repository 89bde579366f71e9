"""What the system refuses for a moment is no damage: it is raised as it is, and changes nothing on the disk."""

import errno
import os
import pathlib
import subprocess
import sys
import typing as tp

import numpy as np
import pandas as pd
import pydantic
import pytest

import exca
from exca.cachedict import CacheDict, core, datafiles, handlers
from exca.errors import CacheWriteError
from waiting import wait_for

ERRORS = (errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT)
VALUES: dict[str, tp.Any] = {
    "MemmapArray": np.arange(5),
    "ContiguousMemmapArray": np.arange(5),
    "NumpyArray": np.arange(5),
    "Pickle": {1, 2},
    "PandasDataFrame": pd.DataFrame({"a": [1]}),
    "ParquetPandasDataFrame": pd.DataFrame({"a": [1]}),
    "Json": list(range(1000)),
    "Auto": {"a": list(range(1000)), "b": np.arange(3)},
}

EXPECTED = {name: repr(np.asarray(value).tolist()) for name, value in VALUES.items()} | {"Auto": "[0, 1, 2]"}


class Arrays(pydantic.BaseModel):
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def build(self) -> dict[str, tp.Any]:
        return {"array": np.arange(3), "names": ("a", "b")}


class Refusing:
    """`os.open` that fails for files whose path holds a text."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        self.text, self.code, self.refused, self.open = text, 0, 0, os.open
        monkeypatch.setattr(os, "open", self)

    def __call__(self, path: tp.Any, *args: tp.Any, **kwargs: tp.Any) -> int:
        if self.code and self.text in os.fspath(path):
            self.refused += 1
            raise OSError(self.code, os.strerror(self.code), path)
        return self.open(path, *args, **kwargs)


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def forget_open_files() -> None:
    datafiles._unmap_all()
    handlers.arrays._checked.clear()


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.__getitem__)
@pytest.mark.parametrize("name", VALUES)
def test_an_entry_survives(
    name: str,
    code: int,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cd = CacheDict[tp.Any](tmp_path, cache_type=name)
    with cd.write():
        cd["a"] = VALUES[name]
    before = content(tmp_path)
    refusing = Refusing(monkeypatch, "/data/")
    forget_open_files()
    refusing.code = code
    for _ in range(2):
        with pytest.raises(OSError, match=r".") as caught:
            cd["a"]
        assert caught.value.errno == code
    with pytest.raises(OSError, match=r"."):
        cd.get("a")
    with pytest.raises(OSError, match=r"."):
        list(cd.items())
    assert "a" in cd
    assert not [folder.damaged for folder in exca.verify(tmp_path).folders if folder.damaged]
    refusing.code = 0
    assert refusing.refused
    assert not caplog.records
    assert content(tmp_path) == before
    found = cd["a"]
    assert repr(found["b"].tolist() if name == "Auto" else np.asarray(found).tolist()) == EXPECTED[name]


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.__getitem__)
@pytest.mark.parametrize("what", ["/data/", "job.json"])
def test_the_result_of_a_task_survives(
    what: str, code: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infra: tp.Any = {"folder": tmp_path}
    expected = Arrays(infra=infra).build()
    before = content(tmp_path)
    refusing = Refusing(monkeypatch, what)
    forget_open_files()
    refusing.code = code
    with pytest.raises(OSError, match=r".") as caught:
        Arrays(infra=infra).build()
    assert caught.value.errno == code
    refusing.code = 0
    assert content(tmp_path) == before
    assert Arrays(infra=infra).build()["array"].tolist() == expected["array"].tolist()


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.__getitem__)
def test_an_index_file_that_cannot_be_opened_is_not_empty(
    code: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CacheDict[int](tmp_path / "before").write() as cd:
        cd["a"] = 1
    folder = tmp_path / "after"
    os.rename(tmp_path / "before", folder)  # so that nothing is known of it
    refusing = Refusing(monkeypatch, "-info.jsonl")
    refusing.code = code
    cd = CacheDict[int](folder)
    if code == errno.EACCES:  # of somebody whose umask closes it: it says nothing to this user
        assert "a" not in cd
    else:
        with pytest.raises(OSError, match=r".") as caught:
            _ = "a" in cd
        assert caught.value.errno == code
    refusing.code = 0
    wait_for(lambda: cd.get("a") == 1, "the next look at the folder")


def run(code: str, *args: object, limit: str) -> str:
    command = f"ulimit {limit}; exec {sys.executable} -c '{code}' {' '.join(map(str, args))}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


MANY = """
import sys, numpy as np
from exca.cachedict import CacheDict
caches, arrays = [], []
for number in range(200):
    cd = CacheDict(f"{sys.argv[1]}/{number}", cache_type=sys.argv[2])
    with cd.write():
        cd["a"] = np.full(3000, number)
    caches.append(cd)
for again in range(2):
    for number, cd in enumerate(caches):
        arrays.append(cd["a"])
        assert "b" not in cd and len(cd) == 1
assert [int(np.asarray(array)[7]) for array in arrays] == 2 * list(range(200))
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no ulimit")
@pytest.mark.parametrize("cache_type", ["MemmapArray", "ContiguousMemmapArray", "NumpyArray"])
def test_more_caches_than_files_may_be_open(cache_type: str, tmp_path: pathlib.Path) -> None:
    assert run(MANY, tmp_path, cache_type, limit="-n 256") == "done\n"


TENSORS = """
import sys, torch
from exca.cachedict import CacheDict
found = []
for number in range(200):
    cd = CacheDict(f"{sys.argv[1]}/{number}")
    with cd.write():
        cd["a"] = torch.full((30000,), float(number))
    found.append(cd["a"])
assert [float(tensor[7]) for tensor in found] == list(range(200))
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no ulimit")
def test_more_tensors_than_files_may_be_open(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("torch")
    assert run(TENSORS, tmp_path, limit="-n 256") == "done\n"


LARGE = """
import resource, sys, numpy as np
from exca.cachedict import CacheDict
from exca.errors import CacheWriteError
cd = CacheDict(sys.argv[1])
def put(key, value):
    with cd.write():
        cd[key] = value
def limited(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
put("first", 1)
limited(1000)
for number in range(3):
    try:
        put("long", "x" * 900 if number % 2 else np.zeros(1000))
        raise SystemExit("stored")
    except CacheWriteError:
        pass
limited(resource.RLIM_INFINITY)
put("long", np.zeros(1000))
limited(3000)  # less than there is in the file of arrays by now: another one is begun
try:
    put("more", np.ones(10))
except CacheWriteError:
    put("more", np.ones(10))
limited(resource.RLIM_INFINITY)
again = CacheDict(sys.argv[1])
assert sorted(cd) == sorted(again) == ["first", "long", "more"], sorted(again)
assert again["more"].tolist() == [1] * 10
print("done")
"""
EMPTY = """
import errno, os, sys
from exca.cachedict import CacheDict
from exca.errors import CacheWriteError
code, write = int(sys.argv[2]), os.write
def refuse(fd, data):
    raise OSError(code, os.strerror(code))
cd = CacheDict(sys.argv[1])
os.write = refuse
for _ in range(2):
    try:
        with cd.write():
            cd["a"] = 1
        raise SystemExit("stored")
    except CacheWriteError as e:
        assert e.errno == code, e
os.write = write
with cd.write():
    cd["a"] = 2
assert CacheDict(sys.argv[1])["a"] == 2
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no ulimit")
def test_files_as_large_as_they_may_be(tmp_path: pathlib.Path) -> None:
    assert run(LARGE.replace("'", '"'), tmp_path, limit="-c 0") == "done\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG], ids=errno.errorcode.__getitem__)
def test_a_full_disk_at_an_empty_index_file(code: int, tmp_path: pathlib.Path) -> None:
    assert run(EMPTY, tmp_path, code, limit="-c 0") == "done\n"


def test_a_value_that_cannot_be_written_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "data").touch()  # where the folder would be
    cd = CacheDict[tp.Any](tmp_path)
    with pytest.raises(CacheWriteError, match="The value of 'key' was not stored"), cd.write():
        cd["key"] = np.arange(3)
    with pytest.raises(CacheWriteError, match="The value of 'result' was not stored"):
        core.dump_one(tmp_path, np.arange(3), key="result")
    assert dict(cd) == {}
