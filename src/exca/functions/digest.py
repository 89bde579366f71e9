"""A digest of what a value holds: the same in every process, and another for another value.

Containers, arrays, tables and tensors are read themselves, so that what does not count (the layout of an array in
memory, the order of a dict or a set, which strings are one object) changes nothing. Any other object is what pickle
would make it from: a class or function by its name, and its arguments and state. Nothing is imported for the question.
"""

import collections
import collections.abc
import copyreg
import enum
import pathlib
import struct
import sys
import types
import typing as tp

import xxhash

from ..errors import ContentError
from ..identity.fields import SECRETS

_SIMPLE = frozenset((str, bytes, int, float, complex, bool, type(None)))
_NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
_Feed = tp.Callable[["_Reader", tp.Any], None]


def digest(value: tp.Any) -> str:
    """32 hex digits (XXH3-128) of what a value holds.

    Raises: ContentError where there is something in it that cannot be told from others: an open file, a lock, an
    iterator, a lambda.
    """
    try:
        return str(_Reader.of(value, {}).hexdigest())
    except RecursionError:
        raise ContentError(f"a {type(value).__qualname__} is nested too deeply") from None


class _Reader:
    """Reads a value into a hash; what is inside of what is known from the stack."""

    def __init__(self, stack: dict[int, int]) -> None:
        self._hash = xxhash.xxh3_128()
        self._stack = stack

    @classmethod
    def of(cls, value: tp.Any, stack: dict[int, int]) -> tp.Any:
        """The hash of one value."""
        reader = cls(stack)
        reader.read(value)
        return reader._hash

    def tag(self, name: str, *parts: tp.Any) -> None:
        """Begin a value of a kind: with the lengths behind it, no two values give the same bytes."""
        text = ",".join([name, *map(str, parts)])
        self._hash.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))

    def bytes(self, data: tp.Any) -> None:
        """Read the bytes of a buffer, whose length is in the tag before it or follows from that."""
        self._hash.update(data)

    def text(self, name: str, text: str) -> None:
        """Read a text."""
        data = text.encode("utf-8", "surrogatepass")
        self.tag(name, len(data))
        self._hash.update(data)

    def read(self, value: tp.Any) -> None:
        """Read any value."""
        kind = type(value)
        if kind in _SIMPLE:
            self._simple(kind, value)
            return
        key = id(value)
        if key in self._stack:  # a circle: told by how far above it begins
            self.tag("above", len(self._stack) - self._stack[key])
            return
        self._stack[key] = len(self._stack)
        try:
            (_FEEDS.get(kind) or _foreign(value) or _object)(self, value)
        finally:
            del self._stack[key]

    def _simple(self, kind: type, value: tp.Any) -> None:
        if kind is str:
            self.text("str", value)
        elif kind is bytes:
            self.tag("bytes", len(value))
            self._hash.update(value)
        elif kind is float:
            self.tag("float", struct.pack("<d", value).hex())
        elif kind is complex:
            self.tag("complex", struct.pack("<dd", value.real, value.imag).hex())
        elif kind is int:
            self.tag("int", hex(value))  # decimal text is limited to 4300 digits
        else:
            self.tag(kind.__name__, value)

    def items(self, values: tp.Sequence[tp.Any]) -> None:
        """Read items in order; many texts at once."""
        if len(values) > 1 and set(map(type, values)) == {str}:
            texts = [value.encode("utf-8", "surrogatepass") for value in values]
            self.tag("texts", len(texts))
            self._hash.update(struct.pack(f"<{len(texts)}q", *map(len, texts)))
            self._hash.update(b"".join(texts))
            return
        self.tag("items", len(values))
        for value in values:
            self.read(value)

    def unordered(self, values: tp.Iterable[tp.Any]) -> None:
        """Read values whose order does not count."""
        digests = sorted(_Reader.of(value, self._stack).digest() for value in values)
        self.tag("unordered", len(digests))
        self._hash.update(b"".join(digests))


# ---------------------------------------------------------------- containers


def _ordered(reader: _Reader, value: tp.Any) -> None:
    reader.tag(type(value).__name__)
    reader.items([*value.items()] if isinstance(value, dict) else value)


def _unordered(reader: _Reader, value: tp.Any) -> None:
    reader.tag(type(value).__name__)
    reader.unordered(value.items() if isinstance(value, dict) else value)


