"""CacheDict as a mapping: what is set, found, replaced and deleted, by one object, another one and another process."""

import logging
import os
import pathlib
import pickle
import subprocess
import sys
import typing as tp

import numpy as np
import pytest

import exca
from caches import fill
from exca.cachedict import CacheDict


def in_process(code: str, *args: object) -> str:
    """Run code in a fresh interpreter; returns what it prints."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_set_and_get(tmp_path: pathlib.Path) -> None:
    cd = fill(tmp_path, a=1, b="text", c=[1, {"x": None}], d=np.arange(3))
    assert (cd["a"], cd["b"], cd["c"]) == (1, "text", [1, {"x": None}])
    assert cd["d"].tolist() == [0, 1, 2]
    assert len(cd) == 4
    assert list(cd) == list(cd.keys()) == ["a", "b", "c", "d"]
    assert [key for key, _ in cd.items()] == ["a", "b", "c", "d"]
    assert list(cd.values())[:2] == [1, "text"]
    assert "a" in cd
    assert "nope" not in cd
    assert cd.get("nope") is None
    assert cd.get("nope", 3) == 3


def test_missing_key_is_a_key_error(tmp_path: pathlib.Path) -> None:
    cd = fill(tmp_path, a=1)
    with pytest.raises(KeyError, match="nope"):
        cd["nope"]
    with pytest.raises(KeyError, match="nope"):
        del cd["nope"]


def test_needs_a_folder_or_memory() -> None:
    with pytest.raises(ValueError, match="folder"):
        CacheDict[int](None)


def test_memory_only() -> None:
    cd = CacheDict[int](None, keep_in_ram=True)
    cd["a"] = 1
    with cd.write():
        cd["b"] = 2
    assert dict(cd.items()) == {"a": 1, "b": 2}
    assert cd.missing(["a", "c"]) == ["c"]
    assert list(cd.iter_values(["b", "a"])) == [2, 1]
    del cd["a"]
    cd.clear()
    assert len(cd) == 0


def test_keep_in_ram_returns_the_same_object(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, a=np.arange(3))
    cd = CacheDict[tp.Any](tmp_path, keep_in_ram=True)
    assert cd["a"] is cd["a"]


def test_writing_outside_of_the_context_is_refused(tmp_path: pathlib.Path) -> None:
    cd = CacheDict[int](tmp_path)
    with pytest.raises(RuntimeError, match=r"is written to inside its context: with cachedict\.write\(\)"):
        cd["a"] = 1


def test_contexts_nest(tmp_path: pathlib.Path) -> None:
    cd = CacheDict[int](tmp_path)
    with cd.write():
        with cd.write():
            cd["a"] = 1
        cd["b"] = 2
    assert sorted(CacheDict[int](tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("key", [3, b"a", None, ("a",)])
def test_keys_are_text(tmp_path: pathlib.Path, key: tp.Any) -> None:
    cd = CacheDict[int](tmp_path)
    with cd.write(), pytest.raises(TypeError, match="Keys of a CacheDict are str, not "):
        cd[key] = 1
    assert key not in cd
    assert len(cd) == 0


def test_odd_keys(tmp_path: pathlib.Path) -> None:
    keys = [
        "",
        "x" * 10_000,
        "a\nb",
        'quo"te\\',
        "é☃\U0001f600",
        "\x00\x1f\u2028",
        "#key",
        " ",
        "../../up",
        "a/b",
    ]
    cd = CacheDict[tp.Any](tmp_path)
    with cd.write():
        for number, key in enumerate(keys):
            cd[key] = np.full(3, number)
    code = """
