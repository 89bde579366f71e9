"""Crafted and odd files: an error that says so, or an entry that is skipped; no crash, no hang, no other exception."""

import copy
import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing as tp

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import exca
from exca.cachedict import CacheDict, DumpContext
from exca.cachedict.sideindex import FILE_NAME, Table
from exca.cachedict.textindex import entry_of
from exca.claims import Claims, claimfile
from exca.claims.owner import Owner, Process
from exca.engine import legacy, record, unsent
from exca.errors import (
    DamagedEntryError,
    MissingPackageError,
    StoredValueError,
    UnknownHandlerError,
    UnknownVersionError,
)
from exca.identity import configfolder

CORPUS = pathlib.Path(__file__).parent / "corpus"
LINES = [orjson.loads(line) for line in (CORPUS / "lines.jsonl").read_bytes().splitlines()]
# what a line may lead to: the two others say that something is not installed, or is no longer what it was
EXPECTED = (DamagedEntryError, UnknownHandlerError, MissingPackageError, StoredValueError)
EXAMPLES = int(os.environ.get("EXCA_FUZZ_EXAMPLES", "150"))  # per test; more in the long form
EVERY: tp.Any = list(HealthCheck)  # typed as a list of its metaclass
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 150, suppress_health_check=EVERY
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the odd files that the lines name."""
    root = tmp_path_factory.mktemp("odd")
    (root / "data").mkdir()
    (root / "data" / "x.data").write_bytes(bytes(range(64)))
    (root / "data" / "loop").symlink_to("loop")
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "data" / "fifo")
    return root


@pytest.mark.parametrize("line", LINES, ids=lambda line: line["#key"])
@pytest.mark.filterwarnings("ignore")  # of the libraries that read
def test_a_crafted_line(line: dict[str, tp.Any], folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    info = entry_of(copy.deepcopy(line))
    try:
        value = DumpContext(folder).load(info)
    except EXPECTED:
        pass
    else:
        assert line["#key"] in ("huge and empty", "no csv", "odd generation", "list for a generation"), value
    shutil.copytree(folder / "data", tmp_path / "data", symlinks=True, ignore=lambda *_: ["fifo"])
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "data" / "fifo")
    other = '{"content":1,"#type":"Json","#key":"other"}'
    (tmp_path / "host-1-info.jsonl").write_text(f"{other}\n{json.dumps(line, separators=(',', ':'))}\n")
    cd = CacheDict[tp.Any](tmp_path)
    assert cd["other"] == 1
    try:
        cd.get(line["#key"])
        list(cd.items())
    except EXPECTED:
        pass
    assert len(cd) in (1, 2)
    exca.verify(tmp_path)
    if line["#key"] in cd:
        try:
            del cd[line["#key"]]
        except EXPECTED:
            pass
    assert cd["other"] == 1
    assert (folder / "data" / "x.data").read_bytes() == bytes(range(64))


OF_ARRAY = {"#type": "MemmapArray", "filename": "data/x.data", "offset": 0, "shape": [2], "dtype": "<i4"}
OF_TEXT = {"#type": "Json", "filename": "data/x.data", "offset": 0, "length": 3}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"#type": 3}, "names no handler: 3"),
        (OF_ARRAY | {"filename": "../x"}, r"names a data file outside of it: '\.\./x'"),
        (OF_ARRAY | {"filename": "data/gone"}, "data/gone is not there"),
        (OF_ARRAY | {"filename": "data/folder"}, "data/folder is no regular file"),
        (OF_ARRAY | {"dtype": "odd"}, "Not an array type: 'odd'"),
        (OF_ARRAY | {"dtype": "O"}, "An array of Python objects"),
        (OF_ARRAY | {"shape": [-1]}, r"names an array of shape \(-1,\) at byte 0"),
        (OF_ARRAY | {"shape": [99]}, "has 64 bytes, at least 396 were written"),
        (OF_ARRAY | {"#files": {"data/x.data": [-1, ""]}}, "names -1 bytes at 0 of .*x.data"),
        (
            OF_ARRAY | {"#files": {"data/x.data": [1 << 40, ""]}},
            "has 64 bytes, at least 1099511627776 were written",
        ),
        (OF_ARRAY | {"#files": {"data/folder": [1 << 40, ""]}}, "data/folder is no regular file"),
        (OF_ARRAY | {"#files": [3]}, "does not name its files"),
        ({"#type": "NumpyArray", "filename": "data/x.npy"}, r"holds no array: it is too short .*\(1000,\)"),
        (OF_TEXT | {"offset": -1}, "names 3 bytes at -1 of .*x.data"),
        (OF_TEXT | {"length": 99}, "has 64 bytes, at least 99 were written"),
        (OF_TEXT | {"length": -3}, "does not tell where its content is: .*-3 bytes"),
        (OF_TEXT, "holds no JSON where it should"),
        ({"#type": "Pickle", "filename": 3}, "names no file to unpickle"),
        ({"#type": "Pickle", "filename": "data/x.data"}, "x.data is not one that this handler writes"),
        ({"#type": "Pickle", "filename": "data/x.pkls", "offset": -1, "length": 3}, "names 3 bytes at -1"),
        (
            {"#type": "Pickle", "filename": "data/x.pkls", "offset": 0, "length": 99},
            "The pickle at byte 0 of .*x.pkls is damaged",
        ),
        ({"#type": "py.path", "content": "a", "kind": "Odd"}, "Not a kind of path: 'Odd'"),
        ({"#type": "py.set", "content": 3}, "holds no value for py.set"),
        ({"#type": "py.enum", "class_": 3, "name": "A"}, "names no member of an enum"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said(
    tmp_path: pathlib.Path, entry: dict[str, tp.Any], words: str
) -> None:
    (tmp_path / "data" / "folder").mkdir(parents=True)
    for name in ("x.data", "x.pkls"):
        (tmp_path / "data" / name).write_bytes(bytes(range(64)))
    np.save(tmp_path / "data" / "x.npy", np.arange(1000))
    os.truncate(tmp_path / "data" / "x.npy", 200)
    with DumpContext(tmp_path) as ctx, pytest.raises(DamagedEntryError, match=words):
        ctx.load(entry)


def bases(root: pathlib.Path) -> list[dict[str, tp.Any]]:
    """One entry of each kind."""
    values: list[tuple[tp.Any, str | None]] = [
        (np.arange(20), None),
        (np.zeros(2, dtype=[("a", "i4"), ("b", "S3")]), None),
        (np.arange(20), "NumpyArray"),
        (pd.DataFrame({"a": [1, 2]}), None),
        (pd.DataFrame({"a": [1, 2]}), "PandasDataFrame"),
        ({"a": [np.arange(3), (1, 2)], "b": {1: {2}}}, None),
        ({"a": [np.arange(3), (1, 2)], "b": list(range(600))}, None),
        (list(range(600)), None),
        ((1, 2.5, "a", None, b"ab", 1j, {1}, pathlib.Path("/a"), np.float32(1)), None),
    ]
    with DumpContext(root) as ctx:
        return [json.loads(orjson.dumps(ctx.dump(value, cache_type=type_))) for value, type_ in values]


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-3, 70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["data", "data/fifo", "..", "object", "V8", "Json", "Auto", "py.tuple", "Pickle", "<i4", "|S0"]
    ),
    st.lists(st.integers(-5, 5), max_size=3),
    st.dictionaries(st.sampled_from(["#type", "filename", "x"]), st.text(max_size=4), max_size=2),
)


def places(tree: tp.Any, path: tuple[tp.Any, ...] = ()) -> tp.Iterator[tuple[tp.Any, ...]]:
    """Where something can be replaced."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree[:30]) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(tree: tp.Any, path: tuple[tp.Any, ...], value: tp.Any, remove: bool) -> tp.Any:
    tree = copy.deepcopy(tree)
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    if remove:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return tree


