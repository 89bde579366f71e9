"""Pandas DataFrames: Parquet where pyarrow is there, else CSV; a frame that Parquet would change is pickled."""

import functools
import importlib.util
import os
import typing as tp

from ...errors import HandlerError
from .. import registry
from ..dumpcontext import DumpContext
from ..textindex import Info
from .base import KeyFileHandler, imported
from .pickled import PickleFallback

if tp.TYPE_CHECKING:
    import pandas as pd

# kinds of object columns that come back from Parquet as what they were
_KEPT = frozenset(("string", "empty", "bytes", "decimal", "date"))
_LARGE = 1 << 20  # elements from which on threads are worth starting
_SMALL = 1 << 20  # bytes of a file up to which they are not


_pandas = functools.partial(imported, "pandas", "Storing or loading a DataFrame")


def _frame(value: tp.Any) -> "pd.DataFrame":
    if not isinstance(value, _pandas().DataFrame):
        raise HandlerError(f"Expected a DataFrame, got {type(value).__name__}")
    return tp.cast("pd.DataFrame", value)


def survives_parquet(frame: "pd.DataFrame") -> bool:
    """Whether a frame comes back from Parquet with the same labels, index and element types."""
    pandas = _pandas()
    index, columns = frame.index, frame.columns
    if columns.nlevels != 1 or not all(type(label) is str for label in columns) or not columns.is_unique:
        return False
    if columns.name is not None or frame.attrs or columns.dtype == "category":
        return False
    if any(not (name is None or type(name) is str) for name in index.names) or set(index.names) & set(
        columns
    ):
        return False
    if len({n for n in index.names if n is not None}) < sum(n is not None for n in index.names):
        return False
    if getattr(index, "freq", None) is not None or isinstance(index, pandas.IntervalIndex):
        return False
    levels = [index.get_level_values(n) for n in range(index.nlevels)]
    return all(_survives(level.dtype, level) for level in levels) and all(
        _survives(dtype, frame.iloc[:, n] if dtype == "object" else None)
        for n, dtype in enumerate(frame.dtypes)
    )


def _survives(dtype: tp.Any, column: tp.Any) -> bool:
    """Whether a column comes back; it is only looked at where it holds objects."""
    if dtype == "object":
        return _pandas().api.types.infer_dtype(column, skipna=True) in _KEPT and not _odd_missing(column)
    name = str(dtype)
    if name == "category":
        return str(dtype.categories.dtype) in ("object", "str", "string", "int64")
    return (
        name.split("[", maxsplit=1)[0] not in ("complex64", "complex128", "interval", "period", "Sparse")
        and "float128" not in name
    )


def _odd_missing(column: tp.Any) -> bool:
    """Whether something else than None means a missing value, which Parquet makes None."""
    return any(value is not None and value != value for value in column)


class PandasDataFrame(KeyFileHandler):
    """One CSV file per frame, as earlier releases wrote it; types are guessed when it is read."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        frame = _frame(value)
        name = ctx.key_path(".csv")
        frame.to_csv(ctx.path(name), index=True)
        return {"filename": name}

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, filename: str) -> "pd.DataFrame":
        with open(ctx.open(filename), "rb") as file:
            # the first column is the index, and only the empty text is missing: that is how it was written
            frame: pd.DataFrame = _pandas().read_csv(file, index_col=0, keep_default_na=False, na_values=[""])
        return frame


class ParquetPandasDataFrame(KeyFileHandler):
    """One Parquet file per frame."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        frame = _frame(value)
        if type(frame) is not _pandas().DataFrame or not survives_parquet(frame):
            return PickleFallback.__dump_info__(ctx, frame)
        arrow = imported("pyarrow", "Storing a DataFrame as Parquet")
        name = ctx.key_path(".parquet")
        # as DataFrame.to_parquet does, which starts threads also for a few rows
        table = arrow.Table.from_pandas(frame, nthreads=1 if frame.size < _LARGE else None)
        imported("pyarrow.parquet", "Storing a DataFrame as Parquet").write_table(
            table, ctx.path(name), compression="snappy"
        )
        return {"filename": name}

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, filename: str) -> "pd.DataFrame":
        imported("pyarrow", "Loading a DataFrame from Parquet")
        with open(ctx.open(filename), "rb") as file:
            small = os.fstat(file.fileno()).st_size < _SMALL
            frame: pd.DataFrame = _pandas().read_parquet(file, engine="pyarrow", use_threads=not small)
        return frame


class AnyFrame(KeyFileHandler):
    """Parquet where pyarrow is there, else CSV."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        if importlib.util.find_spec("pyarrow") is None:
            return {**PandasDataFrame.__dump_info__(ctx, value), "#type": "PandasDataFrame"}
        return {"#type": "ParquetPandasDataFrame", **ParquetPandasDataFrame.__dump_info__(ctx, value)}


registry.add_builtin(PandasDataFrame)
registry.add_builtin(ParquetPandasDataFrame)
registry.add_builtin(AnyFrame, "table", by_name=("pandas.DataFrame", "pandas.core.frame.DataFrame"))