import sys, exca.cachedict
cd = exca.cachedict.CacheDict(sys.argv[1])
print([int(cd[key][0]) for key in eval(sys.argv[2])], len(cd))
"""
    keys_text = repr([key for key in keys if "\x00" not in key])
    assert in_process(code, tmp_path, keys_text) == f"{[0, 1, 2, 3, 4, 6, 7, 8, 9]} 10"
    assert cd["\x00\x1f\u2028"].tolist() == [5, 5, 5]
    assert sorted(cd) == sorted(keys)


def test_a_key_that_no_file_can_hold(tmp_path: pathlib.Path) -> None:
    cd = CacheDict[int](tmp_path)
    with cd.write(), pytest.raises(ValueError, match="surrogate"):
        cd["\ud800"] = 1
    assert len(cd) == 0


def test_newest_value_wins(tmp_path: pathlib.Path) -> None:
    cd = fill(tmp_path, a=1, b=2)
    with cd.write():
        cd["a"] = 3
        cd["a"] = 4
    code = (
        "import sys, exca.cachedict as c; cd = c.CacheDict(sys.argv[1]); print(cd['a'], len(cd), sorted(cd))"
    )
    assert (cd["a"], len(cd), sorted(cd)) == (4, 2, ["a", "b"])
    assert in_process(code, tmp_path) == "4 2 ['a', 'b']"
    set_it = "import sys, exca.cachedict as c; cd = c.CacheDict(sys.argv[1])\nwith cd.write(): cd['a'] = 5"
    in_process(set_it, tmp_path)
    assert (cd["a"], len(cd), sorted(cd)) == (5, 2, ["a", "b"])
    assert in_process(code, tmp_path) == "5 2 ['a', 'b']"


def test_two_lines_of_a_key_have_one_winner_everywhere(tmp_path: pathlib.Path) -> None:
    """As after a writer was killed between its new line and the end of the old one."""
    lines = {
        "z-1-info.jsonl": '{"content":"old","#type":"Json","#key":"a"}\n',
        "b-1-info.jsonl": '{"content":"new","#type":"Json","#key":"a","#gen":1}\n',
        "a-1-info.jsonl": '{"content":"other","#type":"Json","#key":"a"}\n{"content":1,"#type":"Json","#key":"b"}\n',
    }
    for name, text in lines.items():
        (tmp_path / name).write_text(text)
    cd = CacheDict[tp.Any](tmp_path)
    assert (cd["a"], len(cd), sorted(cd), dict(cd.items())["a"]) == ("new", 2, ["a", "b"], "new")
    del cd["a"]
    assert ("a" in cd, len(cd)) == (False, 1)
    assert "a" not in "".join(path.read_text() for path in tmp_path.glob("*.jsonl"))


def test_delete(tmp_path: pathlib.Path) -> None:
    cd = fill(tmp_path, a=1, b={"x": object()}, c=3)
    before = sum(path.stat().st_size for path in tmp_path.glob("*.jsonl"))
    del cd["a"]
    with cd.write():
        del cd["b"]
        cd["d"] = 4
        del cd["d"]
        cd["e"] = 5
    assert sorted(cd) == ["c", "e"]
    assert len(cd) == 2
    text = b"".join(path.read_bytes() for path in tmp_path.glob("*.jsonl"))
    assert len(text) > before
    assert text.count(b"#key") == 2
    assert sorted(CacheDict[tp.Any](tmp_path)) == ["c", "e"]


def test_delete_removes_data_of_its_own(tmp_path: pathlib.Path) -> None:
    cd = CacheDict[tp.Any](tmp_path, cache_type="NumpyArray")
    with cd.write():
        cd["a"] = np.arange(3)
        cd["b"] = np.arange(3)
        cd["b"] = np.arange(4)
    assert len(list((tmp_path / "data").iterdir())) == 2
    del cd["a"]
    assert len(list((tmp_path / "data").iterdir())) == 1
    assert cd["b"].tolist() == [0, 1, 2, 3]


def test_clear(tmp_path: pathlib.Path) -> None:
    cd = fill(tmp_path, a=1, b=np.arange(3), c="x" * 5000)
    other = CacheDict[tp.Any](tmp_path)
    cd.clear()
    assert len(other) == len(cd) == 0
    assert list(tmp_path.iterdir()) == []
    fill(tmp_path, a=2)
    assert other["a"] == 2


def test_an_error_inside_keeps_what_was_set_before(tmp_path: pathlib.Path) -> None:
    cd = CacheDict[int](tmp_path)
    with pytest.raises(ZeroDivisionError), cd.write():  # noqa: PT012 - the context is what is tested
        cd["a"] = 1
        cd["b"] = 1 // 0
    assert sorted(CacheDict[int](tmp_path)) == ["a"]


def test_what_others_write_is_seen(tmp_path: pathlib.Path) -> None:
    one, two = CacheDict[int](tmp_path), CacheDict[int](tmp_path)
    assert "a" not in two
    with one.write():
        one["a"] = 1
    assert two["a"] == 1
    code = (
        "import sys, exca.cachedict as c; cd = c.CacheDict(sys.argv[1])\nwith cd.write(): cd[sys.argv[2]] = 2"
    )
    for key in "bcd":
        assert key not in one
        in_process(code, tmp_path, key)
        assert one[key] == 2
    in_process("import sys, exca.cachedict as c; del c.CacheDict(sys.argv[1])['c']", tmp_path)
    assert "c" not in one
    assert (len(one), sorted(one)) == (3, ["a", "b", "d"])


def test_a_frozen_folder_is_not_looked_at(tmp_path: pathlib.Path) -> None:
    cd = fill(tmp_path, a=1)
    with cd.frozen_cache_folder():
        in_process(
            "import sys, exca.cachedict as c; cd = c.CacheDict(sys.argv[1])\nwith cd.write(): cd['b'] = 2",
            tmp_path,
        )
        assert "b" not in cd
        assert cd.missing(["a", "b"]) == ["b"]
    assert cd["b"] == 2


def test_bulk_questions(tmp_path: pathlib.Path) -> None:
    numbers = range(30_000)
    cd = fill(tmp_path, **{str(n): n for n in numbers})
    asked = [str(n) for n in range(29_990, 30_010)]
    assert cd.missing(asked) == [str(n) for n in range(30_000, 30_010)]
    assert list(cd.iter_values([str(n) for n in reversed(numbers)])) == list(reversed(numbers))
    with pytest.raises(KeyError, match="nope"):
        list(cd.iter_values(["1", "nope"]))
    code = """
