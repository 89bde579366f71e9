"""Run by this release and by the published one: writes values, tasks, maps and steps into a folder, or reads them.

``python exchange.py write|read FOLDER``; ``read`` prints a JSON object of name -> what was found.
"""

import collections
import dataclasses
import datetime
import decimal
import enum
import hashlib
import json
import pathlib
import sys
import typing as tp

import numpy as np
import pandas as pd
import pydantic

import exca
from exca import cachedict, steps

COMPUTES = "write" in sys.argv[1:2]  # whether anything may be computed


class Colour(enum.Enum):
    RED = 1


class Point(tp.NamedTuple):
    x: int


@dataclasses.dataclass
class Data:
    x: int


class Model(pydantic.BaseModel):
    x: int = 1


class Odd:
    """A value that no handler knows."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __repr__(self) -> str:
        return f"Odd({self.x})"


class Wave:
    """A value with a handler of the user's own."""

    def __init__(self, data: tp.Any) -> None:
        self.data = data


@cachedict.DumpContext.register(default_for=Wave)
class WaveHandler:
    @classmethod
    def __dump_info__(cls, ctx: tp.Any, value: Wave) -> dict[str, tp.Any]:
        name = ctx.key_path(".txt")
        (ctx.folder / name).write_text("wave")
        return {"filename": name, "data": ctx.dump(value.data)}

    @classmethod
    def __load_from_info__(cls, ctx: tp.Any, filename: str, data: tp.Any) -> Wave:
        assert (ctx.folder / filename).read_text() == "wave"
        return Wave(ctx.load(data))


def arrays() -> dict[str, tp.Any]:
    """Arrays and tensors."""
    matrix = np.arange(6, dtype=np.int16).reshape(2, 3)
    found = {
        "array": matrix,
        "array, Fortran order": np.asfortranarray(matrix),
        "array, strided": np.arange(20)[::3],
        "array, empty": np.zeros((0, 3)),
        "array, no dimension": np.full((), 2.5),
        "array, text": np.array(["a", "bb"]),
        "array, bytes": np.array([b"a", b"bb"]),
        "array, dates": np.array(["2020-01-01"], dtype="datetime64[D]"),
        "array, complex": np.array([1j, 2]),
        "array, bool": np.array([True, False]),
        "array, big endian": np.arange(3, dtype=">i4"),
        "array, fields": np.array([(1, 2.5)], dtype=[("a", "<i4"), ("b", "<f8")]),
        "array, nested fields": np.zeros(2, dtype=[("a", "<i4", (2,)), ("b", [("x", "u1"), ("y", "S3")])]),
        "array, objects": np.array([{"a": 1}, None], dtype=object),
        "array, large": np.arange(300_000),
    }
    try:
        import torch
    except ImportError:
        return found
    return found | {
        "tensor": torch.arange(4.0),
        "tensor, empty": torch.zeros(0, 2),
        "tensor, no dimension": torch.tensor(3),
        "tensor, with gradient": torch.ones(2, requires_grad=True),
        "tensor, bfloat16": torch.ones(2, dtype=torch.bfloat16),
        "tensor, sparse": torch.ones(2).to_sparse(),
    }


