"""What the published releases held about their registries in SQLite; claims took their place."""

import typing as tp
from pathlib import Path

from ..claims import Claims

if tp.TYPE_CHECKING:
    import sqlite3

QUERY_BATCH_SIZE = 500


class AdvisoryRegistry:
    """What was known of the keys of a folder.

    Parameters
    ----------
    folder: Path or str
        the folder
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder: Path = Path(folder)
        self.claims: Claims = Claims(self.folder)

    def close(self) -> None:
        """Release what is held."""

    def __enter__(self) -> "tp.Self":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def select_in_chunks(
    conn: "sqlite3.Connection",
    table: str,
    columns: tp.Sequence[str],
    where_column: str,
    values: list[str],
) -> list[tp.Any]:
    """Select the rows whose column holds one of many values.

    Parameters
    ----------
    conn: sqlite3.Connection
        the database
    table: str
        name of the table
    columns: sequence of str
        names of the columns to return
    where_column: str
        name of the column that is compared
    values: list of str
        what it may hold

    Returns
    -------
    list
        the rows
    """
    rows: list[tp.Any] = []
    for start in range(0, len(values), QUERY_BATCH_SIZE):
        some = values[start : start + QUERY_BATCH_SIZE]
        marks = ", ".join("?" * len(some))
        query = f"SELECT {', '.join(columns)} FROM {table} WHERE {where_column} IN ({marks})"  # noqa: S608 # names from the caller's code
        rows += conn.execute(query, some).fetchall()
    return rows