def _bytearray(reader: _Reader, value: bytearray) -> None:
    reader.tag("bytearray", len(value))
    reader.bytes(bytes(value))


_FEEDS: dict[type, _Feed] = {
    list: _ordered,
    tuple: _ordered,
    dict: _unordered,
    collections.OrderedDict: _ordered,
    set: _unordered,
    frozenset: _unordered,
    bytearray: _bytearray,
}

# ---------------------------------------------------------------- arrays, tables, tensors


def _foreign(value: tp.Any) -> _Feed | None:
    """What reads a value that is known better than pickle knows it."""
    if isinstance(value, SECRETS):  # a reader of the cache could try guesses
        raise ContentError("a secret, of which a digest would tell")
    if isinstance(value, enum.Enum):  # it and a path are pickled in another way by each version of Python
        return _enum
    if isinstance(value, pathlib.PurePath):
        return _path
    numpy, pandas, torch = map(sys.modules.get, ("numpy", "pandas", "torch"))
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _array
    if numpy is not None and isinstance(value, numpy.generic):
        return _scalar
    if torch is not None and isinstance(value, torch.Tensor):
        return _tensor
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return _frame
    if pandas is not None and isinstance(value, pandas.Series):
        return _series
    if pandas is not None and isinstance(value, pandas.Index):
        return _index
    sparse = sys.modules.get("scipy.sparse")
    if sparse is not None and sparse.issparse(value):
        return _sparse
    return None


def _array(reader: _Reader, value: tp.Any) -> None:
    import numpy as np

    kind = type(value)
    if isinstance(value, np.ma.MaskedArray):  # what is under the mask does not count
        reader.tag("masked")
        _data(reader, np.ma.getmaskarray(value))
        value = np.where(np.ma.getmaskarray(value), np.zeros((), value.dtype), value.data)
    elif kind not in (np.ndarray, np.memmap):
        reader.tag("subclass")
        _named(reader, kind)
        reader.read({key: part for key, part in getattr(value, "__dict__", {}).items() if part is not value})
    _data(reader, np.asarray(value))


def _scalar(reader: _Reader, value: tp.Any) -> None:
    import numpy as np

    reader.tag("scalar")
    _data(reader, np.asarray(value))


def _data(reader: _Reader, array: tp.Any) -> None:
    import numpy as np

    dtype = array.dtype
    reader.tag("array", dtype.str if dtype.names is None else repr(dtype), *array.shape)
    if dtype.names is not None:  # one by one, for what is between fields may be anything
        for name in dtype.names:
            _data(reader, array[name])
    elif dtype.hasobject or dtype.kind == "T":
        reader.items(array.ravel().tolist())
    elif array.nbytes:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if dtype.type in (np.longdouble, np.clongdouble) and np.finfo(np.longdouble).machep == -63:
            data = np.ascontiguousarray(data.reshape(-1, 16)[:, :10]).reshape(-1)  # the rest is padding
        reader.bytes(data)


def _tensor(reader: _Reader, value: tp.Any) -> None:
    import torch

    tensor = value.detach()
    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        reader.tag("subclass")
        _named(reader, type(value))
    if tensor.is_quantized or tensor.device.type == "meta":
        raise ContentError(f"a {'quantized' if tensor.is_quantized else 'meta'} tensor: give its numbers")
    if tensor.layout is not torch.strided:
        coordinates = tensor.to_sparse_coo().coalesce()
        reader.tag("sparse", *tensor.shape)
        _tensor(reader, coordinates.indices())
        _tensor(reader, coordinates.values())
        return
    tensor = tensor.cpu().resolve_conj().resolve_neg().contiguous()
    reader.tag("tensor", tensor.dtype, *tensor.shape)
    if tensor.numel():
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor)
        reader.bytes(tensor.reshape(-1).view(torch.uint8).numpy())


def _frame(reader: _Reader, value: tp.Any) -> None:
    _table(reader, "DataFrame", value)
    reader.read(value.columns)
    reader.read(value.index)
    for number in range(value.shape[1]):
        _values(reader, value.iloc[:, number])


def _series(reader: _Reader, value: tp.Any) -> None:
    _table(reader, "Series", value)
    reader.read(value.name)
    reader.read(value.index)
    _values(reader, value)


def _table(reader: _Reader, name: str, value: tp.Any) -> None:
    reader.tag(name, *value.shape)
    if type(value).__module__.partition(".")[0] != "pandas":
        _named(reader, type(value))
    reader.read(value.attrs)