def values() -> dict[str, tp.Any]:
    """Everything that can be stored, by a name."""
    array = np.arange(3)
    return arrays() | {
        "int": 3,
        "float": 0.1,
        "text": 'é\n"',
        "bool": True,
        "none": None,
        "list": [1, [2.5, None], "a"],
        "dict": {"b": 1, "a": [1]},
        "long text": "x" * 5000,
        "long list": list(range(3000)),
        "int over 64 bits": 2**70,
        "nan": float("nan"),
        "text with lone surrogates": "a\ud800",
        "complex": 1j,
        "bytes": b"ab",
        "bytearray": bytearray(b"ab"),
        "tuple": (1, (2,)),
        "set": {1},
        "frozenset": frozenset([1]),
        "deque": collections.deque([1]),
        "ordered dict": collections.OrderedDict(a=1),
        "dict with odd keys": {1: 2},
        "dict with reserved keys": {"#type": "Json"},
        "date": datetime.date(2020, 1, 1),
        "datetime": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),  # noqa: UP017  # for any Python
        "time": datetime.time(1),
        "timedelta": datetime.timedelta(1),
        "path": pathlib.Path("/a"),
        "enum": Colour.RED,
        "ellipsis": ...,
        "named tuple": Point(1),
        "dataclass": Data(1),
        "model": Model(),
        "numpy scalar": np.float32(1.5),
        "decimal": decimal.Decimal("1.10"),
        "object": Odd(2),
        "frame": pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=["i", "j"]),
        "frame that Parquet would change": pd.DataFrame({1: [1, 2]}),
        "series": pd.Series([1, 2]),
        "nested": {"x": array, "y": [1, {"z": array + 1}], "frame": pd.DataFrame({"a": [1.5]})},
        "nested, large": {"x": array, "y": list(range(1000)), "z": [array + n for n in range(50)]},
        "nested tuple": {"x": (1, array)},
        "nested object": [Odd(1), array],
        "own": Wave(array),
        "own, nested": [Wave(np.arange(2)), Wave([np.arange(4)])],
    }


TYPED: dict[str, tp.Callable[[], tp.Any]] = {  # by handler
    "MemmapArray": lambda: np.arange(4),
    "ContiguousMemmapArray": lambda: np.arange(4),
    "NumpyArray": lambda: np.arange(4),
    "Pickle": lambda: {1, 2},
    "PandasDataFrame": lambda: pd.DataFrame({"a": [1, 2]}),
    "ParquetPandasDataFrame": lambda: pd.DataFrame({"a": [1, 2]}),
    "Json": lambda: {"a": [1]},
    "Auto": lambda: {"a": np.arange(2)},
    "AutoPickle": lambda: {"a": np.arange(2), "b": Odd(3)},
}


def neuro() -> dict[str, tuple[str, tp.Any]]:
    """Brain images and recordings, where their packages are there."""
    found: dict[str, tuple[str, tp.Any]] = {}
    try:
        import nibabel

        image, eye = tp.cast(tp.Any, nibabel.Nifti1Image), np.eye(4)
        found["NibabelNifti"] = ("NibabelNifti", image(np.ones((2, 2, 2)), eye))
    except ImportError:
        pass
    try:
        import mne

        info = mne.create_info(2, 100.0, "eeg", verbose="ERROR")
        raw = mne.io.RawArray(np.arange(400.0).reshape(2, 200) * 1e-6, info, verbose="ERROR")
        found["MneRawFif"] = ("MneRawFif", raw)
        import pybv  # noqa: F401  # needed for the other format

        found["MneRawBrainVision"] = ("MneRawBrainVision", raw)
    except ImportError:
        pass
    return found


def told(value: tp.Any) -> str:
    """A text that is the same for equal values, whatever holds them."""
    kind = type(value).__name__
    if kind in ("ndarray", "memmap", "ContiguousMemmap"):
        array = np.asarray(value)
        data = array.tolist() if array.dtype.hasobject else hashlib.md5(array.tobytes()).hexdigest()
        return f"array {array.dtype} {array.shape} {data}"
    if kind == "Tensor":
        dense = value.to_dense() if value.is_sparse else value
        return f"tensor {value.dtype} {tuple(value.shape)} {dense.float().tolist()}"
    if kind == "DataFrame":
        return f"frame {value.to_dict()} {list(value.index)}"
    if kind == "Series":
        return f"series {value.tolist()}"
    if kind == "Wave":
        return f"wave {told(value.data)}"
    if kind == "Nifti1Image":
        return f"image {told(np.asarray(value.dataobj))}"
    if kind.startswith("Raw"):
        return f"recording {np.round(value.get_data() * 1e6, 2).tolist()}"
    if isinstance(value, dict):
        return f"{kind} {[(repr(key), told(item)) for key, item in value.items()]}"
    if isinstance(value, list | tuple):
        return f"{kind} {[told(item) for item in value]}"
    return f"{kind} {value!r}"


