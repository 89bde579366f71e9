"""From facts to HTML: the templates, and the report in one file."""

import base64
import functools
import hashlib
import importlib.resources
import typing as tp
from collections.abc import Callable, Sequence

from ..catalog.rows import STATES, amount
from ..errors import MissingPackageError
from . import charts, records
from .facts import Facts, Group, Nearest, Run, SweepFacts, run_facts

if tp.TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

MOST_DETAILS = 200  # runs whose details are in a report
_MOST_ERRORS = 50
_LOG_BYTES = 2048  # of each log in a report
_DETAILED_FIRST = {"running": 0, "interrupted": 0, "failed": 1, "damaged": 1}
_CELLS = {
    (False, False): "",
    (True, False): ' class="n"',
    (False, True): ' class="d"',
    (True, True): ' class="n d"',
}
_MOST_TEXT = 200  # characters of a value in the data for the script
_BITS = 64  # of the integers that are written as numbers, with their sign


@functools.cache
def environment() -> "jinja2.Environment":
    """The templates; whatever they show is escaped.

    Raises
    ------
    MissingPackageError
        if Jinja2 is not installed
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as e:
        raise MissingPackageError("pages are made with Jinja2: pip install 'exca[ui]'") from e
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("exca.pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    cell = {key: Markup(css) for key, css in _CELLS.items()}  # noqa: S704 # ours
    made.globals.update(known_states=frozenset(STATES), amount=amount, cell=cell)
    return made


def static(name: str) -> str:
    """A file of ours that pages need: ``pages.css`` or ``pages.js``."""
    return importlib.resources.files("exca.pages").joinpath("static", name).read_text(encoding="utf-8")


def as_data(content: tp.Any) -> "Markup":
    """JSON to be put into a script element: nothing in it ends that, or begins a comment."""
    import orjson
    from markupsafe import Markup

    try:
        text = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS, default=str).decode()
    except (
        TypeError
    ):  # an integer of more than 64 bits, for which a script has no number, or a lone surrogate
        text = orjson.dumps(_known_to_scripts(content), option=orjson.OPT_NON_STR_KEYS, default=str).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 # all that means something in HTML was replaced


def _known_to_scripts(value: tp.Any) -> tp.Any:
    if isinstance(value, int):
        return value if value.bit_length() < _BITS else str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_known_to_scripts(name): _known_to_scripts(part) for name, part in value.items()}
    return [_known_to_scripts(part) for part in value] if isinstance(value, (list, tuple)) else value


def group_data(group: Group, links: Sequence[str] = ()) -> dict[str, tp.Any]:
    """What the script sorts, filters and draws: the columns of a table with their values.

    With the addresses of all runs it is also enough to make their rows.
    """
    columns = []
    for column in group.columns:
        made: dict[str, tp.Any] = {"name": column.title, "role": column.role, "numeric": column.numeric}
        values = [v[:_MOST_TEXT] if isinstance(v, str) else v for v in column.values]
        if not column.numeric:
            known: dict[str, int] = {}
            made["index"] = [known.setdefault(text, len(known)) for text in column.texts]
            made["texts"] = list(known)
        else:
            made["values"] = values
            if links:
                made["texts"] = column.texts
        if links and column.defaults:
            made["defaults"] = "".join("01"[each] for each in column.defaults)
        columns.append(made)
    states = list(group.counts)
    data = {"columns": columns, "states": states, "state": [states.index(run.state) for run in group.runs]}
    return {**data, "links": list(links), "ids": [run.id for run in group.runs]} if links else data


def runs(
    group: Group, link: Callable[[Run], str], most: int | None = None, first: int = 0, *, named: bool = False
) -> "Markup":
    """The table of a method's runs, as ``runs.html`` makes it.

    Parameters
    ----------
    group: Group
        the runs
    link: callable
        gives the address of a run, or ""
    most: int, optional
        how many rows the page holds (default: all); the script makes the others when they are shown
    first: int
        the first of them, for a reader without the script
    named: bool
        whether the page names the method above it
    """
    rows = group.runs[first:] if most is None else group.runs[first : first + most]
    links = [] if len(rows) == len(group.runs) else [link(run) for run in group.runs]
    data = as_data({**group_data(group, links), "first": first})
    return _rendered("runs.html", group=group, rows=rows, first=first, link=link, data=data, named=named)


def run(of: Run, group: Group, nearest: Nearest | None = None, *, logs: int = _LOG_BYTES) -> "Markup":
    """All that is known of one run, as ``run.html`` makes it, with so many bytes of the ends of its logs."""
    facts = run_facts(of, group)
    if nearest is not None:
        facts = nearest.complete(facts)
    logged = records.curves(of.row)
    return _rendered(
        "run.html",
        facts=facts,
        logs=records.log_tail(of.row, logs) if logs else [],
        charts=[charts.curves(name, of.id, [(of.id, curve)]) for name, curve in [*logged.items()][:6]],
    )


def sweeps(of: Sequence[SweepFacts]) -> "Markup":
    """The sweeps of a folder, as ``sweeps.html`` makes them."""
    return _rendered("sweeps.html", sweeps=of)


def page(template: str, **values: tp.Any) -> "Markup":
    """A whole page that is served."""
    return _rendered(template, **values)


def escaped(text: str) -> "Markup":
    """A text in the place of HTML."""
    from markupsafe import escape

    return escape(text)


def _rendered(template: str, **values: tp.Any) -> "Markup":
    from markupsafe import Markup

    return Markup(environment().get_template(template).render(**values))  # noqa: S704 # by templates that escape


def report(facts: Facts, *, details: int = MOST_DETAILS, logs: bool = True) -> str:
    """A report as one HTML file that needs no other.

    Parameters
    ----------
    facts: Facts
        what it shows
    details: int
        of how many runs all that is known is shown
    logs: bool
        whether the ends of logs are shown

    Raises
    ------
    MissingPackageError
        if Jinja2 is not installed
    """
    from markupsafe import Markup

    from .. import __version__

    template = environment().get_template("report.html")
    every = [(each, group) for group in facts.groups for each in group.runs]
    every.sort(key=lambda pair: (_DETAILED_FIRST.get(pair[0].state, 2), -pair[0].row.when))
    chosen = every[:details]
    linked = {each.key for each, _ in chosen}

    def link(each: Run) -> str:
        return f"#run-{each.key}" if each.key in linked else ""

    nearest = {group.key: Nearest(group) for group in facts.groups if any(of is group for _, of in chosen)}
    shown = [
        {
            "run": each,
            "group": group,
            "html": run(each, group, nearest[group.key], logs=_LOG_BYTES if logs else 0),
        }
        for each, group in chosen
    ]
    style, script = Markup(static("pages.css")), Markup(static("pages.js"))  # noqa: S704 # files of ours
    return template.render(
        facts=facts,
        sweeps=sweeps(facts.sweeps) if facts.sweeps else "",
        sections=[_section(group, link) for group in facts.groups],
        details=shown,
        link=link,
        most_errors=_MOST_ERRORS,
        version=__version__,
        style=style,
        script=script,
        policy=policy(style, script),
    )


def _section(group: Group, link: Callable[[Run], str]) -> dict[str, tp.Any]:
    return {
        "group": group,
        "runs": runs(group, link),
        "used": group.used,
        "scatters": charts.scatters(group),
        "parallel": charts.parallel(group),
        "curves": charts.learning_curves(group),
    }


def policy(style: str, script: str) -> str:
    """What a page with this style and script in it may load and run: these, and nothing else."""

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    allowed = f"style-src {hashed(style)}; script-src {hashed(script)}"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
