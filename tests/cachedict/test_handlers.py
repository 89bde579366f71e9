"""Every type that is handled comes back as what it was, from another object on the folder."""

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import logging
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import typing as tp

import numpy as np
import numpy.typing as npt
import pydantic
import pytest

from exca import cachedict
from exca.cachedict import CacheDict, DumpContext, DumpOptions
from exca.errors import HandlerError, MissingPackageError, StoredValueError, UnknownHandlerError

UTC = datetime.UTC
AnyArray = npt.NDArray[tp.Any]


class Colour(enum.Enum):
    RED = 1


class Flags(enum.IntFlag):
    A = 1
    B = 2


class Point(tp.NamedTuple):
    x: int
    y: tp.Any


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: int
    b: tp.Any = None


@dataclasses.dataclass(slots=True)
class Slotted:
    a: int


class Inner(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", arbitrary_types_allowed=True)
    x: tp.Any = 3


class Outer(pydantic.BaseModel):
    inner: Inner = Inner()
    items: tuple[int, ...] = ()


def through(folder: pathlib.Path, value: tp.Any, cache_type: str | None = None) -> tp.Any:
    """The value, stored and loaded by another object."""
    cd = CacheDict[tp.Any](folder, cache_type=cache_type)
    with cd.write():
        cd["key"] = value
    info = cachedict.dump_one(folder / "one", value, key="key", cache_type=cache_type)
    assert alike(
        cachedict.load_one(folder / "one", info),
        np.asarray(value) if hasattr(value, "ndim") and not isinstance(value, np.generic) else value,
    )
    cachedict.delete_one(folder / "one", info)
    assert not (folder / "one" / "data").exists() or not list((folder / "one" / "data").iterdir())
    return CacheDict[tp.Any](folder, cache_type=cache_type)["key"]


def alike(one: tp.Any, two: tp.Any) -> bool:
    """Equality that compares types too, and sees that nan is nan."""
    if isinstance(two, np.generic):
        return bool(type(one) is type(two) and one.tobytes() == two.tobytes())
    if isinstance(two, np.ndarray):
        one = np.asarray(one)
        if two.dtype.hasobject:
            return bool(one.tolist() == two.tolist())
        return bool(one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes())
    if type(one) is not type(two):
        return False
    if isinstance(two, dict):
        return list(one) == list(two) and all(alike(one[key], two[key]) for key in two)
    if isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(alike, one, two))
    if isinstance(two, float):
        return bool(one.hex() == two.hex())
    if isinstance(two, complex):
        return alike(one.real, two.real) and alike(one.imag, two.imag)
    if isinstance(two, pydantic.BaseModel):
        return alike(dict(one), dict(two)) and one.model_fields_set == two.model_fields_set
    if dataclasses.is_dataclass(two):
        return all(alike(getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(two))
    return bool(one == two)


VALUES: dict[str, tp.Any] = {
    "int": 3,
    "big": 2**70,
    "negative": -(2**63) - 1,
    "bool": True,
    "none": None,
    "text": 'é\n"\\',
    "surrogate": "a\ud800",
    "long text": "x" * 5000,
    "float": 0.1,
    "minus zero": -0.0,
    "inf": math.inf,
    "minus inf": -math.inf,
    "nan": math.nan,
    "complex": complex(1.5, -math.inf),
    "bytes": b"\x00\xff",
    "long bytes": bytes(range(256)) * 20,
    "bytearray": bytearray(b"ab"),
    "list": [1, [2.5, None], "a", True],
    "nan in list": [1.0, math.nan],
    "surrogate in dict": {"a\udcff": ["b\udcff"]},
    "tuple": (1, (2, [3])),
    "empty": ((), [], {}, set(), frozenset()),
    "set": {"b", "a"},
    "mixed set": {1, "a", (2, 3)},
    "frozenset": frozenset([frozenset([1])]),
    "deque": collections.deque([1, 2], maxlen=3),
    "dict": {"b": 1, "a": [1]},
    "odd keys": {1: "a", None: (1,), ("t", 1): {2: 3}, 1.5: True},
    "reserved keys": {"#type": "Json", "#key": 1},
    "ordered": collections.OrderedDict(b=1, a=2),
    "counter": collections.Counter("aab"),
    "date": datetime.date(2020, 2, 29),
    "datetime": datetime.datetime(2020, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 - these are stored too
    "aware": datetime.datetime(2020, 1, 2, tzinfo=UTC),
    "fold": datetime.datetime(2020, 1, 2, fold=1),  # noqa: DTZ001 - the same
    "time": datetime.time(1, 2, 3),
    "timedelta": datetime.timedelta(days=-1, microseconds=5),
    "path": pathlib.Path("/a/b"),
    "windows path": pathlib.PureWindowsPath("c:\\a"),
    "enum": Colour.RED,
    "flag": Flags.A | Flags.B,
    "decimal": decimal.Decimal("1.10"),
    "ellipsis": ...,
    "named tuple": Point(1, (2,)),
    "frozen dataclass": Frozen(1, (2, {"x": Frozen(3)})),
    "slots": Slotted(1),
    "model": Outer(inner=Inner(x=(1, 2), more={1}), items=(1, 2)),  # type: ignore[call-arg]  # an extra field
    "model defaults": Outer(),
    "numpy scalar": np.float32(1.5),
    "numpy int": np.int64(-3),
    "numpy date": np.datetime64("2020-01-01"),
    "deep": {"a": [{"b": (np.float64(1.5), {"c": Colour.RED})}]},
}


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back(name: str, tmp_path: pathlib.Path) -> None:
    assert alike(through(tmp_path, VALUES[name]), VALUES[name])


ARRAYS: dict[str, AnyArray] = {
    "int16": np.arange(6, dtype=np.int16).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(20.0)[::3],
    "transposed": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "zero size": np.zeros((0, 3), dtype=np.float32),
    "no dimension": np.array(3.5),
    "empty no bytes": np.zeros(3, dtype="S0"),
    "big endian": np.arange(3, dtype=">i4"),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j], dtype=np.complex64),
    "half": np.arange(3, dtype=np.float16),
    "text": np.array(["abc", "é"]),
    "bytes": np.array([b"abc", b"d"]),
    "datetime": np.array(["2020-01-01", "NaT"], dtype="datetime64[ns]"),
    "timedelta": np.array([1, 2], dtype="timedelta64[s]"),
    "structured": np.array([(1, (2.0, 3.0), "a")], dtype=[("a", "<i4"), ("b", "<f8", (2,)), ("c", "U3")]),
    "aligned": np.array([(1, 2.0)], dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "nested fields": np.zeros(2, dtype=[("a", [("x", "<i2"), ("y", "<f4")])]),
    "large": np.random.default_rng(0).random(200_000),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("cache_type", [None, "MemmapArray", "ContiguousMemmapArray", "NumpyArray", "Pickle"])
def test_arrays_come_back(name: str, cache_type: str | None, tmp_path: pathlib.Path) -> None:
    loaded = np.asarray(through(tmp_path, ARRAYS[name], cache_type))
    assert alike(loaded, ARRAYS[name])
    if cache_type in ("NumpyArray", "Pickle"):  # release 0.6 reads the others in C order only
        assert loaded.flags.f_contiguous or name != "fortran"


@pytest.mark.parametrize("cache_type", [None, "NumpyArray"])
def test_arrays_of_objects_are_pickled(cache_type: str | None, tmp_path: pathlib.Path) -> None:
    array = np.array([1, "a", None], dtype=object)
    assert through(tmp_path, array, cache_type).tolist() == [1, "a", None]
    masked = np.ma.masked_array([1, 2], mask=[True, False])
    assert through(tmp_path, masked).mask.tolist() == [True, False]


@pytest.mark.parametrize("size", [3, 5000])
def test_what_is_written_to_a_loaded_array_is_the_reader_s_own(tmp_path: pathlib.Path, size: int) -> None:
    cd = CacheDict[tp.Any](tmp_path)
    with cd.write():
        cd["a"], cd["b"] = np.arange(size), np.arange(size)
    (file,) = (tmp_path / "data").iterdir()
    before = file.read_bytes()
    first, neighbour = cd["a"], cd["b"]
    assert isinstance(first, np.memmap)
    first[:] = -1
    assert neighbour.tolist() == list(range(size)), "of the same file"
    second = cd["a"]
    second += 1
    assert cd["a"].tolist() == list(range(size)), "of the same object"
    assert CacheDict[tp.Any](tmp_path)["a"].tolist() == list(range(size)), "of another object"
    del first, second
    assert cd["a"].tolist() == list(range(size)), "when nobody holds the others any more"
    assert file.read_bytes() == before
    code = "import sys; from exca.cachedict import CacheDict; print(CacheDict(sys.argv[1])['a'].sum())"
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) == sum(range(size))


def test_arrays_of_a_file_share_its_map(tmp_path: pathlib.Path) -> None:
    cd = CacheDict[tp.Any](tmp_path)
    with cd.write():
        for k in range(100):
            cd[str(k)] = np.arange(k + 1)
    for _ in range(2):
        arrays = [cd[str(k)] for k in range(100)]
        assert len({id(array._mmap) for array in arrays}) == 1
    assert len(list((tmp_path / "data").iterdir())) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of open files can be set")
def test_arrays_are_loaded_also_where_no_more_files_can_be_opened(tmp_path: pathlib.Path) -> None:
    code = """
import resource, sys
import numpy as np
from exca.cachedict import CacheDict
cd = CacheDict(sys.argv[1])
with cd.write():
    cd["a"], cd["b"] = np.arange(5), np.arange(300_000)
for key in "ab" * 50:
    cd[key]  # what the index keeps open is open by now
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
kept = [cd[key] for _ in range(50) for key in "ab"]
for array in kept:
    array += 1
assert all(array.tolist() == list(range(1, len(array) + 1)) for array in kept)
print("done")
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr


def test_contiguous_memmap(tmp_path: pathlib.Path) -> None:
    array = np.arange(24.0).reshape(4, 3, 2)
    lazy = through(tmp_path, array, "ContiguousMemmapArray")
    assert isinstance(lazy, cachedict.contiguous.ContiguousMemmap)
    assert (lazy.shape, lazy.dtype, lazy.ndim, lazy.size, lazy.nbytes, len(lazy)) == (
        (4, 3, 2),
        "f8",
        3,
        24,
        192,
        4,
    )
    assert np.asarray(lazy[1:3]).tolist() == array[1:3].tolist()
    assert np.asarray(lazy[-1]).tolist() == array[-1].tolist()
    assert np.asarray(lazy[1][2]).tolist() == array[1][2].tolist()
    assert np.asarray(lazy.T).tolist() == array.T.tolist()
    assert np.asarray(lazy.reshape(-1)[5:7]).tolist() == [5, 6]
    assert lazy[0, 1, 1] == 3.0
    assert np.asarray(lazy[...]).tolist() == array.tolist()
    assert np.mean(lazy) == array.mean()
    assert np.add(lazy, 1).tolist() == (array + 1).tolist()
    assert [np.asarray(part).tolist() for part in lazy] == array.tolist()
    for index in (slice(None, None, 2), (slice(None), 1), np.array([0, 1])):
        with pytest.raises(TypeError, match=r"np\.asarray"):
            lazy[index]
    for index, words in (
        (np.array([0, 1]), "takes no index arrays or masks"),
        ((slice(None), 1), "This slice is scattered over the file"),
    ):
        with pytest.raises(TypeError, match=words):
            lazy[index]
    with pytest.raises(TypeError, match=r"reshape would copy the array: use np\.asarray\(x\)\.reshape"):
        lazy.T.reshape(-1)
    with pytest.raises(ValueError, match="it cannot become an array without a copy"):
        lazy.__array__(copy=False)
    with pytest.raises(AttributeError, match=r"A ContiguousMemmap has no 'mean': use np\.asarray\(x\)\.mean"):
        lazy.mean()
    with pytest.raises(AttributeError, match="'ContiguousMemmap' object has no attribute 'middle'"):
        _ = lazy.middle
    again = through(tmp_path / "again", lazy[1:3], "ContiguousMemmapArray")
    assert np.asarray(again).tolist() == array[1:3].tolist()
    os.truncate(lazy._path, 100)
    with pytest.raises(OSError, match=r"The data file .* ends before byte 192"):
        np.asarray(lazy)
    scattered = cachedict.contiguous.ContiguousMemmap(
        np.memmap(tmp_path / "data.npy", "f8", "w+", shape=(4,))[::2]
    )
    with pytest.raises(
        TypeError, match=r"This array is scattered over the file: use np\.asarray\(x\)\.reshape"
    ):
        scattered.reshape(2, 1)
    with pytest.raises(TypeError, match="This array is scattered over the file and cannot be read at once"):
        np.asarray(scattered)
    with tempfile.TemporaryFile() as nameless:
        nameless.write(bytes(8))
        with pytest.raises(TypeError, match="needs a memory-mapped array that knows its file"):
            cachedict.contiguous.ContiguousMemmap(np.memmap(nameless, dtype="f8", shape=(1,)))


def test_tensors_come_back(tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    names = "bfloat16 float16 float32 float64 uint8 int8 int16 int32 int64 bool complex64 complex128 uint16"
    cd = CacheDict[tp.Any](tmp_path)
    tensors = {name: (torch.arange(6).reshape(2, 3) % 2).to(getattr(torch, name)) for name in names.split()}
    tensors["none"] = torch.tensor(2.5)
    tensors["empty"] = torch.empty(0, 3, dtype=torch.bfloat16)
    tensors["strided"] = torch.arange(10)[::3]
    tensors["conjugate"] = torch.tensor([1 + 2j]).conj()
    tensors["large"] = torch.rand(300, 300)
    tensors["grad"] = torch.ones(2, requires_grad=True)
    tensors["sparse"] = torch.eye(3).to_sparse()
    with cd.write():
        for name, tensor in tensors.items():
            cd[name] = tensor
    for name, tensor in tensors.items():
        loaded = CacheDict[tp.Any](tmp_path)[name]
        assert (loaded.dtype, loaded.shape, loaded.requires_grad) == (
            tensor.dtype,
            tensor.shape,
            tensor.requires_grad,
        )
        assert torch.equal(
            loaded.to_dense().resolve_conj().to(torch.complex128), tensor.to_dense().to(torch.complex128)
        )
    cd["large"][0, 0] = 5  # a private map: the file does not change
    assert torch.equal(cd["large"], tensors["large"])


def test_frames_come_back(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    plain = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [1.5, math.nan]})
    frames = {
        "plain": (plain, "Parquet"),
        "index": (plain.set_index("a"), "Parquet"),
        "text index": (pd.DataFrame({"a": [1]}, index=["x"]), "Parquet"),
        "multi": (plain.assign(b=["x", "y"]).set_index(["a", "b"]), "Parquet"),
        "types": (
            pd.DataFrame(
                {"d": pd.to_datetime(["2020-01-01"]), "e": pd.Categorical(["u"]), "f": [True]}
            ).astype({"f": "boolean"}),
            "Parquet",
        ),
        "empty": (pd.DataFrame({"a": []}), "Parquet"),
        "number columns": (pd.DataFrame([[1, 2]]), "Pickle"),
        "multi columns": (
            pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
            "Pickle",
        ),
        "twice": (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Pickle"),
        "lists": (pd.DataFrame({"a": [[1], [2, 3]]}), "Pickle"),
        "mixed": (pd.DataFrame({"a": [1, "x"]}), "Pickle"),
        "complex": (pd.DataFrame({"a": [1j]}), "Pickle"),
        "dates": (pd.DataFrame({"a": [datetime.date(2020, 1, 1)]}), "Parquet"),
        "freq": (pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2020", periods=2)), "Pickle"),
    }
    cd = CacheDict[tp.Any](tmp_path)
    with cd.write():
        for name, (frame, _) in frames.items():
            cd[name] = frame
    for name, (frame, kind) in frames.items():
        pd.testing.assert_frame_equal(CacheDict[tp.Any](tmp_path)[name], frame)
        info = cd._index.locate(name)
        assert info is not None
        assert kind in info[0]["#type"], name
    assert len([record for record in caplog.records if "DataFrame" in record.message]) <= 1
    with CacheDict[tp.Any](tmp_path, cache_type="PandasDataFrame").write() as csv:
        csv["csv"] = plain
    # what kind of missing value a CSV file gives depends on the version of pandas
    pd.testing.assert_frame_equal(cd["csv"].dropna(), plain.dropna())
    pd.testing.assert_frame_equal(cd["csv"].isna(), plain.isna())


@pytest.mark.parametrize(
    ("cache_type", "package", "words"),
    [
        ("PandasDataFrame", "pandas", "Expected a DataFrame, got int"),
        ("ParquetPandasDataFrame", "pandas", "Expected a DataFrame, got int"),
        ("NumpyArray", "numpy", "Expected a NumPy array, got int; leave cache_type out"),
        ("TorchTensor", "torch", "Expected a torch tensor, got int"),
        ("NibabelNifti", "nibabel", "Expected a NIfTI image, got int"),
        ("MneRawFif", "mne", "Expected an MNE recording, got int"),
        ("MneRawBrainVision", "mne", "Expected an MNE recording, got int"),
    ],
)
def test_a_handler_takes_its_kind_of_value(
    tmp_path: pathlib.Path, cache_type: str, package: str, words: str
) -> None:
    pytest.importorskip(package)
    cd = CacheDict[tp.Any](tmp_path, cache_type=cache_type)
    with pytest.raises(HandlerError, match=words), cd.write():
        cd["no"] = 3


def test_images_come_back(tmp_path: pathlib.Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(np.arange(8.0).reshape(2, 2, 2), np.diag([1.0, 2, 3, 1]))
    cd = CacheDict[tp.Any](tmp_path)
    with cd.write():
        cd["image"] = image
    loaded = CacheDict[tp.Any](tmp_path)["image"]
    assert np.array_equal(loaded.get_fdata(), image.get_fdata())
    assert np.array_equal(loaded.affine, image.affine)
    del cd["image"]
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("cache_type", [None, "MneRawFif", "MneRawBrainVision"])
def test_recordings_come_back(cache_type: str | None, tmp_path: pathlib.Path) -> None:
    mne = pytest.importorskip("mne")
    if cache_type == "MneRawBrainVision":
        pytest.importorskip("pybv")
    data = np.random.default_rng(0).random((2, 1000)) * 1e-5
    raw = mne.io.RawArray(data, mne.create_info(2, 100.0, "eeg"), verbose="ERROR")
    cd = CacheDict[tp.Any](tmp_path, cache_type=cache_type)
    with cd.write():
        cd["raw"] = raw
    loaded = CacheDict[tp.Any](tmp_path)["raw"]
    assert np.allclose(loaded.get_data(), data, atol=1e-7)
    del cd["raw"]
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("MneRawFif", "mne", "neuro"), ("NibabelNifti", "nibabel", "neuro"), ("TorchTensor", "torch", "torch")],
)
def test_a_package_that_is_missing(
    name: str, package: str, extra: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    line = f'{{"filename":"data/x","offset":0,"shape":[1],"dtype":"float32","#type":"{name}","#key":"a"}}\n'
    if name != "TorchTensor":
        line = f'{{"filename":"data/x","#type":"{name}","#key":"a"}}\n'
    (tmp_path / "x-info.jsonl").write_text(line)
    cd = CacheDict[tp.Any](tmp_path)
    with pytest.raises(MissingPackageError, match=rf"{package}.*pip install 'exca\[{extra}\]'"):
        cd["a"]
    assert "a" in cd


def test_what_is_pickled_is_said_once(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    class Local:
        pass

    cd = CacheDict[tp.Any](tmp_path)
    with caplog.at_level(logging.WARNING, "exca"), cd.write():
        cd["a"] = Local()
        cd["b"] = {"x": Local()}
    assert len(caplog.records) == 1
    assert f"Values of type {__name__}." in caplog.text
    assert "are stored as pickles (no handler is registered for it)" in caplog.text
    assert "Register a handler with @DumpContext.register" in caplog.text
    assert type(cd["a"]).__name__ == "Local"


def test_a_value_that_nothing_takes(tmp_path: pathlib.Path) -> None:
    cd = CacheDict[tp.Any](tmp_path)
    with cd.write():
        cd["a"] = 1
        with pytest.raises(HandlerError, match="cannot be stored"):
            cd["b"] = {"x": np.arange(3), "y": (i for i in range(3))}
        cd["c"] = 2
    assert sorted(CacheDict[tp.Any](tmp_path)) == ["a", "c"]


def test_json_takes_only_json(tmp_path: pathlib.Path) -> None:
    cd = CacheDict[tp.Any](tmp_path, cache_type="Json")
    with cd.write():
        cd["a"] = {"x": [1.5, None]}
        for value in (np.arange(3), {"x": (1,)}, {1: 2}, math.nan):
            with pytest.raises(HandlerError, match="is more than JSON can hold; leave cache_type out"):
                cd["b"] = value
    assert sorted(cd) == ["a"]


def test_handlers_of_users(tmp_path: pathlib.Path) -> None:
    class Sample:
        def __init__(self, data: tp.Any) -> None:
            self.data = data

    @DumpContext.register(default_for=Sample)
    class SampleHandler:
        @classmethod
        def __dump_info__(cls, ctx: DumpContext, value: Sample) -> dict[str, tp.Any]:
            name = ctx.key_path(".txt")
            (ctx.folder / name).write_text("own")
            file, shared = ctx.shared_file(".samples")
            offset = file.tell()
            file.write(b"shared")
            return {"own": name, "shared": shared, "offset": offset, "data": ctx.dump(value.data)}

        @classmethod
        def __load_from_info__(
            cls, ctx: DumpContext, own: str, shared: str, offset: int, data: tp.Any
        ) -> Sample:
            assert (ctx.folder / own).read_text() == "own"
            with (ctx.folder / shared).open("rb") as file:
                file.seek(offset)
                assert file.read(6) == b"shared"
            return Sample(ctx.load(data))

        @classmethod
        def __delete_info__(cls, ctx: DumpContext, own: str, data: tp.Any, **rest: tp.Any) -> None:
            ctx.delete(data)

    cd = CacheDict[tp.Any](tmp_path)
    with cd.write():
        cd["a"] = Sample(np.arange(3))
        cd["b"] = [Sample((1, 2))]
    again = CacheDict[tp.Any](tmp_path)
    assert again["a"].data.tolist() == [0, 1, 2]
    assert again["b"][0].data == (1, 2)
    own = [path for path in (tmp_path / "data").iterdir() if path.suffix == ".txt"]
    assert len(own) == 2
    del cd["a"], cd["b"]
    assert not any(path.exists() for path in own)


class Signal:
    def __init__(self, data: AnyArray, unit: str) -> None:
        self.data, self.unit = data, unit


def delegating(name: str, dump: tp.Callable[[tp.Any, DumpContext, Signal], dict[str, tp.Any]]) -> type:
    """A handler of a user's that stores with one of ours and adds a field."""

    class Handler:
        @classmethod
        def __dump_info__(cls, ctx: DumpContext, value: Signal) -> dict[str, tp.Any]:
            return {**dump(cls, ctx, value), "unit": value.unit}

        @classmethod
        def __load_from_info__(cls, ctx: DumpContext, unit: str, **info: tp.Any) -> Signal:
            builtin = DumpContext.HANDLERS[name]
            return Signal(np.asarray(builtin.__load_from_info__(ctx, **info)), unit)  # type: ignore[attr-defined]  # all have it

    Handler.__name__ = Handler.__qualname__ = f"Signal{name}"
    return Handler


@pytest.mark.parametrize("name", ["MemmapArray", "NumpyArray", "Pickle", "TorchTensor"])
def test_a_handler_that_delegates_to_a_builtin_one(name: str, tmp_path: pathlib.Path) -> None:
    builtin: tp.Any = DumpContext.HANDLERS[name]

    def dump(cls: tp.Any, ctx: DumpContext, value: Signal) -> dict[str, tp.Any]:
        data: tp.Any = value.data
        if name == "TorchTensor":
            data = pytest.importorskip("torch").from_numpy(data)
        return tp.cast(dict[str, tp.Any], builtin.__dump_info__(ctx, data))

    DumpContext.register(delegating(name, dump), default_for=Signal)
    value = Signal(np.arange(10), "mV")
    cd = CacheDict[tp.Any](tmp_path)
    with cd.write():
        cd["a"], cd["b"] = value, {"x": [value]}
    again = CacheDict[tp.Any](tmp_path)
    for found in (again["a"], again["b"]["x"][0]):
        assert (found.unit, found.data.tolist()) == ("mV", list(range(10)))
    for path in (tmp_path / "data").iterdir():  # damage is found as for any other entry
        path.write_bytes(path.read_bytes().replace(np.arange(10).tobytes(), np.arange(1, 11).tobytes()))
    cachedict.handlers.arrays._checked.clear()
    assert "a" in again
    assert again.get("a") is None


def test_a_handler_that_hands_its_value_on(tmp_path: pathlib.Path) -> None:
    """What `ctx.dump` gave, returned as it is, is loaded by the handler that `ctx.dump` chose, as in 0.6."""

    class Wrapped:
        data = np.arange(3)

    @DumpContext.register(default_for=Wrapped)
    class WrappedHandler:
        @classmethod
        def __dump_info__(cls, ctx: DumpContext, value: Wrapped) -> dict[str, tp.Any]:
            return ctx.dump(value.data)

        @classmethod
        def __load_from_info__(cls, ctx: DumpContext, **info: tp.Any) -> Wrapped:
            raise AssertionError

    cd = CacheDict[tp.Any](tmp_path)
    with cd.write():
        cd["a"] = Wrapped()
    assert CacheDict[tp.Any](tmp_path)["a"].tolist() == [0, 1, 2]


def test_reserved_keys_of_a_handler_are_refused(tmp_path: pathlib.Path) -> None:
    class Mine:
        pass

    @DumpContext.register(default_for=Mine)
    class MineHandler:
        @classmethod
        def __dump_info__(cls, ctx: DumpContext, value: Mine) -> dict[str, tp.Any]:
            return {"#mine": 1}

        @classmethod
        def __load_from_info__(cls, ctx: DumpContext) -> Mine:
            return Mine()

    cd = CacheDict[tp.Any](tmp_path)
    with cd.write(), pytest.raises(HandlerError, match=r"MineHandler returned \['#mine'\].* rename them"):
        cd["a"] = Mine()


def test_a_handler_returns_a_dict(tmp_path: pathlib.Path) -> None:
    class Whole:
        pass

    @DumpContext.register(default_for=Whole)
    class WholeHandler:
        @classmethod
        def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> tp.Any:
            return "whole"

        @classmethod
        def __load_from_info__(cls, ctx: DumpContext) -> Whole:
            return Whole()

    cd = CacheDict[tp.Any](tmp_path)
    with (
        cd.write(),
        pytest.raises(HandlerError, match="__dump_info__ of WholeHandler returned str, not a dict"),
    ):
        cd["a"] = Whole()


class Refusing:
    """Is stored, and refuses to be made again."""

    def __setstate__(self, state: object) -> None:
        raise ValueError("not today")


def test_objects_of_an_array_that_cannot_be_made_again(tmp_path: pathlib.Path) -> None:
    refusing = Refusing()
    refusing.__dict__["some"] = "state"
    np.save(tmp_path / "x.npy", np.array([refusing], dtype=object), allow_pickle=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "x.npy").rename(tmp_path / "data" / "x.npy")
    with pytest.raises(StoredValueError, match=r"The objects in .*x\.npy cannot be made again: .*not today"):
        DumpContext(tmp_path).load({"#type": "NumpyArray", "filename": "data/x.npy"})


def test_a_class_that_is_gone(tmp_path: pathlib.Path) -> None:
    entry = {"#type": "py.enum", "class_": "exca.errors:NeverThere", "name": "A"}
    with pytest.raises(
        UnknownHandlerError, match=r"The class exca\.errors:NeverThere of a stored value cannot be imported"
    ):
        DumpContext(tmp_path).load(entry)


def test_a_tensor_of_a_type_that_this_torch_has_not(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("torch")
    entry = {"#type": "TorchTensor", "filename": "data/x", "offset": 0, "shape": [1], "dtype": "float3"}
    with pytest.raises(MissingPackageError, match="This version of torch has no element type 'float3'"):
        DumpContext(tmp_path).load(entry)


def test_small_arrays_lie_side_by_side(tmp_path: pathlib.Path) -> None:
    arrays = [np.ones(540, "f2"), np.ones(27, "f4"), np.ones(3, "u1"), np.ones(2), np.ones(9000, "u1")]
    with CacheDict[tp.Any](tmp_path).write() as cd:
        for number, array in enumerate(arrays[:2]):
            cd[str(number)] = array
    assert sum(path.stat().st_size for path in (tmp_path / "data").iterdir()) == 540 * 2 + 27 * 4
    with cd.write():
        for number, array in enumerate(arrays):
            cd[str(number)] = array
    assert all(np.array_equal(cd[str(number)], array) for number, array in enumerate(arrays))


def test_a_contiguous_memmap_with_its_axes_in_another_order(tmp_path: pathlib.Path) -> None:
    data = np.arange(4 * 8 * 20, dtype=np.float32).reshape(4, 8, 20)
    cd = CacheDict[tp.Any](tmp_path, cache_type="ContiguousMemmapArray")
    with cd.write():
        cd["x"] = data
    found = cd["x"]
    for moved in (found.transpose(2, 0, 1), found.transpose(1, 2, 0), found.swapaxes(0, 1), found[::-1]):
        assert type(moved).__name__ == "ContiguousMemmap"
    assert np.array_equal(np.moveaxis(found, 0, -1), np.moveaxis(data, 0, -1))
    # time is first on disk and last in memory: a stretch of time is one stretch of the file
    assert np.array_equal(found.transpose(1, 2, 0)[..., 1:3], data.transpose(1, 2, 0)[..., 1:3])
    assert np.array_equal(found[::-1], data[::-1])
    with pytest.raises(
        TypeError, match=r"This slice is scattered over the file: use np\.asarray\(x\)\[\.\.\.\]"
    ):
        _ = found.transpose(1, 2, 0)[:2]


def test_a_contiguous_memmap_is_stored_again_by_other_handlers(tmp_path: pathlib.Path) -> None:
    cd = CacheDict[tp.Any](tmp_path, cache_type="ContiguousMemmapArray")
    with cd.write():
        cd["a"] = np.arange(4)
    lazy = cd["a"]
    for name in ("MemmapArray", "NumpyArray", "ContiguousMemmapArray", "Auto", "Pickle"):
        other = CacheDict[tp.Any](tmp_path / name, cache_type=name)
        with other.write():
            other["a"] = lazy
        assert np.asarray(other["a"]).tolist() == [0, 1, 2, 3]


def test_a_class_that_dumps_itself(tmp_path: pathlib.Path) -> None:
    @DumpContext.register
    class Own:
        def __init__(self, text: str) -> None:
            self.text = text

        def __dump_info__(self, ctx: DumpContext) -> dict[str, tp.Any]:
            return {"text": self.text}

        @classmethod
        def __load_from_info__(cls, ctx: DumpContext, text: str) -> "Own":
            return cls(text)

    class Child(Own):
        pass

    cd = CacheDict[tp.Any](tmp_path)
    with cd.write():
        cd["a"], cd["b"] = Own("x"), {"k": Child("y")}
    assert cd["a"].text == "x"
    assert type(cd["b"]["k"]) is Child


def test_registration_is_checked(tmp_path: pathlib.Path) -> None:
    with pytest.raises(HandlerError, match=r"@DumpContext.register decorates a class, not <function"):
        DumpContext.register(tp.cast(tp.Any, test_context_by_hand))
    with pytest.raises(HandlerError, match=r"@DumpContext.register requires __load_from_info__ on Half"):

        @DumpContext.register
        class Half:
            def __dump_info__(self, ctx: DumpContext) -> dict[str, tp.Any]:
                return {}

    class Json:
        @classmethod
        def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> dict[str, tp.Any]:
            return {}

        @classmethod
        def __load_from_info__(cls, ctx: DumpContext) -> None:
            return None

    class Instance:
        def __dump_info__(self, ctx: DumpContext) -> dict[str, tp.Any]:
            return {}

        def __load_from_info__(self, ctx: DumpContext) -> None:
            return None

    with pytest.raises(TypeError, match="requires __dump_info__ of Instance to be a classmethod"):
        DumpContext.register(Instance, default_for=decimal.Decimal)
    assert decimal.Decimal not in DumpContext.TYPE_DEFAULTS
    with pytest.raises(ValueError, match="Name collision"):
        DumpContext.register(Json)
    (tmp_path / "x-info.jsonl").write_text('{"content":1,"#type":"Nobody","#key":"a"}\n')
    with pytest.raises(
        UnknownHandlerError, match="No handler 'Nobody' is registered: import the module that registers it"
    ):
        CacheDict[tp.Any](tmp_path)["a"]
    with CacheDict[tp.Any](tmp_path, cache_type="Nobody").write() as cd, pytest.raises(UnknownHandlerError):
        cd["b"] = 1


def test_context_by_hand(tmp_path: pathlib.Path) -> None:
    options = DumpOptions(replace={"MemmapArray": "NumpyArray"})
    with DumpContext(tmp_path, key="k", options=options) as ctx:
        info = ctx.dump({"x": np.arange(3), "y": 1})
        assert info["content"]["x"]["#type"] == "NumpyArray"
        assert ctx.key_path(".x") != ctx.key_path(".x")
        assert ctx.cached("k", lambda: 1) == ctx.cached("k", lambda: 2) == 1
        ctx.invalidate("k")
        assert ctx.cached("k", lambda: 2) == 2
    assert DumpContext(tmp_path).load(info)["x"].tolist() == [0, 1, 2]
    assert DumpContext(tmp_path).load({"plain": 1}) == {"plain": 1}
    DumpContext(tmp_path).delete(info)
    assert [path for path in (tmp_path / "data").iterdir() if path.suffix == ".npy"] == []


def test_an_entry_written_by_hand(tmp_path: pathlib.Path) -> None:
    with DumpContext(tmp_path) as ctx:
        found = ctx.dump_entry("a", np.arange(3))
        more = ctx.dump_entry("b", {"x": 1}, cache_type="Pickle")
    start, stop = found["byte_range"]
    line = (tmp_path / found["jsonl"]).read_bytes()[start:stop]
    entry = json.loads(line)
    del entry["filename"]
    # what packages compare with what they expect, byte for byte: only what the handler says, as in release 0.6
    assert entry == {"offset": 0, "shape": [3], "dtype": "int64", "#type": "MemmapArray", "#key": "a"}
    assert (found["content"]["#key"], found["content"]["#type"]) == ("a", "MemmapArray")
    assert more["byte_range"][0] == stop
    cd = CacheDict[tp.Any](tmp_path)
    assert cd["a"].tolist() == [0, 1, 2]
    assert cd["b"] == {"x": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_open_resources_are_made_anew_in_a_forked_child(tmp_path: pathlib.Path) -> None:
    ctx = DumpContext(tmp_path)
    assert ctx.cached("pid", os.getpid) == os.getpid()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, str(ctx.cached("pid", os.getpid)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reader, 100)) == child
    os.close(reader)
    os.close(writer)
    assert ctx.cached("pid", os.getpid) == os.getpid()
