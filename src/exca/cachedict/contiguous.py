"""Arrays that are read from their file when asked, so that memory stays flat however large the file is."""

import typing as tp

import numpy as np
import numpy.typing as npt

from .. import _files

AnyArray = npt.NDArray[tp.Any]

_PLAIN = ("shape", "dtype", "ndim", "size", "nbytes", "itemsize")
_VIEWS = ("reshape", "view", "transpose", "squeeze", "swapaxes", "ravel")


class ContiguousMemmap:
    """An array in a file: slices of it are as lazy, and its elements are read by file I/O when it becomes an array.

    Memory-mapped pages count as memory of the process while they are cached; bytes read do not. What is read must be
    one contiguous stretch of the file; anything else is refused, since it would read much for little: turn the
    object into an array first (``np.asarray(x)``).

    Parameters
    ----------
    array: a memory-mapped array, whose place and layout are used and whose pages are never touched
    """

    __slots__ = ("_array", "_base", "_path", "_start")

    def __init__(self, array: AnyArray, cache: object = None) -> None:
        if not hasattr(array, "filename") and not array.size:
            self._path, self._start = "", 0
        else:
            memmap = tp.cast("np.memmap[tp.Any, tp.Any]", array)
            if memmap.filename is None:
                raise TypeError("ContiguousMemmap needs a memory-mapped array that knows its file")
            self._path, self._start = str(memmap.filename), memmap.offset
        self._array: AnyArray = array
        self._base = _address(array)

    def _like(self, array: AnyArray) -> "ContiguousMemmap":
        other = object.__new__(ContiguousMemmap)
        other._array, other._base, other._path, other._start = array, self._base, self._path, self._start
        return other

    def __repr__(self) -> str:
        return f"ContiguousMemmap(shape={self._array.shape}, dtype={self._array.dtype})"

    def __len__(self) -> int:
        return len(self._array)

    def __bool__(self) -> bool:
        return bool(self._array.shape and len(self)) if self._array.size != 1 else bool(np.asarray(self))

    def __iter__(self) -> tp.Iterator[tp.Any]:
        for number in range(len(self)):
            yield self[number]

    def __getitem__(self, key: tp.Any) -> tp.Any:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(
            part is None or part is Ellipsis or isinstance(part, int | np.integer | slice) for part in parts
        ):
            raise TypeError(
                "ContiguousMemmap takes no index arrays or masks: use np.asarray(x)[...] to read it first"
            )
        # views of the memory map: no page is touched
        chosen = self._array[(*parts, ...)] if Ellipsis not in parts else self._array[parts]
        if not _contiguous(chosen):
            raise TypeError(
                "This slice is scattered over the file: use np.asarray(x)[...] to read the array first"
            )
        if not chosen.ndim:
            return self._like(chosen).__array__()[()]
        return self._like(chosen)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        if copy is False:
            raise ValueError(
                "A ContiguousMemmap is read from its file: it cannot become an array without a copy"
            )
        source = self._array
        if not source.size:
            content: AnyArray = np.empty(source.shape, source.dtype)
        else:
            low, _ = _bounds(source)
            offset = self._start + low - self._base
            if not _contiguous(source):
                raise TypeError("This array is scattered over the file and cannot be read at once")
            with open(_files.open_file(self._path), "rb") as file:
                flat = np.fromfile(file, dtype=np.uint8, count=source.nbytes, offset=offset)
            if flat.nbytes != source.nbytes:
                raise OSError(f"The data file {self._path} ends before byte {offset + source.nbytes}")
            content = np.ndarray(source.shape, source.dtype, flat, _address(source) - low, source.strides)
        return content if dtype is None else content.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: tp.Any, **kwargs: tp.Any) -> tp.Any:
        arrays = [np.asarray(x) if isinstance(x, ContiguousMemmap) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return _from_memory, (np.asarray(self),)

    @property
    def T(self) -> "ContiguousMemmap":  # noqa: N802  # as arrays call it
        """The transposed array, as lazy."""
        return self._like(self._array.T)

    def __getattr__(self, name: str) -> tp.Any:
        if name in _PLAIN:
            return getattr(self._array, name)
        if name in _VIEWS:
            return lambda *args, **kwargs: self._view(name, *args, **kwargs)
        if hasattr(np.ndarray, name):
            raise AttributeError(
                f"A ContiguousMemmap has no {name!r}: use np.asarray(x).{name} to read the array first"
            )
        raise AttributeError(f"'ContiguousMemmap' object has no attribute {name!r}")

    def _view(self, name: str, *args: tp.Any, **kwargs: tp.Any) -> "ContiguousMemmap":
        if not _contiguous(self._array):
            raise TypeError(f"This array is scattered over the file: use np.asarray(x).{name}")
        view: AnyArray = getattr(self._array.view(np.ndarray), name)(*args, **kwargs)
        first, last = _bounds(self._array) if self._array.size else (0, 0)
        if view.size and not first <= _address(view) < last:
            raise TypeError(f"{name} would copy the array: use np.asarray(x).{name}")
        return self._like(view)


def _address(array: AnyArray) -> int:
    return int(array.__array_interface__["data"][0])


def _bounds(array: AnyArray) -> tuple[int, int]:
    """Addresses of the first byte of an array and of the one behind its last: NumPy 1 and 2 name this differently."""
    low = high = _address(array)
    for length, stride in zip(array.shape, array.strides, strict=True):
        low, high = low + min(0, (length - 1) * stride), high + max(0, (length - 1) * stride)
    return low, high + array.itemsize


def _contiguous(array: AnyArray) -> bool:
    """Whether an array fills one stretch of its file, in any order of its axes."""
    if array.flags.c_contiguous or array.flags.f_contiguous or not array.size:
        return True
    low, high = _bounds(array)
    return bool(high - low == array.nbytes)


def _from_memory(array: AnyArray) -> AnyArray:
    """A pickled ContiguousMemmap comes back as a plain array: its file may not exist where it is loaded."""
    return array
