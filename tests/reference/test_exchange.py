"""Caches go both ways: release 0.6 reads what is written here, and what it wrote is read here."""

import json
import os
import pathlib
import subprocess
import sys
import typing as tp

import exchange
import numpy as np
import orjson
import pytest

import exca
from exca.cachedict import CacheDict, DumpContext
from exca.cachedict.textindex import parse_line
from exca.errors import DamagedEntryError

HERE = pathlib.Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "migration.md").read_text(encoding="utf8")
REFERENCE = os.environ.get("EXCA_REFERENCE_PYTHON", "")
needs_reference = pytest.mark.skipif(
    not REFERENCE, reason="EXCA_REFERENCE_PYTHON names no interpreter that has exca 0.6.0"
)
# what release 0.6 cannot read, with the handler that it does not know
UNREADABLE = {
    "int over 64 bits": "py.int",
    "nan": "py.float",
    "text with lone surrogates": "py.str",
    "complex": "py.complex",
    "bytes": "py.bytes",
    "bytearray": "py.bytearray",
    "set": "py.set",
    "frozenset": "py.frozenset",
    "deque": "py.deque",
    "ordered dict": "py.ordered_dict",
    "dict with odd keys": "py.dict",
    "dict with reserved keys": "py.dict",
    "date": "py.date",
    "datetime": "py.datetime",
    "time": "py.time",
    "timedelta": "py.timedelta",
    "path": "py.path",
    "enum": "py.enum",
    "ellipsis": "py.ellipsis",
    "named tuple": "py.named_tuple",
    "dataclass": "py.dataclass",
    "model": "py.model",
    "numpy scalar": "py.numpy_scalar",
    "tensor, bfloat16": "bfloat16",
}
# fields of an entry that release 0.6 takes, by handler: these and no others
FIELDS: dict[str, list[set[str]]] = {
    "Json": [{"content"}, {"filename", "offset", "length"}],
    "Auto": [{"content"}],
    "MemmapArray": [{"filename", "offset", "shape", "dtype"}],
    "ContiguousMemmapArray": [{"filename", "offset", "shape", "dtype"}],
    "TorchTensor": [{"filename", "offset", "shape", "dtype"}],
    "WaveHandler": [{"filename", "data"}],
    "NumpyArray": [{"filename"}],
    "Pickle": [{"filename"}],
    "PandasDataFrame": [{"filename"}],
    "ParquetPandasDataFrame": [{"filename"}],
    "NibabelNifti": [{"filename"}],
    "MneRawFif": [{"filename"}],
    "MneRawBrainVision": [{"filename"}],
}
ANYWHERE = ("Json", "Auto")  # their handlers ignore what they do not know


