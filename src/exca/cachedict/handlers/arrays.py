"""NumPy arrays: in a shared file that is memory-mapped or read, or in an .npy file each."""

import ast
import errno
import functools
import math
import mmap
import os
import pickle
import typing as tp

import xxhash

from ... import _trust
from ...errors import DamagedEntryError, HandlerError, StoredValueError
from .. import registry
from ..datafiles import cut_short, damaged_range, data_size, mapped, mapped_privately, may_map, open_data
from ..dumpcontext import DumpContext
from ..textindex import Info
from .base import BuiltinHandler, KeyFileHandler, read_range
from .pickled import PickleFallback

if tp.TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..contiguous import ContiguousMemmap

    AnyArray = npt.NDArray[tp.Any]

_ALIGNMENT = 64  # bytes: a cache line, and more than any element type needs
# bytes from which an array is aligned so; in smaller ones the gaps would cost more than they save
_ALIGNED = 4096


def append_array(ctx: DumpContext, array: "AnyArray") -> Info:
    """Append an array's elements to the shared file; returns where they are and how to read them."""
    import numpy as np

    fortran = ctx.keeps_order and array.flags.f_contiguous and not array.flags.c_contiguous
    content = (array.T if fortran else np.ascontiguousarray(array)).reshape(-1)
    raw = memoryview(tp.cast(tp.Any, content.view(np.uint8))) if content.nbytes else memoryview(b"")
    file, name = ctx.shared(".data")
    offset = file.align(_ALIGNMENT if raw.nbytes >= _ALIGNED else min(array.dtype.itemsize, 16) or 1)
    file.write(raw)
    info: Info = {
        "filename": name,
        "offset": offset,
        "shape": list(array.shape),
        "dtype": _name_of(array.dtype) if array.dtype.isbuiltin == 1 else describe(array.dtype),
    }
    if fortran:
        info["order"] = "F"
    info["#sum"] = xxhash.xxh3_64_hexdigest(raw)
    return info


@functools.cache
def _name_of(dtype: "np.dtype[tp.Any]") -> str:
    return str(dtype)  # which NumPy makes anew each time, at the cost of a checksum