class Task(pydantic.BaseModel):
    name: str = "int"
    infra: exca.TaskInfra = exca.TaskInfra(version="1")

    @infra.apply
    def compute(self) -> tp.Any:
        if not COMPUTES:
            raise AssertionError("computed again")
        if self.name == "error":
            raise ValueError("wrong", 3)
        return values()[self.name]


class Map(pydantic.BaseModel):
    infra: exca.MapInfra = exca.MapInfra(version="1")

    @infra.apply(item_uid=str)
    def compute(self, items: tp.Iterable[str]) -> tp.Iterator[tp.Any]:
        for item in items:
            if not COMPUTES:
                raise AssertionError("computed again")
            yield values()[item]


class ExchangeLoad(steps.Step):
    size: int = 3

    def _run(self) -> tp.Any:
        if not COMPUTES:
            raise AssertionError("computed again")
        return np.arange(self.size)


class ExchangeAdd(steps.Step):
    more: float = 1.5

    def _run(self, x: tp.Any) -> tp.Any:
        if not COMPUTES:
            raise AssertionError("computed again")
        return {"sum": x + self.more, "list": [1, 2]}


class ExchangeTimes(steps.Step):
    factor: int = 2

    def _run(self, x: tp.Any) -> tp.Any:
        if not COMPUTES:
            raise AssertionError("computed again")
        return x * self.factor


def written(results: dict[str, str], name: str, call: tp.Callable[[], tp.Any]) -> None:
    """Note what a call gives."""
    try:
        results[name] = told(call())
    except Exception as e:
        results[name] = f"! {type(e).__name__}: {e}"


def entries(folder: pathlib.Path) -> dict[str, tuple[pathlib.Path, str | None, tp.Any]]:
    """All values by name, with their folder and the name of their handler."""
    found: dict[str, tuple[pathlib.Path, str | None, tp.Any]] = {
        name: (folder / "values", None, value) for name, value in values().items()
    }
    found |= {f"typed {name}": (folder / f"typed-{name}", name, make()) for name, make in TYPED.items()}
    found |= {f"typed {name}": (folder / f"typed-{name}", *pair) for name, pair in neuro().items()}
    return found


def computed(folder: pathlib.Path) -> dict[str, tp.Callable[[], tp.Any]]:
    """All computations, by name."""
    names = [name for name in values() if name not in ("array, large", "own", "own, nested")]
    infra: tp.Any = {"folder": folder}
    tasks: dict[str, tp.Any] = {f"task {n}": Task(name=n, infra=infra).compute for n in [*names, "error"]}
    mapped = Map(infra=infra)
    items = ("int", "dict", "array", "nested", "frame", "long list")
    maps: dict[str, tp.Any] = {
        f"map {name}": (lambda name=name: next(iter(mapped.compute([name])))) for name in items
    }
    cached: tp.Any = {"backend": "Cached", "folder": folder}
    chain = steps.Chain(steps=[ExchangeLoad(infra=cached), ExchangeAdd(infra=cached)], infra=None)
    other: dict[str, tp.Any] = {
        "step": ExchangeLoad(infra=cached, size=5).run,
        "chain": chain.run,
        "step with an input": lambda: ExchangeTimes(infra=cached).run(4),
        "step with an array": lambda: ExchangeAdd(infra=cached).run(2.5),
    }
    return tasks | maps | other


def main() -> None:
    """Write or read everything."""
    folder, results = pathlib.Path(sys.argv[2]), dict[str, str]()
    for name, (place, handler, value) in entries(folder).items():
        cache: tp.Any = cachedict.CacheDict(place, cache_type=handler)
        if COMPUTES:
            try:
                with cache.write():
                    cache[name] = value
            except Exception as e:
                results[name] = f"! {type(e).__name__}: {e}"
                continue
            results[name] = told(value)
        else:
            written(results, name, lambda cache=cache, name=name: cache[name])  # type: ignore[misc]  # bound at once
    for name, call in computed(folder).items():
        written(results, name, call)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