import sys, exca.cachedict as c
cd = c.CacheDict(sys.argv[1])
print(len(cd), cd['77'], cd.missing([str(n) for n in range(30_010)])[:1], list(cd.iter_values(['3', '2'])))
del cd['77']
print(len(cd), '77' in cd, '78' in cd, cd.missing(['77', '78']))
"""
    assert in_process(code, tmp_path) == "30000 77 ['30000'] [3, 2]\n29999 False True ['77']"
    assert len(cd) == 29_999
    assert "77" not in cd
    assert cd.missing(["77", "78"]) == ["77"]


def test_many_keys_of_a_folder_of_far_more(tmp_path: pathlib.Path) -> None:
    """They are looked up all at once in the side index, and their lines are read together."""
    fill(tmp_path, **{str(n): n for n in range(40_000)}, array=np.arange(3))
    asked = [str(n * 27 % 40_000) for n in range(1_400)]
    code = """
import sys, numpy, exca.cachedict as c
cd, asked = c.CacheDict(sys.argv[1]), [str(n * 27 % 40_000) for n in range(1_400)]
assert cd.missing([*asked, "nope"]) == ["nope"]
assert list(cd.iter_values(asked)) == list(map(int, asked))
with cd.write():
    cd[asked[1]] = -1  # replaced
    cd["new"] = [1]
    del cd[asked[2]]
    assert list(cd.iter_values(["new", *asked[:2], "array", asked[0]] + asked[3:]))[:3] == [[1], 0, -1]
