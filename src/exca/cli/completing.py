"""The command completion: scripts with which shells complete what is typed, and the names that they ask for."""

import argparse
import importlib.util
import os
import re
import typing as tp
from collections.abc import Iterator

from ..errors import MissingPackageError

# Shells expand the words that they are given, so nothing is one that could be more than a name.
_WORD = re.compile(r"[\w.,:@+-]{1,200}")
_MOST = 2000  # tasks
# zsh would run a command in the script when it is loaded, once per option, and ask for no names later
_FOR_ZSH = """_exca_{what}() {{
  compadd "$@" -- ${{(f)"$(exca completion {what} 2> /dev/null)"}}
}}
"""


def completion(options: argparse.Namespace) -> int:
    """Print the script of a shell, or names for it."""
    if options.what in _NAMES:
        for word in dict.fromkeys(_NAMES[options.what](options.folder)):
            if _WORD.fullmatch(word):
                print(word)
        return 0
    if importlib.util.find_spec("shtab") is None:
        raise MissingPackageError("exca completion writes scripts with shtab: pip install 'exca[completion]'")
    import shtab

    from .commandline import parser

    top = parser()
    for action in _actions(top):
        _complete(action)
        if isinstance(action.metavar, str):
            action.metavar = action.metavar.replace(":", " ")  # which ends a part of what zsh reads
    functions = "".join(_FOR_ZSH.format(what=what) for what in _NAMES)
    print(shtab.complete(top, options.what, preamble=functions if options.what == "zsh" else ""))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)


def _complete(action: argparse.Action) -> None:
    import shtab

    found: tp.Any = None
    if action.dest in ("names", "task"):
        found = _names("tasks")
    elif action.dest in ("sweep", "keep"):
        found = _names("sweeps")
    elif action.dest == "state":
        found = _names("states")
    elif action.dest == "folder":
        found = shtab.DIRECTORY
    elif action.dest in ("output", "archive", "file", "bundle", "what", "arguments") and not action.choices:
        found = shtab.FILE
    if found is not None:
        action.complete = found  # type: ignore[attr-defined] # an attribute that shtab looks for


def _names(what: str) -> dict[str, tp.Any]:
    """How shells ask for names when a key is pressed."""
    import shtab

    return {**shtab.cmd(f"exca completion {what} 2> /dev/null"), "zsh": f"_exca_{what}"}


def _tasks(folder: str) -> Iterator[str]:
    from ..catalog import scan

    rows = sorted(scan.rows(folder), key=lambda row: -row.when)
    for row in rows[:_MOST]:
        yield row.id
    for row in rows:
        yield row.method.rpartition("/")[2].rpartition(",")[0]


def _sweeps(folder: str) -> Iterator[str]:
    from ..catalog.sweeps import FOLDER

    try:
        names = sorted(os.listdir(f"{folder}/{FOLDER}"))
    except OSError:
        return
    for name in names:
        stem, ending = os.path.splitext(name)
        if ending == ".json":
            yield stem


def _states(folder: str) -> Iterator[str]:
    from ..catalog.rows import STATES

    yield from STATES


_NAMES = {"tasks": _tasks, "sweeps": _sweeps, "states": _states}