@pytest.mark.filterwarnings("ignore")
def test_fuzzed_entries(folder: pathlib.Path) -> None:
    entries = bases(folder)

    @fuzzed
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        info = data.draw(st.sampled_from(entries))
        for _ in range(data.draw(st.integers(1, 2))):
            candidates = list(places(info))
            if not candidates:
                return
            path = data.draw(st.sampled_from(candidates))
            info = changed(info, path, data.draw(ODD), data.draw(st.integers(0, 4)) == 0)
        if info.get("#type") == "Pickle" or "Pickle" in json.dumps(info):
            return  # what unpickles may raise anything; its file is checked before
        try:
            DumpContext(folder).load(info)
        except EXPECTED:
            pass

    check()


@pytest.mark.filterwarnings("ignore")
def test_fuzzed_data_files(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Without checksums, as an earlier release wrote them, so that each reader sees the damage."""
    entries = [
        {key: value for key, value in info.items() if key[0] != "#" or key == "#type"}
        for info in bases(tmp_path)
    ]
    files = [path for path in (tmp_path / "data").iterdir() if path.suffix != ".pkl"]
    whole = {path: path.read_bytes() for path in files}

    @fuzzed
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(files))
        content = bytearray(whole[path])
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(content) - 1))
            content[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
            content = content or bytearray(b"x")
        path.write_bytes(
            content[: data.draw(st.integers(0, len(content)))] if len(content) % 3 == 0 else content
        )
        for info in entries:
            if path.name in json.dumps(info):
                try:
                    DumpContext(tmp_path).load(info)
                except EXPECTED:
                    pass
        path.write_bytes(whole[path])

    check()


def test_fuzzed_index_files(tmp_path: pathlib.Path) -> None:
    whole = b"".join(
        b'{"content":%d,"#type":"Json","#key":"k%d"}\n' % (number, number) for number in range(5)
    )

    @fuzzed
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(whole)))
        content = (
            whole[:place] + data.draw(st.binary(max_size=40)) + whole[place + data.draw(st.integers(0, 9)) :]
        )
        folder = tmp_path / os.urandom(8).hex()
        folder.mkdir()
        (folder / "host-1-info.jsonl").write_bytes(content)
        cd = CacheDict[tp.Any](folder)
        for key in ("k0", "k4", "none"):
            try:
                cd.get(key)
            except EXPECTED:
                pass
        try:
            list(cd.items())
        except EXPECTED:
            pass
        assert len(cd) >= 0
        exca.verify(folder)

    check()


def test_fuzzed_side_index(tmp_path: pathlib.Path) -> None:
    """With the checksums of a crafted one made right."""
    import struct

    import xxhash

    cd = CacheDict[int](tmp_path)
    with cd.write():
        for number in range(5000):
            cd[str(number)] = number
    whole = (tmp_path / FILE_NAME).read_bytes()
    length = struct.unpack_from("<Q", whole, 40)[0]

    @settings(fuzzed, max_examples=min(EXAMPLES, 60))
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        content = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            where = data.draw(st.sampled_from([8, 16, 24, 32, 64, 70, 64 + length, len(whole) - 48]))
            place = min(where + data.draw(st.integers(0, 7)), len(content) - 1)
            content[place] = data.draw(st.integers(0, 255))
        body = bytes(content[64 + length :])
        head = bytes(content[:48]) + struct.pack("<Q", xxhash.xxh3_64_intdigest(body))
        meta = bytes(content[64 : 64 + length])
        seal = struct.pack("<Q", xxhash.xxh3_64_intdigest(head + meta))
        folder = tmp_path / os.urandom(8).hex()
        shutil.copytree(tmp_path, folder, ignore=lambda _, names: [name for name in names if "." not in name])
        (folder / FILE_NAME).write_bytes(head + seal + meta + body)
        other = CacheDict[int](folder)
        for key in ("0", "4999", "none"):
            assert other.get(key) in (None, int(key) if key.isdigit() else None)
        Table.load(str(folder))
        shutil.rmtree(folder)

    check()


@fuzzed
@given(content=st.binary(max_size=80), state=st.sampled_from(["completed", "failed", "x"]), value=ODD)
def test_fuzzed_records(content: bytes, state: str, value: tp.Any) -> None:
    import xxhash

    assert record.parse(content, "job.json") is None
    try:
        body = orjson.dumps(
            {"version": value, "state": state, "result": value, "error": value, "attempt": value}
        )[:-1]
    except TypeError:
        return
    try:
        found = record.parse(record.SEALED % (body, xxhash.xxh3_64_intdigest(body)), "job.json")
    except UnknownVersionError:  # a later release wrote it
        assert type(value) is int
        assert value > record.VERSION
        return
    assert found is None or isinstance(found["result"], dict)


TEXTS = [line for line in (CORPUS / "texts.txt").read_text().splitlines() if line]
# of content that is JSON or YAML: any value, in any place, or bytes that are neither
TEXT = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(TEXTS).map(str.encode),
    st.recursive(
        ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
    ).map(lambda value: json.dumps(value).encode()),
)
JOB_FIELDS = ["cluster", "job_id", "logs", "processes", "pid", "attempt", "replaces"]


def json_with(fields: list[str]) -> st.SearchStrategy[bytes]:
    """Objects that have such fields, of odd values."""
    return st.dictionaries(st.sampled_from(fields), ODD, max_size=len(fields)).map(
        lambda value: json.dumps(value).encode()
    )


@fuzzed
@given(content=TEXT | json_with(JOB_FIELDS))
def test_fuzzed_submissions(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "submission.json").write_bytes(content)
    found = record.read_submission(folder)
    assert found is None or (type(found.submission.job_id) is str and type(found.submission.logs) is str)
    assert found is None or type(found.attempt) is str


@fuzzed
@given(content=TEXT | TEXT.map(lambda batch: b'{"version":1,"batches":[%b]}' % batch))
def test_fuzzed_lists_of_unsent_tasks(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / unsent.NAME).write_bytes(content)
    (folder / unsent.NAME).chmod(0o600)
    for batch in unsent._read(folder):
        assert all(isinstance(task, str) for task in batch["tasks"])
        assert isinstance(unsent._send_batch(batch), list)


@fuzzed
@given(content=TEXT, data=st.data())
def test_fuzzed_claims(content: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A damaged one counts by its name: of a process of this host that is dead, it holds nothing."""
    import xxhash

    folder = tmp_path_factory.mktemp("claims")
    head: dict[str, tp.Any] = {"since": 1.0, "every": 5.0, "owner": Owner.current().to_json(), "waits": []}
    for place in data.draw(st.lists(st.sampled_from(list(places(head))), max_size=2)):
        try:
            head = changed(head, place, data.draw(ODD), data.draw(st.booleans()))
        except (KeyError, TypeError, IndexError):
            continue
    rest = claimfile.dump_json(head)[1:] + b"\n" + content + b"\n"
    prefix = b'{"state":"owned","beat":"0000000000",'
    sealed = prefix + b'"sum":"%016x",' % xxhash.xxh3_64_intdigest(rest) + rest
    name = f"{Process.current().host}-1-2-abcdef.1.aa.claim"
    for text in (content, sealed):
        (folder / name).write_bytes(text)
        claimfile._decided.clear()
        for holder in Claims(folder).holders(["task"]).values():
            holder.alive()
        verify_claims(folder)


def verify_claims(folder: pathlib.Path) -> None:
    assert exca.verify(folder).folders[0].live_claims in (0, 1)


@fuzzed
@given(content=TEXT, new=TEXT)
def test_fuzzed_configurations(content: bytes, new: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    for first in (content, b"x: 1\ny: {z: [1, {a: 2}]}\n"):
        (folder / configfolder.CONFIG).write_bytes(first)
        (folder / configfolder.NEW_FIELDS).write_bytes(new)
        try:
            configfolder.read_config(folder)
        except ValueError as e:
            said = str(e)
        else:
            said = "is damaged"
        assert "is damaged" in said


@pytest.mark.filterwarnings("ignore")
def test_fuzzed_pickles(tmp_path: pathlib.Path) -> None:
    """A stored value, and the job of an earlier release; what unpickles runs, so bytes are only lost or set to zero."""
    with DumpContext(tmp_path) as ctx:
        info = ctx.dump({"a": [1, 2.5, "text"], "b": np.arange(3)}, cache_type="Pickle")
    [stored] = (tmp_path / "data").iterdir()
    legacy.write_job_pickle(tmp_path / record.LEGACY_NAME, "success", {"a": [1, 2.5, "text"]})
    job = tmp_path / "job.pkl"
    whole = {stored: stored.read_bytes(), job: job.read_bytes()}
    plain = {key: value for key, value in info.items() if key[0] != "#" or key == "#type"}

    @fuzzed
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from([stored, job]))
        content = whole[path]
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, len(content)))
        path.write_bytes(content[:start] + bytes(data.draw(st.integers(0, 2))) + content[end:])
        try:
            if path is job:
                found = record.latest(tmp_path)
                assert found is None or found.state == "completed"
            else:
                DumpContext(tmp_path).load(plain)
        except (*EXPECTED, ImportError):
            pass
        path.write_bytes(whole[path])

    check()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x95.",
        b"\x80\x04\x95" + b"\xff" * 8 + b".",
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
    ],
)
def test_a_pickle_that_breaks_the_unpickler_is_damaged(tmp_path: pathlib.Path, content: bytes) -> None:
    """Of an earlier release, which recorded no checksum."""
    with DumpContext(tmp_path) as ctx:
        info = ctx.dump({"a"}, cache_type="Pickle")
    [stored] = (tmp_path / "data").iterdir()
    stored.write_bytes(content)
    with pytest.raises(DamagedEntryError, match=r"The pickle in .* is damaged"):
        DumpContext(tmp_path).load({"#type": "Pickle", "filename": info["filename"]})