print(c.CacheDict(sys.argv[1]).missing([*asked, "new", "nope"]), cd.missing(asked))
values = list(c.CacheDict(sys.argv[1]).iter_values(["new", *asked[:2], "array", asked[0], *asked[3:]]))
print(values[:3], values[3].tolist(), values[5:] == list(map(int, asked[3:])), cd._index.in_memory)
"""
    assert in_process(code, tmp_path) == (
        f"['{asked[2]}', 'nope'] ['{asked[2]}']\n[[1], 0, -1] [0, 1, 2] True None"
    )
    index = next(path for path in tmp_path.glob("*-info.jsonl") if b'"#key":"array"' in path.read_bytes())
    line = b'"#key":"%d"' % int(asked[5])
    index.write_bytes(
        index.read_bytes().replace(line, line.replace(b"key", b"kez"))
    )  # damaged, of the same length
    cd = CacheDict[int](tmp_path)
    with pytest.raises(KeyError, match=asked[5]):
        list(cd.iter_values(["new", *asked[:2], *asked[3:]]))
    assert cd.missing([*asked, "new"]) == [asked[2], asked[5]]


def test_the_side_index_may_be_deleted_at_any_time(tmp_path: pathlib.Path) -> None:
    cd = fill(tmp_path, **{str(n): n for n in range(10_000)})
    assert (tmp_path / ".exca-index").exists()
    code = "import sys, exca.cachedict as c; cd = c.CacheDict(sys.argv[1]); print(len(cd), cd['7'])"
    (tmp_path / ".exca-index").unlink()
    assert cd["8"] == 8
    assert in_process(code, tmp_path) == "10000 7"
    assert (tmp_path / ".exca-index").exists()


def test_pickled_it_finds_the_folder_again(tmp_path: pathlib.Path) -> None:
    cd = fill(tmp_path, a=1)
    again = pickle.loads(pickle.dumps(cd))
    assert again["a"] == 1
    assert repr(again) == repr(cd)


def test_umask_and_setgid_are_respected(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o2770)
    before = os.umask(0o007)
    try:
        fill(folder, a=1, b=np.arange(3), c={"x": object()}, **{f"k{n}": n for n in range(5000)})
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o7777 for path in folder.rglob("*")}
    [pickled] = [path for path in modes if path.suffix == ".pkl"]
    assert modes.pop(pickled) == 0o640  # no group changes what runs code
    assert set(modes.values()) == {0o660, 0o2770}


def test_lines_are_readable_text(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, a=1.5)
    [path] = tmp_path.glob("*-info.jsonl")
    assert path.read_text().startswith('{"content":1.5,"#type":"Json","#key":"a","#xxh":"')


def test_entries_in_memory_follow_the_folder(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A reader that has asked for much keeps all entries in memory; they still follow others' changes."""
    caplog.set_level(logging.WARNING)
    cd = fill(tmp_path, **{str(n): [n] for n in range(500)}, x=1)
    for n in range(500):
        assert cd[str(n)] == [n]
    cd["3"].append("changed by the caller")
    assert cd["3"] == [3]
    code = """
import sys, exca.cachedict as c
cd = c.CacheDict(sys.argv[1])
with cd.write():
    cd['1'] = 'replaced'
    cd['new'] = 'new'
    del cd['2']
"""
    in_process(code, tmp_path)
    assert (cd["1"], cd["new"], "2" in cd, len(cd)) == ("replaced", "new", False, 501)
    with cd.write():
        cd["x"] = 2
        assert cd["x"] == 2
        cd["x"] = 3
    assert cd["x"] == 3
    del cd["x"]
    assert "x" not in cd
    assert not caplog.records


def test_an_empty_one_is_false(tmp_path: pathlib.Path) -> None:
    in_memory, in_folder = CacheDict[int](None, keep_in_ram=True), CacheDict[int](tmp_path)
    for cd in (in_memory, in_folder):
        assert not cd
        with cd.write():
            cd["a"] = 1
            assert cd
        del cd["a"]
        assert not cd


def test_numbers_whose_lines_are_made_together(tmp_path: pathlib.Path) -> None:
    """Keys that JSON writes otherwise, numbers it cannot hold, keys set again before and after they were written."""
    odd = ['a","b', 'a\\"', "back\\slash", "new\nline", "ü", "", ",", '"', "\x7f", "k" * 2000, "{}"]
    numbers = [
        0,
        -1,
        1 << 62,
        -(1 << 63),
        (1 << 64) - 1,
        1 << 80,
        0.1,
        -0.0,
        1e300,
        5e-324,
        True,
        None,
        "te,xt",
    ]
    numbers += [float("inf"), float("-inf")]
    expected: dict[str, tp.Any] = {}
    cd = CacheDict[tp.Any](tmp_path)
    with cd.write():
        for turn in range(3):
            for number, key in enumerate(odd * 2):
                cd[key] = expected[key] = numbers[(number + turn) % len(numbers)]
            for number, value in enumerate(numbers):
                cd[f"n{number}"] = expected[f"n{number}"] = value
            if turn == 1:  # also of what is written by now
                assert {key: cd[key] for key in expected} == expected
        for number in range(3000):
            cd[f"many{number}"] = expected[f"many{number}"] = number / 7
        assert cd["many5"] == 5 / 7
        del cd["many6"], expected["many6"]
        cd["many7"] = expected["many7"] = -7
    assert dict(cd.items()) == expected
    code = "import sys, exca.cachedict as c; cd = c.CacheDict(sys.argv[1]); print(repr(dict(cd.items())), len(cd))"
    found, _, count = in_process(code, tmp_path).rpartition(" ")
    read = eval(found, {"inf": float("inf")})
    assert {key: repr(value) for key, value in read.items()} == {k: repr(v) for k, v in expected.items()}
    assert int(count) == len(expected)
    assert exca.verify(tmp_path).sound