def run(python: str, what: str, folder: pathlib.Path, **variables: str) -> dict[str, str]:
    """What one of the two interpreters wrote or found, by name."""
    done = subprocess.run(
        [python, "-W", "ignore", str(HERE / "exchange.py"), what, str(folder)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def as_lists(text: str) -> str:
    """What the release makes of a tuple is a list."""
    return text.replace("tuple [", "list [")


@needs_reference
@pytest.mark.timeout(600)  # three interpreters, each with torch and mne
def test_the_release_reads_what_is_written_here(tmp_path: pathlib.Path) -> None:
    written = run(sys.executable, "write", tmp_path, EXCA_WRITE_FOR_0_6="1")
    read = run(REFERENCE, "read", tmp_path)
    known = {name: text for name, text in written.items() if name in read}  # packages it has not are left out
    assert len(known) > 130
    failed = {name for name, text in known.items() if as_lists(text) != as_lists(read[name])}
    assert {name: read[name] for name in failed - set(UNREADABLE)} == {}
    assert {name for name in UNREADABLE if name in known} == failed
    for name in failed:
        assert UNREADABLE[name] in read[name], read[name]


@needs_reference
@pytest.mark.timeout(600)
def test_what_the_release_wrote_is_read_here(tmp_path: pathlib.Path) -> None:
    written = run(REFERENCE, "write", tmp_path)
    read = run(sys.executable, "read", tmp_path)
    known = {name: text for name, text in written.items() if not text.startswith("! ") or "error" in name}
    itself = run(
        REFERENCE, "read", tmp_path
    )  # some of what it writes it reads as something else, or not at all
    del known["dict with reserved keys"], known["array, objects"]  # these not at all
    wrong = {
        name: (text, read.get(name), itself.get(name))
        for name, text in known.items()
        if read.get(name) not in (text, itself.get(name))
    }
    assert len(known) > 100
    assert wrong == {}


@needs_reference
def test_both_work_on_one_folder(tmp_path: pathlib.Path) -> None:
    """Each replaces and deletes what the other wrote."""
    code = (
        "import sys, numpy as np; from exca.cachedict import CacheDict; cd = CacheDict(sys.argv[1])\n"
        "assert sorted(cd.keys()) == ['a', 'b', 'c', 'd'], list(cd.keys())\n"
        "with cd.write():\n"
        "    del cd['a']\n"
        "    cd['e'] = np.arange(5)\n"
        "assert sorted(cd.keys()) == ['b', 'c', 'd', 'e']\n"
    )
    cd = CacheDict[tp.Any](tmp_path)
    with cd.write():
        for number, key in enumerate("abcd"):
            cd[key] = np.arange(number + 1)
    subprocess.run([REFERENCE, "-c", code, str(tmp_path)], check=True)
    assert sorted(cd) == sorted(CacheDict[tp.Any](tmp_path)) == ["b", "c", "d", "e"]
    assert [cd[key].tolist() for key in "be"] == [[0, 1], [0, 1, 2, 3, 4]]
    with cd.write():
        cd["e"] = "new"
        del cd["b"]
    look = (
        "import sys; from exca.cachedict import CacheDict; cd = CacheDict(sys.argv[1])\n"
        "assert sorted(cd.keys()) == ['c', 'd', 'e'] and cd['e'] == 'new'\n"
    )
    subprocess.run([REFERENCE, "-c", look, str(tmp_path)], check=True)


def check_part(info: dict[str, tp.Any]) -> None:
    """Fail when release 0.6 would not take the entry of a part."""
    type_ = info["#type"]
    if type_.startswith("py."):
        return
    fields = set(info) - {"#type"}
    assert fields in FIELDS[type_], info
    if "dtype" in info and type_ != "TorchTensor":
        np.dtype(info["dtype"])  # as it is
    check_content(info.get("content") or info.get("data"))


def check_content(content: tp.Any) -> None:
    """Fail when a part of this content is nothing that release 0.6 takes."""
    if isinstance(content, dict) and "#type" in content:
        check_part(content)
    elif isinstance(content, dict | list):
        for item in content.values() if isinstance(content, dict) else content:
            check_content(item)


def test_lines_have_the_form_that_the_release_reads(tmp_path: pathlib.Path) -> None:
    for name, (folder, handler, value) in exchange.entries(tmp_path).items():
        cache = CacheDict[tp.Any](folder, cache_type=handler)
        with cache.write():
            cache[name] = value
    lines = [line for path in tmp_path.rglob("*-info.jsonl") for line in path.read_bytes().splitlines()]
    assert len(lines) == len(exchange.entries(tmp_path))
    for line in lines:
        info = orjson.loads(line)
        assert line.endswith(b'"}')
        assert b'"#key":' in line
        type_ = info["#type"]
        if type_.startswith("py."):
            continue
        assert type_ in ANYWHERE, info
        assert {key for key in info if key[0] != "#"} in FIELDS[type_], info
        check_content(info.get("content"))
    for path in tmp_path.rglob("data/*.jsonl"):  # contents, and behind some of them the fields of their parts
        for line in path.read_bytes().splitlines():
            content = orjson.loads(line)
            if not (isinstance(content, list) and content and {"#sum"} == set(content[0] or ())):
                check_content(content)


@pytest.mark.parametrize("size", [1, 1000])
def test_checksums_of_parts_are_compared(size: int, tmp_path: pathlib.Path) -> None:
    """Wherever the fields of the parts are: on the line, or behind a content in a file."""
    array = {number: np.full(16, number, dtype=np.uint8) for number in range(1, 6)}
    cd = CacheDict[tp.Any](tmp_path)
    with cd.write():
        cd["nested"] = {
            "long": list(range(size)),
            "a": array[1],
            "b": [(array[2], {"c": array[3]}), exchange.Wave([array[4]])],
            "d": {1: array[5]},
        }
    (path,) = (tmp_path / "data").glob("*.data")
    data = path.read_bytes()
    (index,) = tmp_path.glob("*-info.jsonl")
    for content in array.values():
        assert exca.verify(tmp_path).folders[0].damaged == []
        place = data.index(content.tobytes())
        path.write_bytes(data[: place + 3] + b"\xff" + data[place + 4 :])
        (damaged,) = exca.verify(tmp_path).folders[0].damaged
        assert "is damaged between bytes" in damaged.error
        with pytest.raises(DamagedEntryError, match="is damaged between bytes"):
            DumpContext(tmp_path).load(parse_line(index.read_bytes()))
        path.write_bytes(data)


def test_the_page_lists_what_the_release_cannot_read() -> None:
    storage = PAGE.partition("## Storage")[2].partition("\n## ")[0]
    handlers = {name for name in DumpContext.HANDLERS if name.startswith("py.")} - {"py.tuple", "py.odd"}
    assert handlers <= set(UNREADABLE.values())
    assert [name for name in sorted(set(UNREADABLE.values())) if f"`{name}`" not in storage] == []
