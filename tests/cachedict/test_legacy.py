"""Caches written by earlier releases are read as they are, added to, and stay correct."""

import pathlib
import shutil
import typing as tp

import numpy as np
import pytest

from exca.cachedict import CacheDict

LEGACY = pathlib.Path(__file__).parents[1] / "legacy_caches"
RELEASES = ("0.5.20", "0.5.29", "0.6.0")
UIDS = {
    "array": "default",
    "frame": "kind=frame-27c5a84d",
    "text": "kind=text-79eafdd6",
    "json": "kind=json-8fb0fbe3",
    "mixed": "kind=mixed-51239f7f",
}
ITEMS = (1, 2, 3, 12)


def same(kind: str, item: int, value: tp.Any) -> bool:
    match kind:
        case "array":
            return bool(value.dtype == np.int16 and value.tolist() == [[item, item]] * item)
        case "frame":
            # the text "0", "1"... of the second column comes back as numbers from CSV, as it always did
            return list(value.columns) == ["a", "b"] and value["a"].tolist() == list(range(item))
        case "text":
            return bool(value == f"text {item} é")
        case "json":
            return bool(value == {"item": item, "list": list(range(item))})
    info = {"name": f"item-{item}", "values": [1.5, None, True]}
    return bool(value["array"].tolist() == list(range(item)) and value["info"] == info)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("kind", UIDS)
def test_read_where_they_lie(release: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    if kind == "frame":
        pytest.importorskip("pandas")
    folder = LEGACY / release / "legacy_models.Map.process,2" / UIDS[kind]
    before = sorted(path.name for path in folder.rglob("*"))
    cd = CacheDict[tp.Any](folder)
    assert sorted(cd) == sorted(map(str, ITEMS))
    assert all(same(kind, item, cd[str(item)]) for item in ITEMS)
    assert len(cd) == 4
    assert not caplog.records
    assert sorted(path.name for path in folder.rglob("*")) == before


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("kind", UIDS)
def test_added_to(release: str, kind: str, tmp_path: pathlib.Path) -> None:
    if kind == "frame":
        pytest.importorskip("pandas")
    folder = tmp_path / "cache"
    shutil.copytree(LEGACY / release / "legacy_models.Map.process,2" / UIDS[kind], folder)
    cd = CacheDict[tp.Any](folder)
    with cd.write():
        cd["new"] = cd["12"]
        cd["3"] = cd["2"]
        del cd["1"]
    for again in (cd, CacheDict[tp.Any](folder)):
        assert sorted(again) == ["12", "2", "3", "new"]
        assert same(kind, 12, again["new"])
        assert same(kind, 2, again["3"])
        assert same(kind, 12, again["12"])


OLD_LINES = """\
{"filename":"data/vm-1.data","offset":0,"shape":[1],"dtype":FIELDS,"#type":"MemmapArray","#key":"a"}
{"filename":"data/vm-1.data","offset":4,"shape":[1],"dtype":"float64","#type":"MemmapArrayFile","#key":"b"}
{"filename":"data/vm-1.data","offset":4,"shape":[1],"dtype":"float64","#type":"ContiguousMemmapArray","#key":"c"}
{"filename":"data/vm-1.data.jsonl","offset":7,"length":5,"#type":"Json","#key":"d"}
{"filename":"data/x.npy","#type":"NumpyArray","#key":"e"}
{"content":{"x":{"filename":"data/x.npy","#type":"NumpyArray"}},"#type":"AutoPickle","#key":"f"}
{"filename":"data/vm-1.data","offset":0,"shape":[1],"dtype":"object","#type":"MemmapArray","#key":"g"}
"""


def test_formats_of_earlier_releases(tmp_path: pathlib.Path) -> None:
    """Lines as they were written, of handlers that the recorded caches do not use."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "vm-1.data").write_bytes(
        np.array([(1, 2.5)], dtype=[("a", "<i4"), ("b", "<f8")]).tobytes()
    )
    (tmp_path / "data" / "vm-1.data.jsonl").write_bytes(b'"long"\n[1,2]\n')
    np.save(tmp_path / "data" / "x.npy", np.arange(3))
    fields = "\"[('a', '<i4'), ('b', '<f8')]\""
    (tmp_path / "vm-1-info.jsonl").write_text(OLD_LINES.replace("FIELDS", fields))
    cd = CacheDict[tp.Any](tmp_path)
    assert cd["a"].tolist() == [(1, 2.5)]
    assert cd["b"].tolist() == [2.5]
    assert np.asarray(cd["c"]).tolist() == [2.5]
    assert cd["d"] == [1, 2]
    assert cd["e"].tolist() == cd["f"]["x"].tolist() == [0, 1, 2]
    with pytest.raises(KeyError):  # addresses of objects in a process long gone
        cd["g"]
