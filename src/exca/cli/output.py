"""Tables for people and for programs: only what differs is a column, what all rows share is said once."""

import contextlib
import csv
import io
import json
import math
import operator
import os
import re
import shlex
import shutil
import subprocess
import sys
import typing as tp
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..catalog.rows import Row, printable, text_of

_COLOURS = {
    "completed": "32",
    "failed": "31",
    "damaged": "31",
    "interrupted": "33",
    "pruned": "33",
    "unknown": "33",
    "running": "36",
    "shared": "2",
}
_RESET = "0"
_WIDEST = 40  # characters of a cell


class Column(tp.NamedTuple):
    """A column of a table."""

    name: str
    value: Callable[[tp.Any], tp.Any]  # of a row, or another record; None where it has none
    text: Callable[[tp.Any], str] = text_of


def config_column(name: str) -> Column:
    """The column of a field of the configuration: where it is at its default, that."""
    return Column(name, lambda row: row.config[name] if name in row.config else row.full.get(name))


class Output:
    """Where a command writes to: a terminal with colours, or plain text."""

    def __init__(self, stream: tp.TextIO | None = None) -> None:
        self.stream: tp.TextIO = sys.stdout if stream is None else stream
        self.terminal: bool = self.stream.isatty()
        self.colours: bool = (
            self.terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        )
        # before the colours of ours: a text of others cannot know it
        self._mark: str = f"\x1b{os.urandom(4).hex()}["
        self.width: int | None = shutil.get_terminal_size((100, 24)).columns if self.terminal else None

    def coloured(self, text: str, kind: str) -> str:
        """A text in the colour of its kind, where there are colours."""
        colour = _COLOURS.get(kind)
        return f"{self._mark}{colour}m{text}{self._mark}{_RESET}m" if self.colours and colour else text

    def shown(self, line: str) -> str:
        """A line as it may go to a terminal: of all that moves a cursor, it holds only colours of ours."""
        if line.isprintable():
            return line
        first, *rest = line.split(self._mark)
        parts = [printable(first)]
        for part in rest:
            colour, _, text = part.partition("m")
            parts.append(f"\x1b[{colour}m{printable(text)}")
        return "".join(parts)

    def write(self, lines: Iterable[str]) -> None:
        """Write lines; through a pager where they do not fit on the terminal."""
        text = "".join(f"{self.shown(line)}\n" for line in lines)
        if self.terminal and text.count("\n") >= shutil.get_terminal_size().lines:
            pager = os.environ.get("PAGER") or shutil.which("less")
            if pager:
                env = {"LESS": "FRX", **os.environ}
                # a pager that is not there, or not closed quotes
                with contextlib.suppress(OSError, ValueError):
                    subprocess.run(
                        shlex.split(pager), input=text.encode(errors="backslashreplace"), env=env, check=False
                    )
                    return
        self.stream.write(text)

    def table(self, rows: Sequence[Row], columns: Sequence[Column], indent: str = "  ") -> list[str]:
        """Lines of a table; columns that do not fit are left out, and the last line says which."""
        names = [shortened(column.name) for column in columns]
        cells = [[_cell(column, row) for column in columns] for row in rows]
        widths = [max(_width(name), *(_width(line[k]) for line in cells), 1) for k, name in enumerate(names)]
        shown = self._fitting(widths, len(indent))
        right = [
            k
            for k in shown
            if all(isinstance(v, (int, float, type(None))) for v in map(columns[k].value, rows))
        ]
        lines = []
        for line in [names, *cells]:
            parts = [_padded(line[k], widths[k], right=k in right) for k in shown]
            lines.append((indent + "  ".join(parts)).rstrip())
        lines[0] = self.coloured(lines[0], "shared")
        for k, row in enumerate(rows, 1):
            lines[k] = lines[k].replace(f" {row.state} ", f" {self.coloured(row.state, row.state)} ", 1)
        left = [name for k, name in enumerate(names) if k not in shown]
        if left:
            lines.append(f"{indent}not shown, for want of width: {', '.join(left)}")
        return lines

    def _fitting(self, widths: list[int], indent: int) -> list[int]:
        if self.width is None:
            return list(range(len(widths)))
        shown: list[int] = []
        used = indent
        for k, width in enumerate(widths):
            if used + width <= self.width or not shown:
                shown.append(k)
                used += width + 2
        return shown


def _cell(column: Column, row: Row) -> str:
    value = column.value(row)
    return shortened("-" if value is None else column.text(value))


def shortened(text: str, most: int = _WIDEST) -> str:
    """A text of so many characters at the most, in one line."""
    text = printable(text[: 2 * most])
    return text if _width(text) <= most else text[: most - 1] + "…"


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def as_json(rows: Sequence[Row]) -> str:
    """All rows as a JSON array."""
    return json_text([row.to_json() for row in rows])


def json_text(value: tp.Any) -> str:
    """A value as JSON, which any parser reads and no terminal obeys: numbers that JSON has not are their names."""
    shows_all = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(_finite(value), default=str, ensure_ascii=not shows_all, indent=1, allow_nan=False)
    if text.isascii():
        return text.replace("\x7f", "\\u007f")
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _finite(value: tp.Any) -> tp.Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, (list, tuple)) else value


def as_text(kind: str, records: Sequence[Mapping[str, tp.Any]], whole: tp.Any = None) -> str:
    """Records as ``json``, ``csv`` or ``md``; ``whole`` is what JSON shows instead of them."""
    if kind == "json":
        return json_text(records if whole is None else whole)
    names = dict.fromkeys(name for record in records for name in record)
    columns = [Column(name, operator.methodcaller("get", name)) for name in names]
    return as_csv(records, columns) if kind == "csv" else as_markdown(records, columns)


def as_csv(rows: Sequence[tp.Any], columns: Sequence[Column]) -> str:
    """All rows as CSV, with the values as they are. A text that a spreadsheet would take for a formula is quoted."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_raw(column.name) for column in columns])
    for row in rows:
        writer.writerow([_raw(column.value(row)) for column in columns])
    return out.getvalue().rstrip("\n")


def _raw(value: tp.Any) -> tp.Any:
    if isinstance(value, (list, dict)):
        value = json.dumps(_finite(value), default=str, ensure_ascii=False)
    if not isinstance(value, str):
        return value
    text = "\n".join(map(printable, value.split("\n")))
    return f"'{text}" if value[:1] in _FORMULA and not _NUMBER.fullmatch(value) else text


_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]inf")


def as_markdown(rows: Sequence[tp.Any], columns: Sequence[Column]) -> str:
    """All rows as a Markdown table."""
    cells = [[_cell(column, row) for column in columns] for row in rows]
    head, *lines = (
        [_MARKUP.sub(r"\\\g<0>", text) for text in line]
        for line in [[shortened(c.name) for c in columns], *cells]
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


_MARKUP = re.compile(r"[\\|<`\[*]")
