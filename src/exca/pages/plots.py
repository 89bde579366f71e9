"""Pictures for papers and slides: results against parameters, drawn by matplotlib."""

import dataclasses
import os
import statistics
import typing as tp
import warnings
from collections.abc import Sequence

from ..catalog.rows import Row, is_number
from ..catalog.select import Selection
from ..errors import FilterError, MissingPackageError
from . import charts
from .facts import Column, groups_of, shortened

if tp.TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_RESULTS, _MOST_PARAMETERS, _ACROSS = 8, 9, 3
_WIDTH, _HEIGHT = 3.2, 2.6  # inches of one picture
_DOTS, _MEDIAN = "#2456c8", "#d9480f"
_NO_PARAMETERS = ("id", "method", "state")


@dataclasses.dataclass
class Panel:
    """What is drawn in one row: a result of a method, against its parameters."""

    name: str
    result: Column
    parameters: list[Column]


def plot(
    data: "pd.DataFrame | str | os.PathLike[str]",
    *,
    results: Sequence[str] = (),
    against: Sequence[str] = (),
    where: str | None = None,
) -> "Figure":
    """Draw results against parameters: a dot per run, and a line through the medians where values repeat.

    Parameters
    ----------
    data: DataFrame or path
        what `exca.table` returned, or a part of it; or a cache folder
    results: sequence of str
        names of results, ``value`` or those in a dict of results (default: all that are numbers)
    against: sequence of str
        names of parameters (default: those that vary)
    where: str, optional
        a filter for a folder, as the command line takes it

    Returns
    -------
    matplotlib.figure.Figure
        per result, up to three pictures side by side; ``figure.savefig("study.svg")`` writes it

    Raises
    ------
    FilterError
        if there is nothing to draw, or no result or parameter of a name
    MissingPackageError
        if matplotlib is not installed
    """
    if isinstance(data, (str, os.PathLike)):
        return plot_rows(Selection([os.fspath(data)], where=where).rows(), results, against)
    return _figure(_panels(_of_frame(data), results, against))


def plot_rows(rows: Sequence[Row], results: Sequence[str] = (), against: Sequence[str] = ()) -> "Figure":
    """Draw the results of rows, as `plot` does."""
    groups = [(group.name, group.of_role("parameter", "result")) for group in groups_of(rows)]
    return _figure(_panels(groups, results, against))


def save(figure: "Figure", path: str) -> None:
    """Write a picture in the format that the ending of its name tells.

    Raises ValueError where there is no such format.
    """
    formats = figure.canvas.get_supported_filetypes()
    ending = path.rpartition(".")[2].lower()
    if ending not in formats:
        raise ValueError(
            f"{path} ends in no format that can be drawn: give it one of .{', .'.join(sorted(formats))}"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names may be in any script
        figure.savefig(path, dpi=160)


def _of_frame(frame: "pd.DataFrame") -> list[tuple[str, list[Column]]]:
    """The columns of a table by method; what has an underscore before it and is no result is left out."""
    methods = [str(each) for each in frame["method"]] if "method" in frame else [""] * len(frame)
    found = []
    for method in dict.fromkeys(methods):
        at = [k for k, each in enumerate(methods) if each == method]
        columns = []
        for name in map(str, frame.columns):
            is_result = name == "_value" or name.startswith("_value.")
            if name in _NO_PARAMETERS or (name.startswith("_") and not is_result):
                continue
            values = [_plain(value) for value in frame[name].iloc[at].tolist()]
            texts = ["" if value is None else shortened(value) for value in values]
            columns.append(
                Column(name.removeprefix("_"), "result" if is_result else "parameter", values, texts)
            )
        found.append((shortened(method.rpartition("/")[2].partition(",")[0]), columns))
    return found


def _plain(value: tp.Any) -> tp.Any:
    """A value as a row has it: what is missing is None."""
    return None if isinstance(value, float) and not is_number(value) else value


def _panels(
    groups: Sequence[tuple[str, list[Column]]], results: Sequence[str], against: Sequence[str]
) -> list[Panel]:
    known = [column for _, columns in groups for column in columns]
    for wanted, role in ((results, "result"), (against, "parameter")):
        there = sorted({column.title for column in known if column.role == role})
        for name in wanted:
            if not any(_is_called(column, name) for column in known if column.role == role):
                raise FilterError(f"there is no {role} {name!r}: there are {', '.join(there) or 'none'}")
    found = []
    for name, columns in groups:
        drawn = [c for c in columns if c.role == "result" and sum(v is not None for v in c.numbers()) > 1]
        drawn = [c for c in drawn if not results or any(_is_called(c, each) for each in results)]
        parameters = charts.drawable(columns)
        if against:
            parameters = [c for each in against for c in parameters if _is_called(c, each)]
        if parameters:
            found += [Panel(name, result, parameters[:_MOST_PARAMETERS]) for result in drawn]
    if not found:
        raise FilterError(
            "there is nothing to draw: it takes results that are numbers (or dicts of them) and a parameter that varies"
        )
    return found[:_MOST_RESULTS]


def _is_called(column: Column, name: str) -> bool:
    return name in (column.name, column.title, column.name.rpartition(".")[2])


def _figure(panels: Sequence[Panel]) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise MissingPackageError("exca.plot draws with matplotlib: pip install 'exca[plot]'") from e
    rows = [
        (panel, panel.parameters[k : k + _ACROSS], k == 0)
        for panel in panels
        for k in range(0, len(panel.parameters), _ACROSS)
    ]
    across = max(len(parameters) for _, parameters, _ in rows)
    figure = Figure(figsize=(_WIDTH * across, _HEIGHT * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), across, squeeze=False)
    several = len({panel.name for panel in panels}) > 1
    for (panel, parameters, first), row in zip(rows, axes, strict=True):
        for n, ax in enumerate(row):
            if n < len(parameters):
                _draw(ax, parameters[n], panel.result)
            else:
                ax.set_axis_off()
        row[0].set_ylabel(panel.result.title, parse_math=False)
        if several and first:
            row[0].set_title(panel.name, loc="left", fontsize="small", parse_math=False)
    return figure


def _draw(ax: "Axes", parameter: Column, result: Column) -> None:
    """One result against one parameter."""
    numbers, values = parameter.numbers(), result.numbers()
    scaled = charts.is_scale(parameter)
    there = [(k, v) for k, v in enumerate(values) if v is not None and (not scaled or numbers[k] is not None)]
    names = sorted({parameter.texts[k] or "none" for k, _ in there})
    places = [
        (numbers[k] or 0.0) if scaled else float(names.index(parameter.texts[k] or "none")) for k, _ in there
    ]
    heights = [value for _, value in there]
    ax.plot(places, heights, "o", color=_DOTS, alpha=0.55, markersize=4, markeredgewidth=0)
    by_place: dict[float, list[float]] = {}
    for place, height in zip(places, heights, strict=True):
        by_place.setdefault(place, []).append(height)
    if 1 < len(by_place) <= len(there) / 2:
        medians = [statistics.median(by_place[place]) for place in sorted(by_place)]
        ax.plot(sorted(by_place), medians, "-", color=_MEDIAN, linewidth=1.4)
    if not scaled:
        ax.set_xticks(range(len(names)), [shortened(name, 14) for name in names])
        for label in ax.get_xticklabels():
            label.set_parse_math(False)
        ax.set_xlim(-0.5, len(names) - 0.5)
    elif charts.is_logarithmic(places):
        ax.set_xscale("log")
    if charts.is_logarithmic(heights):
        ax.set_yscale("log")
    ax.set_xlabel(parameter.title, parse_math=False)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", alpha=0.25)
