"""Helpers for the tests of packages that build on steps."""

import typing as tp
from pathlib import Path

from .._earlier import earlier_names


def extract_cache_folders(folder: Path | str) -> tuple[str, ...]:
    """Return the folders below a folder that hold results.

    Parameters
    ----------
    folder: Path or str
        folder of an infra

    Returns
    -------
    tuple of str
        sorted, relative to the folder: those with a folder ``cache`` in it
    """
    folder = Path(folder)
    return tuple(
        sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("cache") if path.is_dir())
    )


if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
