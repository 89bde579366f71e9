"""The moment at which code in memory may last have changed.

Even to ask for a digest of code takes longer than to return what is kept in memory. So `now` is another object as soon
as a module is reloaded or a cell is begun, and a hit in memory compares no more than that. What is typed at a prompt is
seen by nothing: there, each hit asks.
"""

import sys
import time
import typing as tp

now: object = object()  # another one each time that code in memory may change
_SETTLING = 1.0  # seconds in which a module is read, or a cell defines functions, after it was announced
_changed: float = -_SETTLING
_watched: "list[_Reloads]" = []


def shell() -> tp.Any:
    """The notebook or prompt of IPython, if this process has one."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


class _Reloads:
    """A finder that finds nothing: it is asked, with the module, when one is reloaded."""

    def find_spec(self, name: str, path: tp.Any = None, target: tp.Any = None) -> None:
        if target is not None:
            code_changes()


def code_changes(*_: tp.Any) -> None:
    """Have what is kept in memory compared again."""
    global now, _changed  # what all hits compare
    now, _changed = object(), time.monotonic()


def believed() -> object:
    """What `now` is as long as the code in memory is that of this moment; what it never is where that is not known."""
    if not _watched:
        _watched.append(_Reloads())
        sys.meta_path.insert(0, tp.cast(tp.Any, _watched[0]))
        notebook = shell()
        if notebook is not None:
            notebook.events.register("pre_run_cell", code_changes)
    typed = hasattr(sys, "ps1") or not hasattr(sys.modules.get("__main__"), "__file__")
    if (typed and shell() is None) or time.monotonic() - _changed < _SETTLING:
        return None
    return now