class Stubborn:
    """Refuses to be loaded."""

    def __setstate__(self, state: object) -> None:
        raise ValueError("not today")


def test_an_error_of_the_class_of_a_pickle_is_its_own(tmp_path: pathlib.Path) -> None:
    value = Stubborn()
    value.__dict__["some"] = "state"
    with DumpContext(tmp_path) as ctx:
        info = ctx.dump(value, cache_type="Pickle")
    with pytest.raises(ValueError, match="not today"):
        DumpContext(tmp_path).load(info)


SLOW = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
import exca
from exca.cachedict import CacheDict
cd = CacheDict(sys.argv[1])
assert cd.get("a") == 1 and cd.get("b") is None and len(cd) == 1 and list(cd) == ["a"]
for _ in range(200):
    assert "c" not in cd
with cd.write():
    cd["b"] = 2
assert CacheDict(sys.argv[1])["b"] == 2
report = exca.verify(sys.argv[1])
print("done", [folder.damaged[0].file for folder in report.folders])
"""


def run(code: str, *args: object) -> str:
    """What a program prints that has a minute, and no more memory than it asks for."""
    command = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of memory")
def test_an_index_file_without_an_end(tmp_path: pathlib.Path) -> None:
    (tmp_path / "host-1-info.jsonl").write_bytes(b'{"content":1,"#type":"Json","#key":"a"}\n')
    with (tmp_path / "other-1-info.jsonl").open("wb") as file:
        file.truncate(3 << 30)
    assert run(SLOW, tmp_path) == "done ['other-1-info.jsonl']\n"


FIFOS = (
    """
