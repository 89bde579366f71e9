"""Damaged, foreign, torn and vanished files: never a wrong value, never an unreadable folder, reported once."""

import logging
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import typing as tp

import numpy as np
import pytest

import exca
from caches import fill
from exca.cachedict import CacheDict, DumpContext
from exca.cachedict import index as cache_index
from exca.errors import CacheWriteError


def fresh(folder: pathlib.Path) -> CacheDict[tp.Any]:
    """An object that knows nothing of the folder, as in another process."""
    cache_index._registry.clear()
    return CacheDict[tp.Any](folder)


def index_file(folder: pathlib.Path) -> pathlib.Path:
    [path] = folder.glob("*-info.jsonl")
    return path


GARBAGE = {
    "text": b"garbage\n",
    "no entry": b'{"#type":"Json"}\n',
    "a number for a key": b'{"content":1,"#type":"Json","#key":3}\n',
    "a list": b"[1]\n",
    "empty lines": b"\n\n",
    "not utf8": b"\xff\xfe\n",
    "zeros": bytes(5000) + b"\n",
    "torn": b'{"content":1,"#ty',
    "nothing": b"",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_foreign_lines_are_skipped(
    name: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, a=1, b=2)
    path = index_file(tmp_path)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(
        first + GARBAGE[name] + second if GARBAGE[name].endswith(b"\n") else first + second + GARBAGE[name]
    )
    (tmp_path / "other-info.jsonl").write_bytes(GARBAGE[name])
    (tmp_path / "foreign.txt").write_text("foreign")
    (tmp_path / "dir-info.jsonl").mkdir()
    cd = fresh(tmp_path)
    assert sorted(cd) == ["a", "b"]
    assert (len(cd), cd["a"], cd["b"]) == (2, 1, 2)
    with cd.write():
        cd["c"] = 3
    assert sorted(fresh(tmp_path)) == ["a", "b", "c"]
    said = [r.message for r in caplog.records if path.name in r.message]
    assert len(said) <= 2
    assert all("Skipped a damaged line at byte " in line for line in said)
    assert said or name in ("torn", "nothing", "empty lines")


def test_a_writer_never_continues_a_torn_line(tmp_path: pathlib.Path) -> None:
    cd = fill(tmp_path, a=1)
    with index_file(tmp_path).open("ab") as file:
        file.write(b'{"content":2,"#type":"Js')
    with cd.write():
        cd["b"] = 2
    assert dict(fresh(tmp_path).items()) == {"a": 1, "b": 2}


def test_a_seal_that_is_itself_damaged_does_not_make_its_line_pass_for_an_old_one(
    tmp_path: pathlib.Path,
) -> None:
    fill(tmp_path, a=1111)
    path = index_file(tmp_path)
    whole = path.read_bytes().replace(b"1111", b"1112")
    at = whole.index(b',"#xxh":"')
    for place in range(at, at + 9):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            assert "a" not in fresh(tmp_path), (place, bit)
            assert fresh(tmp_path).missing(["a"] * 2000) == ["a"] * 2000


def test_a_flipped_bit_in_the_index_is_no_wrong_value(tmp_path: pathlib.Path) -> None:
    values = {f"key{n}": n * 1111 for n in range(20)}
    fill(tmp_path, **values)
    path = index_file(tmp_path)
    whole = path.read_bytes()
    rng = random.Random(0)
    lost = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        cd = fresh(tmp_path)
        if rng.random() < 0.5:
            cd._index.asked(1000)
        found = {key: cd.get(key) for key in values if key in cd}
        wrong = {key: value for key, value in found.items() if value is not None and values[key] != value}
        assert not wrong
        assert all(values.get(key) == value for key, value in cd.items())
        lost += len(values) - len(found)
    assert lost > 100


@pytest.mark.parametrize("kind", ["array", "text", "own file", "pickle"])
def test_damaged_data_is_set_aside_and_can_be_written_again(
    kind: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    value: tp.Any = {
        "array": np.arange(100.0),
        "text": "text" * 1000,
        "own file": np.arange(100.0),
        "pickle": {"a": random.Random(0)},
    }[kind]
    cd = CacheDict[tp.Any](tmp_path, cache_type="NumpyArray" if kind == "own file" else None)
    with cd.write():
        cd["a"] = value
        cd["b"] = value
    [path, *_] = sorted((tmp_path / "data").iterdir())
    data = bytearray(path.read_bytes())
    data[-20 if kind == "own file" else 20] ^= 4
    path.write_bytes(data)
    cd = fresh(tmp_path)
    assert "a" in cd
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for key in ("a", "b"):
            for _ in range(3):
                cd.get(key)
    lost = [key for key in ("a", "b") if key not in cd]
    assert len(lost) == 1
    assert len(caplog.records) == 1
    assert "is damaged and counts as missing from now on" in caplog.text
    assert len(list(tmp_path.glob("*.damaged"))) == 1
    assert len(cd) == 1
    with cd.write():
        cd[lost[0]] = value
    assert sorted(fresh(tmp_path)) == ["a", "b"]
    again = fresh(tmp_path)[lost[0]]
    assert np.array_equal(again, value) if isinstance(value, np.ndarray) else type(again) is type(value)


def test_truncated_and_vanished_data(tmp_path: pathlib.Path) -> None:
    cd = fill(tmp_path, a=np.arange(10), b=np.arange(1000), c=1)
    [path] = (tmp_path / "data").iterdir()
    os.truncate(path, 500)
    assert cd["a"].tolist() == list(range(10))
    with pytest.raises(KeyError):
        cd["b"]
    path.unlink()
    with pytest.raises(KeyError):
        cd["a"]
    assert dict(cd.items()) == {"c": 1}


def test_a_truncated_index_loses_only_what_was_cut(tmp_path: pathlib.Path) -> None:
    cd = fill(tmp_path, **{f"k{n}": n for n in range(6000)})
    path = index_file(tmp_path)
    assert (tmp_path / ".exca-index").exists()
    size = path.stat().st_size
    os.truncate(path, size // 2)
    for reader in (cd, fresh(tmp_path)):
        found = dict(reader.items())
        assert 2900 < len(found) < 3100
        assert len(reader) == len(found)
        assert all(found[key] == int(key[1:]) for key in found)
        assert reader.missing(["k0", "k5999"]) == ["k5999"]
    with cd.write():
        cd["k5999"] = 5999
    assert fresh(tmp_path)["k5999"] == 5999


def test_a_damaged_side_index_costs_time_only(tmp_path: pathlib.Path) -> None:
    values = {f"k{n}": n for n in range(5000)}
    fill(tmp_path, **values)
    path = tmp_path / ".exca-index"
    whole = path.read_bytes()
    rng = random.Random(1)
    for case in range(60):
        data = bytearray(whole)
        match case % 4:
            case 0:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1:
                start = rng.randrange(len(data))
                data[start : start + 4000] = rng.randbytes(len(data[start : start + 4000]))
            case 2:
                del data[rng.randrange(len(data)) :]
            case _:
                data[200:] = bytes(len(data) - 200)
        path.write_bytes(data)
        cd = fresh(tmp_path)
        keys = rng.sample(sorted(values), 5)
        for key in keys:
            assert cd[key] == values[key]
        assert "nope" not in cd
        assert len(cd) == 5000
        assert cd.missing([*keys, "nope"]) == ["nope"]
        if not path.exists():
            path.write_bytes(whole)


def test_a_side_index_of_other_files_is_not_believed(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, **{f"k{n}": n for n in range(5000)})
    path = index_file(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    random.Random(0).shuffle(lines)
    path.write_bytes(b"".join(lines))
    cd = fresh(tmp_path)
    assert (cd["k7"], len(cd)) == (7, 5000)
    path.write_bytes(b"".join(line for line in lines if b'"k8"' not in line))
    assert ("k8" in cd, cd["k9"], len(cd)) == (False, 9, 4999)


def test_nothing_outside_of_the_folder_is_read(tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text('"secret"')
    (tmp_path / "cache").mkdir()
    for name in ("../secret", str(secret)):
        line = f'{{"filename":"{name}","offset":0,"length":8,"#type":"Json","#key":"a"}}\n'
        (tmp_path / "cache" / "x-info.jsonl").write_text(line)
        assert fresh(tmp_path / "cache").get("a") is None


def test_read_only_folder(tmp_path: pathlib.Path) -> None:
    """As a user who may not write; root, who always may, checks by another user's process."""
    fill(tmp_path, a=1, b=np.arange(3), **{f"k{n}": n for n in range(5000)})
    (tmp_path / ".exca-index").unlink()
    code = f"""
import hashlib, os, numpy
from exca.cachedict import CacheDict, sideindex
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
cd = CacheDict({str(tmp_path)!r})
print(cd['a'], cd['b'].tolist(), len(cd))
WORDS = "check the rights", "entries were not stored", "The entry 'a' was not deleted"
for action in ("with cd.write(): cd['x'] = 1", "del cd['a']"):
    try:
        exec(action)
    except OSError as e:
        print(*[words in str(e) for words in WORDS])
print(cd['a'], len(cd), 'x' in cd)
"""
    if os.geteuid() == 0:  # pytest's folders are closed to others
        for folder in (tmp_path, *tmp_path.parents):
            if pathlib.Path(tempfile.gettempdir()) in folder.parents:
                folder.chmod(0o755)
    else:
        tmp_path.chmod(0o555)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:4] == [
        "1 [0, 1, 2] 5002",
        "True True False",
        "True False True",
        "1 5002 False",
    ], done.stderr


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> tp.Iterator[pathlib.Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root on Linux can mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("kind", ["large arrays", "small arrays", "numbers", "own files", "frames"])
def test_full_disk(kind: str, small_disk: pathlib.Path) -> None:
    folder = small_disk / "cache"
    cd = CacheDict[tp.Any](folder, cache_type="NumpyArray" if kind == "own files" else None)
    value: tp.Any = {
        "large arrays": np.arange(10_000.0),
        "small arrays": np.arange(500.0),
        "numbers": 1.5,
        "own files": np.arange(5_000.0),
    }.get(kind)
    if kind == "frames":
        pd = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        value = pd.DataFrame({"a": np.arange(3_000)})
    with cd.write():
        cd["first"] = value
    (small_disk / "ballast").write_bytes(bytes(300_000))
    with pytest.raises(CacheWriteError, match="disk is full"), cd.write():  # noqa: PT012 - the same
        for n in range(30_000):
            cd[str(n)] = value
    for reader in (cd, fresh(folder)):
        assert np.array_equal(reader["first"], value)
        stored = list(reader)
        assert all(np.array_equal(reader[key], value) for key in stored)
        assert len(reader) == len(stored)
    assert exca.verify(folder).folders[0].damaged == []
    (small_disk / "ballast").unlink()
    with cd.write():
        cd["later"] = value
    assert np.array_equal(fresh(folder)["later"], value)
    assert exca.verify(folder).folders[0].damaged == []


def test_verification(tmp_path: pathlib.Path) -> None:
    cd = fill(tmp_path, a=1, b=np.arange(400_000.0), c={"x": (np.arange(3), "y" * 3000)}, d="z" * 2000, e=0)
    with CacheDict[tp.Any](tmp_path, cache_type="NumpyArray").write() as own:
        own["own"] = np.arange(3)
    del cd["e"]
    (report,) = exca.verify(tmp_path).folders
    assert (report.entries, report.damaged, report.orphans) == (5, [], [])
    assert report.nbytes > 3_200_000
    data = next(path for path in (tmp_path / "data").iterdir() if path.suffix == ".data")
    with data.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\x01\x02")
    (tmp_path / "data" / "orphan.npy").write_bytes(b"x")
    with index_file(tmp_path).open("ab") as file:
        file.write(b'garbage\n{"torn')
    (report,) = exca.verify(tmp_path).folders
    assert report.entries == 4
    size = index_file(tmp_path).stat().st_size
    assert [(damaged.key, damaged.offset) for damaged in report.damaged] == [
        ("b", report.damaged[0].offset),
        (None, size - 6 - len(b"garbage\n")),
        (None, size - 6),
    ]
    assert "ends within a line" in report.damaged[2].error
    assert report.orphans == ["data/orphan.npy"]


def test_damage_in_any_file(tmp_path: pathlib.Path) -> None:
    """Truncations, flips and garbage everywhere, with a reader that lives through all of them."""
    values: dict[str, tp.Any] = {f"n{n}": n for n in range(30)}
    values |= {f"a{n}": list(range(n)) * 100 for n in range(30)}
    rng = random.Random(4)
    for round_ in range(12):
        folder = tmp_path / str(round_)
        with CacheDict[tp.Any](folder).write() as cd:
            for key, value in values.items():
                cd[key] = np.array(value) if key[0] == "a" and int(key[1:]) % 2 else value
        index = cd._index
        index._roll()
        assert index._table is not None
        index._table.save(str(folder))
        for _ in range(25):
            path = rng.choice([path for path in folder.rglob("*") if path.is_file()])
            data = bytearray(path.read_bytes())
            if (
                path.suffix == ".data"
            ):  # cutting a file under a memory map ends the process: nobody can help that
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            elif data and rng.random() < 0.3:
                del data[rng.randrange(len(data)) :]
            elif data:
                start = rng.randrange(len(data))
                data[start : start + 9] = rng.randbytes(len(data[start : start + 9]))
            path.write_bytes(data)
            reader = cd if rng.random() < 0.5 else fresh(folder)
            for key in rng.sample(sorted(values), 20):
                found = reader.get(key)
                assert found is None or np.array_equal(found, values[key]), key
            again = rng.choice(sorted(values))
            with reader.write():
                reader[again] = values[again]
            assert np.array_equal(fresh(folder)[again], values[again])
    assert DumpContext.DATA_DIR == "data"