def describe(dtype: "np.dtype[tp.Any]") -> tp.Any:
    """A dtype as JSON: its name, or the fields of a structured one, in a form that `numpy.dtype` takes."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        lengths = ",".join(map(str, shape))
        return f"({lengths},){describe(base)}" if base.names is None else [describe(base), list(shape)]
    if dtype.names is None:
        return str(dtype) if dtype.kind != "V" else dtype.str
    known: tp.Any = dtype.fields
    fields = [known[name] for name in dtype.names]
    described: Info = {
        "names": list(dtype.names),
        "formats": [describe(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }
    if any(len(field) > 2 for field in fields):
        described["titles"] = [field[2] if len(field) > 2 else None for field in fields]
    return described


def dtype_of(description: tp.Any) -> "np.dtype[tp.Any]":
    """The dtype that `describe` described. Raises DamagedEntryError for one whose elements a file cannot hold."""
    import numpy as np

    try:
        if not isinstance(description, str | list | dict):
            raise TypeError(type(description).__name__)
        if isinstance(description, str) and description.startswith("["):  # how earlier releases wrote it
            description = ast.literal_eval(description)
        dtype = (
            np.lib.format.descr_to_dtype(_tuples(description))
            if isinstance(description, list)
            else np.dtype(_format(description))
        )
    except (TypeError, ValueError, SyntaxError, KeyError, IndexError, OverflowError, MemoryError) as e:
        raise DamagedEntryError(f"Not an array type: {description!r}") from e
    if dtype.hasobject:
        raise DamagedEntryError(
            "An array of Python objects was stored by its addresses, which mean nothing now"
        )
    return dtype


def _format(description: tp.Any) -> tp.Any:
    """What `numpy.dtype` takes for what `describe` gave."""
    if isinstance(description, dict):
        return {**description, "formats": [_format(part) for part in description["formats"]]}
    if isinstance(description, list):
        return _format(description[0]), tuple(description[1])
    return description


def _tuples(field: tp.Any) -> tp.Any:
    if isinstance(field, list) and field and all(isinstance(item, list | tuple) for item in field):
        return [
            tuple(_tuples(part) if n == 1 else _shape(part) for n, part in enumerate(item)) for item in field
        ]
    return field


def _shape(part: tp.Any) -> tp.Any:
    return tuple(part) if isinstance(part, list) else part


def map_array(
    ctx: DumpContext, info: Info, *, private: bool = True
) -> "np.memmap[tp.Any, tp.Any] | AnyArray":
    """An array over a shared file, mapped copy-on-write and compared with its checksum. Raises DamagedEntryError.

    One that is not ``private`` is read-only, and not checked.
    """
    import numpy as np

    described, shape, offset = info["dtype"], tuple(info["shape"]), info["offset"]
    dtype = _dtype_called(described) if isinstance(described, str) else dtype_of(described)
    size = dtype.itemsize
    for length in shape:
        size *= length
    if type(offset) is not int or type(size) is not int or min((offset, *shape)) < 0:
        raise DamagedEntryError(f"An entry of {ctx.root} names an array of shape {shape} at byte {offset!r}")
    order: tp.Literal["C", "F"] = info.get("order", "C")
    if size == 0:
        return np.empty(shape, dtype=dtype, order=order)
    path = ctx.path(info["filename"])
    content, start = (
        _private_content(ctx, info, path, offset, size) if private else _address_space(path, offset, size)
    )
    array: tp.Any = np.ndarray.__new__(np.memmap, shape, dtype, content, start, order=order)
    # what np.memmap sets itself when it opens a file; here the map is shared by all arrays of the file
    array._mmap, array.offset, array.mode, array.filename = content, offset, "c" if private else "r", path
    return tp.cast("AnyArray", array)


def _private_content(ctx: DumpContext, info: Info, path: str, offset: int, size: int) -> tuple[tp.Any, int]:
    """Bytes that the caller may write to, and where the array starts in them, compared with its checksum."""
    content: tp.Any
    if may_map(path):
        content, start, mtime = mapped_privately(path, offset, size)
    else:
        content, start, mtime = bytearray(read_range(ctx, info["filename"], offset, size, None)), 0, 0
    digest = info.get("#sum")
    if digest is None or size > ctx.options.checksum_bytes or _checked.get((path, offset)) == mtime:
        return content, start
    if xxhash.xxh3_64_hexdigest(memoryview(content)[start : start + size]) != digest:
        raise damaged_range(path, offset, size)
    if mtime:
        if len(_checked) >= _MOST_CHECKED:
            _checked.clear()
        _checked[path, offset] = mtime
    return content, start


def _address_space(path: str, offset: int, size: int) -> tuple[tp.Any, int]:
    """A map of the file, or else room for as many bytes that takes no open file: what is read is read from the file."""
    if may_map(path):
        return mapped(path, offset + size)[0], offset
    there = data_size(path)
    if there < offset + size:
        raise cut_short(path, there, offset + size)
    return mmap.mmap(-1, size), 0


# arrays whose checksum this process has compared, with the mtime that their file had: not again until it changes
_checked: dict[tuple[str, int], int] = {}
_MOST_CHECKED = 100_000
_dtype_called = functools.cache(dtype_of)


def as_array(value: tp.Any) -> "AnyArray":
    """The value as an array. Raises HandlerError when it is none."""
    import numpy as np

    if not isinstance(value, np.ndarray):
        if type(value).__name__ == "ContiguousMemmap" and hasattr(value, "__array__"):
            return np.asarray(value)
        raise HandlerError(
            f"Expected a NumPy array, got {type(value).__name__}; leave cache_type out or choose another"
        )
    return value


def needs_pickle(array: "AnyArray") -> bool:
    """Whether a file of plain elements cannot hold this array: objects, text of any length, masked and other kinds."""
    import numpy as np

    return array.dtype.hasobject or array.dtype.kind == "T" or type(array) not in (np.ndarray, np.memmap)


class MemmapArray(BuiltinHandler):
    """Arrays in one shared file per writer; they come back as memory maps, writable for the caller alone."""

    only_reads = True

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        array = as_array(value)
        return PickleFallback.__dump_info__(ctx, array) if needs_pickle(array) else append_array(ctx, array)

    @classmethod
    def load(cls, ctx: DumpContext, info: Info) -> tp.Any:
        """Load from an entry."""
        return map_array(ctx, info)


class ContiguousMemmapArray(MemmapArray):
    """Stored like `MemmapArray`; comes back as an object that reads what is asked by file I/O, so memory stays flat."""

    @classmethod
    def load(cls, ctx: DumpContext, info: Info) -> "ContiguousMemmap | AnyArray":
        """Load from an entry."""
        from ..contiguous import ContiguousMemmap

        return ContiguousMemmap(map_array(ctx, info, private=False))


def _npy_dtype(file: tp.IO[bytes]) -> "np.dtype[tp.Any]":
    """The dtype of an .npy file, whose header fits its size; the file is at its start again."""
    import numpy as np

    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        else:  # names of fields beyond Latin-1
            shape, dtype = (), np.dtype("V0")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or (not dtype.hasobject and size > os.fstat(file.fileno()).st_size):
            raise ValueError(f"it is too short for an array of shape {shape}")
    except OSError:
        raise
    except Exception as e:  # of the header
        raise DamagedEntryError(f"The data file {file.name} holds no array: {e}") from e
    file.seek(0)
    return dtype


class NumpyArray(KeyFileHandler):
    """One .npy file per array; read into memory."""

    only_reads = True

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        import numpy as np

        array = as_array(value)
        if needs_pickle(array):
            return PickleFallback.__dump_info__(ctx, array)
        name = ctx.key_path(".npy")
        try:
            np.save(ctx.path(name), array, allow_pickle=False)
        except OSError as e:
            if e.errno is None:  # "... requested and ... written"
                raise OSError(errno.ENOSPC, str(e), name) from e
            raise
        return {"filename": name}

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, filename: str) -> "AnyArray":
        import numpy as np

        path = ctx.path(filename)
        with open(open_data(path), "rb") as file:
            if not _npy_dtype(file).hasobject:
                return np.lib.format.read_array(file, allow_pickle=False)
            _trust.require_trusted(os.fstat(file.fileno()), path)  # the objects are a pickle
            try:
                return np.lib.format.read_array(file, allow_pickle=True)
            except (EOFError, pickle.UnpicklingError, OSError):
                raise
            except Exception as e:  # of the classes of the objects
                raise StoredValueError(f"The objects in {path} cannot be made again: {e!r}") from e


registry.add_builtin(MemmapArray, by_name=("numpy.ndarray", "numpy.memmap"))
registry.add_builtin(ContiguousMemmapArray, by_name=("exca.cachedict.contiguous.ContiguousMemmap",))
registry.add_builtin(NumpyArray)
registry.HANDLERS["MemmapArrayFile"] = MemmapArray  # the name under which early releases wrote it