import os, sys, pathlib, numpy as np, pydantic, exca
from exca.cachedict import CacheDict
class Task(pydantic.BaseModel):
    infra: exca.TaskInfra
    @infra.apply
    def build(self) -> int:
        return 3
""".replace("    infra: exca.TaskInfra\n", "    infra: exca.TaskInfra = exca.TaskInfra()\n")
    + """
root, name = pathlib.Path(sys.argv[1]), sys.argv[2]
task = Task(infra={"folder": root})
folder = task.infra.uid_folder(create=True)
(folder / name).unlink(missing_ok=True)
os.mkfifo(folder / name)
exca.verify(root)
try:
    assert task.build() == 3
    assert Task(infra={"folder": root}).build() == 3
except OSError as e:
    assert "regular file" in str(e), e
    print("refused", end=" ")
cd = CacheDict(folder)
with cd.write():
    cd["a"] = np.arange(3)
assert CacheDict(folder)["a"].tolist() == [0, 1, 2]
exca.verify(root)
print("done")
"""
)


NAMES = [
    "job.json",
    "job.pkl",
    "uid.yaml",
    "full-uid.yaml",
    "config.yaml",
    ".identity.json",
    "submission.json",
    "x-info.jsonl",
    "x.1.aa.claim",
    FILE_NAME,
]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("name", NAMES)
def test_a_fifo_in_the_place_of_a_file(name: str, tmp_path: pathlib.Path) -> None:
    assert run(FIFOS, tmp_path, name) in ("done\n", "refused done\n")
