"""Charts as plain data: axes, lines as SVG paths, and the same numbers as a table. No HTML in it."""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence

from . import records
from .facts import Column, Group, shortened
from .records import Curve

_WIDTH, _HEIGHT = 320, 220  # of one small chart
_WIDE, _LOW = 900, 300  # of one over all parameters
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 34  # margins
MOST_PARAMETERS, MOST_RESULTS = 6, 3
_MOST_CATEGORIES = 12
_MOST_AXES = 9
_MOST_LINES = 600  # runs in parallel coordinates
_MOST_CURVES, _MOST_POINTS = 40, 120
_MANY = 300  # dots that hide one another
_FEW, _APART = 6, 22  # values that are marks of an axis themselves, and how far they are apart at least
_SHADES = 5  # of results, from low to high
_LOGARITHMIC = 50  # ratio from which on an axis of positive numbers is


@dataclasses.dataclass(slots=True)
class Tick:
    """A mark on an axis: where (in units of the picture), and its text."""

    at: float
    text: str


@dataclasses.dataclass(slots=True)
class Line:
    """Something that is drawn: an SVG path, what it is, and what it shows."""

    path: str
    kind: str
    title: str = ""


@dataclasses.dataclass(slots=True)
class Chart:
    """One picture and its numbers.

    Parameters
    ----------
    kind: str
        ``scatter``, ``parallel`` or ``curves``
    title, of, x, y: str
        what it shows, of which method or run, and its axes
    width, height: float
        of the picture
    x_ticks, y_ticks: list of Tick
        marks; in parallel coordinates ``x_ticks`` are the axes, and ``y_ticks`` is empty
    marks: list of (x, y, text)
        texts on the axes of parallel coordinates
    lines: list of Line
        what is drawn
    head, body: list
        the numbers as a table
    note: str
        what is left out
    shaded: str
        what the shades of the lines tell; "" where there is none
    """

    kind: str
    title: str
    of: str
    x: str
    y: str
    width: float
    height: float
    x_ticks: list[Tick] = dataclasses.field(default_factory=list)
    y_ticks: list[Tick] = dataclasses.field(default_factory=list)
    marks: list[tuple[float, float, str]] = dataclasses.field(default_factory=list)
    lines: list[Line] = dataclasses.field(default_factory=list)
    head: list[str] = dataclasses.field(default_factory=list)
    body: list[list[str]] = dataclasses.field(default_factory=list)
    note: str = ""
    shaded: str = ""

    @property
    def left(self) -> float:
        """Where the area of the data begins."""
        return _LEFT

    @property
    def right(self) -> float:
        """Where it ends."""
        return self.width - _RIGHT

    @property
    def top(self) -> float:
        """Its upper edge."""
        return _TOP

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.height - _BOTTOM


# ---------------------------------------------------------------- scales


