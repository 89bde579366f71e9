"""How objects show themselves in notebooks: as small HTML, and progress that is updated in place.

All that is shown is escaped. Nothing is imported that a notebook has not imported already.
"""

import html
import importlib.util
import time
import typing as tp
from collections.abc import Iterable, Sequence

from . import _reloads

_WIDEST = 80  # characters of a cell
_MOST = 20  # rows of a table
_DELAY = 0.5  # seconds before a progress shows, so that what is done at once stays quiet
_EVERY = 0.2  # seconds between two updates


def text_of(value: object, most: int = _WIDEST) -> str:
    """A value in one line of so many characters at most, without control characters; not escaped."""
    text = str(value)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def escaped(value: object, most: int = _WIDEST) -> str:
    """The same, as HTML."""
    return html.escape(text_of(value, most))


def bundle(plain: str, shown: str | None) -> dict[str, str] | None:
    """What ``_repr_mimebundle_`` returns: text and HTML, None where there is no HTML."""
    return None if shown is None else {"text/plain": plain, "text/html": shown}


def card(title: object, *parts: str) -> str:
    """A title, and what is below it (HTML)."""
    below = "".join(parts)
    return f'<div class="exca"><p style="margin:0 0 .3em"><strong>{escaped(title, 200)}</strong></p>{below}</div>'


def line(text: object) -> str:
    """A line of text."""
    return f'<p style="margin:0 0 .3em">{escaped(text, 300)}</p>'


def pairs(of: Iterable[tuple[object, object]]) -> str:
    """Names and values."""
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left">{escaped(name)}</th>'
        f'<td style="text-align:left">{escaped(value, 300)}</td></tr>'
        for name, value in of
    )
    return f"<table>{rows}</table>" if rows else ""


def table(head: Sequence[object], rows: Sequence[Sequence[object]], caption: str) -> str:
    """A table with the first rows, and how many more there are."""
    if not rows:
        return ""
    top = "".join(f'<th scope="col" style="text-align:left">{escaped(name)}</th>' for name in head)
    cells = [[f'<td style="text-align:left">{escaped(cell)}</td>' for cell in row] for row in rows[:_MOST]]
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    more = line(f"and {len(rows) - _MOST:,} more") if len(rows) > _MOST else ""
    said = f'<caption style="text-align:left">{escaped(caption)}</caption>'
    return f"<table>{said}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{more}"


def meter(done: int, total: int, text: object) -> str:
    """A bar that shows how much is done, and the same in words."""
    said = escaped(text, 200)
    bar = f'<progress value="{done}" max="{max(total, 1)}" aria-label="{said}"></progress>'
    return f'<p style="margin:0 0 .3em">{bar} {said}</p>'


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    return getattr(_reloads.shell(), "kernel", None) is not None


class _Shown:
    """What a display holds at one moment."""

    def __init__(self, plain: str, shown: str) -> None:
        self._bundle = bundle(plain, shown)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str] | None:
        return self._bundle

    def __repr__(self) -> str:
        return "" if self._bundle is None else self._bundle["text/plain"]


class Meter:
    """Progress in a notebook without widgets: one output, which is updated when something changed.

    It has the methods of a bar of tqdm that are used here.
    """

    def __init__(self, total: int, desc: str, unit: str, *, leave: bool, delay: float) -> None:
        self._total, self._desc, self._unit, self._leave = total, desc, unit, leave
        self._done, self._note = 0, ""
        self._start = self._next = time.monotonic()
        self._next += max(delay, _DELAY)
        self._handle: tp.Any = None
        self._said = ""

    def update(self, count: int = 1) -> None:
        """Count what was done, and show it now and then."""
        self._done += count
        if time.monotonic() >= self._next:
            self._show()

    def set_postfix_str(self, text: str, refresh: bool = False) -> None:
        """Say something beside it."""
        self._note = text

    def close(self) -> None:
        """Show how it ended, where it was shown at all."""
        if self._handle is not None:
            self._show(gone=not self._leave)

    def __enter__(self) -> tp.Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show(self, *, gone: bool = False) -> None:
        import IPython.display  # there is a notebook, so it is loaded

        self._next = time.monotonic() + _EVERY
        said = "" if gone else self._text()
        if said == self._said:
            return
        self._said = said
        now = _Shown(said, meter(self._done, self._total, said) if said else "")
        if self._handle is None:
            display: tp.Any = IPython.display.display  # which has no types
            self._handle = display(now, display_id=True)
        else:
            self._handle.update(now)

    def _text(self) -> str:
        seconds = time.monotonic() - self._start
        left = self._total - self._done
        ahead = f", about {_duration(left * seconds / self._done)} left" if left and self._done else ""
        note = f", {self._note}" if self._note else ""
        return f"{self._desc}: {self._done:,} of {self._total:,} {self._unit}s done{note}{ahead}"


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def progress(total: int, desc: str, unit: str, *, leave: bool = True, delay: float = 0.0) -> tp.Any:
    """A progress for a notebook: with widgets where they are installed, else one output that is updated."""
    if importlib.util.find_spec("ipywidgets") is None:
        return Meter(total, desc, unit, leave=leave, delay=delay)
    import tqdm.notebook

    return tqdm.notebook.tqdm(total=total, desc=desc, unit=unit, leave=leave, delay=max(delay, _DELAY))