def _index(reader: _Reader, value: tp.Any) -> None:
    reader.tag("Index", value.nlevels, len(value))
    reader.items(list(value.names))
    for level in range(value.nlevels):
        _labels(reader, value.get_level_values(level))


def _labels(reader: _Reader, value: tp.Any) -> None:
    """Read one level of an index; that of texts has another dtype from version to version of pandas."""
    import numpy as np

    labels = [] if isinstance(value.dtype, np.dtype) and not value.dtype.hasobject else value.tolist()
    if labels and set(map(type, labels)) == {str}:
        reader.tag("labels")
        reader.items(labels)
        return
    reader.tag("freq", getattr(value, "freqstr", None))
    _values(reader, value)


def _values(reader: _Reader, column: tp.Any) -> None:
    """Read the values of a Series or Index, by their dtype."""
    import pandas as pd

    dtype = column.dtype
    reader.tag("column", dtype)
    if isinstance(dtype, pd.CategoricalDtype):
        categories = column.array
        reader.tag("categories", categories.ordered)
        reader.read(categories.categories)
        _data(reader, categories.codes)
    elif isinstance(column.array, pd.arrays.NumpyExtensionArray) or not hasattr(dtype, "na_value"):
        _data(reader, column.to_numpy())
    elif hasattr(column.array, "asi8"):  # dates, durations and periods
        _data(reader, column.array.asi8)
    elif isinstance(column.array, pd.arrays.IntegerArray | pd.arrays.FloatingArray | pd.arrays.BooleanArray):
        _data(reader, column.array.isna())
        zero = dtype.numpy_dtype.type(0)
        _data(reader, column.array.to_numpy(dtype=dtype.numpy_dtype, na_value=zero))
    else:
        reader.items(column.array.to_numpy(dtype=object).tolist())


def _sparse(reader: _Reader, value: tp.Any) -> None:
    # its own fields remember besides what was asked of it
    reader.tag("sparse", value.format, *value.shape)
    _named(reader, type(value))
    coordinates = value.tocsr(copy=True).tocoo() if value.ndim == 2 else value.copy()
    coordinates.sum_duplicates()
    for part in (*getattr(coordinates, "coords", (coordinates.row, coordinates.col)), coordinates.data):
        _data(reader, part)


# ---------------------------------------------------------------- other objects


def _object(reader: _Reader, value: tp.Any) -> None:
    kind = type(value)
    if isinstance(value, _NAMED):
        _named(reader, value)
        return
    if isinstance(value, collections.abc.Iterator):
        raise ContentError(f"{_shown(value)} can be gone through only once: give a list")
    reduce = copyreg.dispatch_table.get(kind)
    try:
        parts = reduce(value) if reduce is not None else value.__reduce_ex__(4)
    except Exception as error:  # of the class, which may raise anything
        raise ContentError(f"{_shown(value)} cannot be pickled: {error}") from error
    reader.tag("object")
    if isinstance(parts, str):  # the name of a constant
        reader.text("constant", f"{getattr(value, '__module__', kind.__module__)}.{parts}")
        return
    function, arguments, *rest = parts
    state, items, pairs = [*rest, None, None, None][:3]
    reader.read(function)
    reader.read(arguments)
    reader.read(state)
    reader.items(list(items or ()))
    reader.unordered(list(pairs or ()))


def _path(reader: _Reader, value: pathlib.PurePath) -> None:
    reader.text("path", f"{type(value).__name__}:{value}")


def _enum(reader: _Reader, value: enum.Enum) -> None:
    reader.tag("enum")
    _named(reader, type(value))
    reader.text("member", str(value.name))


def _named(reader: _Reader, value: tp.Any) -> None:
    """Read a class, function or module: its name stands for it."""
    if isinstance(value, types.ModuleType):
        reader.text("module", value.__name__)
        return
    module, name = getattr(value, "__module__", None), value.__qualname__
    if not isinstance(value, type) and ("<lambda>" in name or "<locals>" in name):
        raise ContentError(
            f"{_shown(value)} has no name by which another process would know it: write it as a def in a module"
        )
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, type | types.ModuleType):  # a method of a builtin object
        reader.tag("method", value.__name__)
        reader.read(owner)
        return
    reader.text("name", f"{module}.{name}")


def _shown(value: tp.Any) -> str:
    return f"{value!r:.80} of type {type(value).__module__}.{type(value).__qualname__}"