class Scale:
    """From values to places between two ends: linear, logarithmic, or one place per category."""

    def __init__(self, values: Sequence[float], start: float, end: float, *, marked: bool = True) -> None:
        low, high = min(values), max(values)
        self._few: list[float] = sorted({*values}) if marked and len({*values}) <= _FEW else []
        self.logarithmic: bool = is_logarithmic([low, high])
        if low == high:
            room = abs(low) * 0.1 or 1.0
            low, high = low - room, high + room
        if self.logarithmic:
            low, high = math.log10(low), math.log10(high)
        room = (high - low) * 0.04
        self._low, self._high, self._start, self._end = low - room, high + room, start, end

    def __call__(self, value: float) -> float:
        """The place of a value."""
        at = math.log10(value) if self.logarithmic else value
        return self._start + (at - self._low) / (self._high - self._low) * (self._end - self._start)

    def ticks(self, most: int = 5) -> list[Tick]:
        """Round values with their places, or the values themselves where they are few and apart."""
        few = [Tick(self(value), f"{value:.6g}") for value in self._few]
        if few and all(abs(a.at - b.at) >= _APART for a, b in itertools.pairwise(few)):
            return few
        if self.logarithmic:
            first, last = math.ceil(self._low), math.floor(self._high)
            if last - first >= 1:
                every = max(1, math.ceil((last - first) / most))
                return [Tick(self(10.0**p), f"{10.0**p:g}") for p in range(first, last + 1, every)]
            low, high = 10.0**self._low, 10.0**self._high
        else:
            low, high = self._low, self._high
        step = nice(high - low, most)
        places = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
        return [Tick(self(v), f"{v:.6g}") for v in places if v > 0 or not self.logarithmic]


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether values are shown best on a logarithmic scale."""
    return bool(values) and min(values) > 0 and max(values) / min(values) >= _LOGARITHMIC


class Categories:
    """From texts to places between two ends."""

    def __init__(self, texts: Sequence[str], start: float, end: float) -> None:
        self.names: list[str] = list(dict.fromkeys(texts))
        self._start, self._step = start, (end - start) / max(1, len(self.names))
        self._at = {name: k for k, name in enumerate(self.names)}

    def __call__(self, text: str) -> float:
        """The place of a text."""
        return self._start + (self._at[text] + 0.5) * self._step

    def ticks(self) -> list[Tick]:
        """All of them with their places."""
        return [Tick(self(name), shortened(name, 10 if len(self.names) > 4 else 14)) for name in self.names]


def nice(span: float, most: int) -> float:
    """A step of 1, 2 or 5 times a power of ten that divides a span into at most so many parts."""
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _dots(points: Sequence[tuple[float, float]]) -> str:
    """A path of dots: lines without length, which round ends make visible."""
    return "".join(f"M{_number(x)} {_number(y)}h0" for x, y in points)


def _polyline(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points)


# ---------------------------------------------------------------- results against parameters


def results_of(group: Group) -> list[Column]:
    """The results that are numbers."""
    return [each for each in group.of_role("result") if sum(v is not None for v in each.numbers()) > 1][
        :MOST_RESULTS
    ]


def drawable(columns: Sequence[Column]) -> list[Column]:
    """The parameters that vary, and can be drawn: numbers, or few texts; seeds, which tell the least, are last."""
    found = [column for column in columns if column.role == "parameter" and column.distinct > 1]
    found = [column for column in found if is_scale(column) or column.distinct <= _MOST_CATEGORIES]
    return sorted(found, key=lambda column: column.name.endswith("seed"))


def is_scale(column: Column) -> bool:
    """Whether its values have places on a scale: numbers, of which there are more than two."""
    return column.numeric and column.distinct > 2


def scatters(group: Group) -> list[Chart]:
    """Each result against each parameter."""
    return [
        chart
        for result in results_of(group)
        for parameter in drawable(group.columns)[:MOST_PARAMETERS]
        if (chart := scatter(group, parameter, result)) is not None
    ]


def scatter(group: Group, parameter: Column, result: Column) -> Chart | None:
    """A result against one parameter: a dot per run, and a line through the medians where values repeat."""
    there = [
        (k, value)
        for k, value in enumerate(result.numbers())
        if value is not None and (parameter.values[k] is not None or not is_scale(parameter))
    ]
    if len(there) < 2:
        return None
    chart = Chart(
        "scatter",
        f"{result.title} against {parameter.title}",
        group.name,
        parameter.title,
        result.title,
        _WIDTH,
        _HEIGHT,
    )
    vertical = Scale([value for _, value in there], chart.bottom, chart.top)
    groups: dict[str, list[float]] = {}
    places: dict[str, float] = {}
    order: dict[str, float] = {}
    texts = [text or "-" for text in parameter.texts]
    if is_scale(parameter):
        numbers = parameter.numbers()
        scale = Scale([n for k, _ in there if (n := numbers[k]) is not None], chart.left, chart.right)
        chart.x_ticks = scale.ticks(4)
        for k, _ in there:
            number = numbers[k] or 0.0
            places[texts[k]], order[texts[k]] = scale(number), number
    else:
        categories = Categories(sorted(texts[k] for k, _ in there), chart.left, chart.right)
        chart.x_ticks = categories.ticks()
        for k, _ in there:
            places[texts[k]], order[texts[k]] = categories(texts[k]), len(order)
    for k, value in there:
        groups.setdefault(texts[k], []).append(value)
    chart.y_ticks = vertical.ticks(7)
    kind = "dots" if len(there) <= _MANY else "dots many"
    chart.lines.append(Line(_dots([(places[texts[k]], vertical(value)) for k, value in there]), kind))
    ordered = sorted(groups, key=lambda text: places[text])
    if 1 < len(ordered) <= len(there) / 2:
        medians = [(places[text], vertical(statistics.median(groups[text]))) for text in ordered]
        chart.lines.append(Line(_polyline(medians), "median", "median"))
    chart.head = [parameter.title, "runs", "lowest", "median", "highest"]
    chart.body = _summarised(ordered, order, groups) if is_scale(parameter) else _rows_of(ordered, groups)
    return chart


def _rows_of(ordered: Sequence[str], groups: dict[str, list[float]]) -> list[list[str]]:
    return [[text, *_five(groups[text])] for text in ordered]


def _five(values: Sequence[float]) -> list[str]:
    return [str(len(values)), f"{min(values):.4g}", f"{statistics.median(values):.4g}", f"{max(values):.4g}"]


def _summarised(
    ordered: Sequence[str], order: dict[str, float], groups: dict[str, list[float]]
) -> list[list[str]]:
    """A line per value of a parameter, or per range where there are many values."""
    if len(ordered) <= _MOST_CATEGORIES:
        return _rows_of(ordered, groups)
    size = math.ceil(len(ordered) / 8)
    rows = []
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        values = [value for text in part for value in groups[text]]
        rows.append([f"{order[part[0]]:.4g} to {order[part[-1]]:.4g}", *_five(values)])
    return rows


# ---------------------------------------------------------------- parallel coordinates


def shades(values: Sequence[float]) -> list[int]:
    """Which fifth each value belongs to, from low to high."""
    ordered = sorted(values)
    bounds = [ordered[min(len(ordered) - 1, len(ordered) * k // _SHADES)] for k in range(1, _SHADES)]
    return [sum(value >= bound > ordered[0] for bound in bounds) for value in values]


def parallel(group: Group) -> Chart | None:
    """One line per run through all parameters to the first result, shaded by it."""
    results, parameters = results_of(group), drawable(group.columns)[: _MOST_AXES - 1]
    if not results or len(parameters) < 2:
        return None
    result = results[0]
    numbers = result.numbers()
    there = [k for k, value in enumerate(numbers) if value is not None]
    if len(there) < 3:
        return None
    chart = Chart("parallel", f"All parameters and {result.title}", group.name, "", "", _WIDE, _LOW)
    if len(there) > _MOST_LINES:  # as many from all of the range
        by_value = sorted(there, key=lambda k: numbers[k] or 0.0)
        shown = [by_value[i * (len(by_value) - 1) // (_MOST_LINES - 1)] for i in range(_MOST_LINES)]
        chart.note = (
            f"{_MOST_LINES:,} of {len(there):,} runs, evenly from the lowest to the highest {result.title}"
        )
        there = sorted(shown)
    axes = [*parameters, result]
    heights: list[list[float]] = []
    for n, column in enumerate(axes):
        x = 40 + n * (_WIDE - 110) / (len(axes) - 1)
        chart.x_ticks.append(Tick(x, shortened(column.title, 18)))
        if column is result or is_scale(column):
            values = column.numbers()
            known = [v for k in there if (v := values[k]) is not None]
            gaps = len(known) < len(there)  # runs of another kind of model, which have no such field
            scale = Scale(known or [0.0], _LOW - (50 if gaps else 20), 40)
            heights.append([_LOW - 20 if (v := values[k]) is None else scale(v) for k in there])
            chart.marks += [(x, tick.at, tick.text) for tick in scale.ticks(4)]
            chart.marks += [(x, _LOW - 20, "none")] if gaps else []
        else:
            texts = [text or "none" for text in column.texts]
            categories = Categories(sorted(texts[k] for k in there), _LOW - 20, 40)
            heights.append([categories(texts[k]) for k in there])
            chart.marks += [(x, tick.at, tick.text) for tick in categories.ticks()]
    drawn: list[list[str]] = [[] for _ in range(_SHADES)]
    for i, shade in enumerate(shades([numbers[k] or 0.0 for k in there])):
        points = [(tick.at, heights[n][i]) for n, tick in enumerate(chart.x_ticks)]
        drawn[shade].append(_polyline(points))
    chart.lines = [Line("".join(paths), f"shade{n}") for n, paths in enumerate(drawn) if paths]
    chart.shaded = result.title
    chart.head = ["run", *(column.title for column in axes)]
    best = sorted(there, key=lambda k: numbers[k] or 0.0)
    ends = best if len(best) <= 10 else [*best[:5], *best[-5:]]
    chart.body = [[group.runs[k].id, *(column.texts[k] or "-" for column in axes)] for k in ends]
    return chart


# ---------------------------------------------------------------- learning curves


def learning_curves(group: Group) -> list[Chart]:
    """One chart per metric that the runs logged, one line per run."""
    logged = [run for run in group.runs if records.has_metrics(run.row)]
    shown: list[tuple[str, dict[str, Curve]]] = []
    for run in logged[:_MOST_CURVES]:
        found = records.curves(run.row)
        if found:
            shown.append((run.id, found))
    names = dict.fromkeys(name for _, found in shown for name in found)
    note = (
        f"the latest {len(shown):,} of {len(logged):,} runs that logged numbers"
        if len(logged) > len(shown)
        else ""
    )
    return [
        curves(name, group.name, [(run, found[name]) for run, found in shown if name in found], note)
        for name in [*names][:8]
    ]


def curves(name: str, of: str, of_runs: Sequence[tuple[str, Curve]], note: str = "") -> Chart:
    """One metric over the steps, one line per run, shaded by its last value."""
    chart = Chart("curves", f"{shortened(name)} by step", of, "step", shortened(name), 440, 250, note=note)
    steps = [step for _, curve in of_runs for step, _ in (curve[0], curve[-1])]
    horizontal = Scale(steps, chart.left, chart.right, marked=False)
    if horizontal.logarithmic:
        horizontal = Scale([0.0, *steps], chart.left, chart.right, marked=False)
    vertical = Scale([value for _, curve in of_runs for _, value in curve], chart.bottom, chart.top)
    chart.x_ticks, chart.y_ticks = horizontal.ticks(), vertical.ticks(7)
    for (run, curve), shade in zip(of_runs, shades([curve[-1][1] for _, curve in of_runs]), strict=True):
        points = [(horizontal(step), vertical(value)) for step, value in _thinned(curve)]
        path = _polyline(points) if len(points) > 1 else _dots(points)
        chart.lines.append(Line(path, f"shade{shade}" if len(points) > 1 else f"dots shade{shade}", run))
    chart.shaded = "its last value" if len(of_runs) > 1 else ""
    chart.head = ["run", "steps", "first", "lowest", "highest", "last"]
    for run, curve in of_runs:
        values = [value for _, value in curve]
        figures = (values[0], min(values), max(values), values[-1])
        chart.body.append([run, str(len(curve)), *(f"{value:.4g}" for value in figures)])
    return chart


def _thinned(curve: Curve) -> Curve:
    """At most so many points, the first and the last among them."""
    if len(curve) <= _MOST_POINTS:
        return curve
    return [curve[k * (len(curve) - 1) // (_MOST_POINTS - 1)] for k in range(_MOST_POINTS)]
