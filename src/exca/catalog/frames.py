"""The tasks of a folder as a DataFrame."""

import os
import typing as tp
from collections.abc import Sequence

from ..errors import MissingPackageError
from .rows import Row
from .select import Selection

if tp.TYPE_CHECKING:
    import pandas as pd


def table(
    folder: "str | os.PathLike[str] | Sequence[Row]", *, where: str | None = None, states: Sequence[str] = ()
) -> "pd.DataFrame":
    """Return parameters and results of a folder's tasks, one row each; nothing is imported and no pickle is loaded.

    Parameters
    ----------
    folder: path
        a cache folder, or one of a method
    where: str, optional
        a filter as the command line takes it: ``"rate > 5 and model.layers in [4, 8]"``
    states: sequence of str
        only tasks in one of these states

    Returns
    -------
    DataFrame
        columns ``id``, ``method``, ``state``, the fields of all configurations by dotted name, and what else is
        known with an underscore before it: ``_value``, ``_seconds``, ``_finished``...

    Raises
    ------
    NotADirectoryError
        if there is no such folder
    FilterError
        if the filter cannot be read
    MissingPackageError
        if pandas is not installed
    """
    try:
        import pandas as pd
    except ImportError as e:
        raise MissingPackageError(
            "exca.table makes a DataFrame and needs pandas: pip install 'exca[tables]'"
        ) from e
    if isinstance(folder, (str, os.PathLike)):
        rows: Sequence[Row] = Selection([os.fspath(folder)], where=where, states=list(states)).rows()
    else:
        rows = folder
    names = dict.fromkeys(name for row in rows for name in row.config)
    return pd.DataFrame(
        [
            {
                "id": row.id,
                "method": row.method,
                "state": row.state,
                **{name: row.config[name] if name in row.config else row.full.get(name) for name in names},
                **{f"_{name}": value for name, value in row.facts.items()},
            }
            for row in rows
        ]
    )
