"""The commands that make the objects of tasks again, from what their folders say: retry, shell, accept."""

import argparse
import importlib.util
import math
import os
import sys
import typing as tp
from collections.abc import Sequence
from pathlib import Path

import pydantic

from .. import _trust
from ..catalog.rows import Row, printable
from ..catalog.select import one
from ..errors import NoSuchTaskError, TargetError
from ..identity import configfolder
from .commandline import FAILED
from .configuring import Target, target
from .output import Output
from .overrides import parse
from .sweeping import wait_for
from .tasks import selection


def target_of(row: Row, named: str | None) -> Target:
    """The method of a task, imported: what the command line names, or what its folder does.

    Raises
    ------
    TargetError
        if it cannot be imported, or another user may have written the folder that names it
    """
    if not os.path.lexists(f"{row.folder}/{configfolder.CONFIG}"):
        raise TargetError(
            f"{row.folder} has no {configfolder.CONFIG}, from which its object would be made again: it was imported "
            "without --trust, or it is no folder of a configuration"
        )
    if named is not None:
        return target(named)
    full = row.method.rpartition("/")[2].rpartition(",")[0]
    *path, method = full.split(".")
    if path and path[0] == "__main__":
        raise TargetError(
            f"{full} is of a script, which cannot be imported: name it, as in --task train.py:Train.{method}"
        )
    if not _trust.is_trusted(Path(row.folder)):
        raise TargetError(
            f"another user may have written {row.folder}, so the module that it names is not imported: name it "
            f"yourself, as in --task {'.'.join(path[:-1])}:{path[-1]}.{method}"
        )
    for k in range(len(path) - 1, 0, -1):
        module = ".".join(path[:k])
        try:
            return target(f"{module}:{'.'.join([*path[k:], method])}")
        except TargetError:
            if k == 1:
                raise
    raise TargetError(f"{row.method} names no class in a module: name it, as in --task module:Class.method")


def object_of(row: Row, what: Target, overrides: Sequence[str] = ()) -> pydantic.BaseModel:
    """The object of a task, with the fields of its infra changed."""
    config, trusted = configfolder.read_config(Path(row.folder))
    known = config.get(what.infra)
    config[what.infra] = {**(known if trusted and isinstance(known, dict) else {}), "folder": row.top}
    version = row.method.rpartition(",")[2]
    config[what.infra].setdefault("version", version)
    for override in map(parse, overrides):
        name = override.name.removeprefix(f"{what.infra}.")
        config[what.infra][name] = override.values[0].parsed if override.values else None
    obj = what.config.model_validate(config)
    made = what.infra_of(obj).uid_folder()
    if made is None or os.path.realpath(made) != os.path.realpath(row.folder):
        raise TargetError(
            f"the configuration in {row.folder} makes {made} with {what.name}: it was changed, or its class was, so it "
            "is left alone. Compute it with `exca run`"
        )
    return obj


def retry(options: argparse.Namespace) -> int:
    """Compute again what failed or was lost."""
    if not options.state:
        options.state = ["failed,interrupted"]
    rows = [row for row in selection(options).rows() if row.state != "running"]
    if options.lost:
        rows = [row for row in rows if row.state == "interrupted" or row.facts.get("ended")]
    if not rows:
        raise NoSuchTaskError(
            "no task that failed or was interrupted fits: `exca ls --state failed` shows them"
        )
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row)
    out = Output()
    lines = [f"{row.address}   {row.state}   {row.facts.get('error', '')}"[:160] for row in rows]
    if options.dry_run:
        out.write([*(f"  {line}" for line in lines), f"would compute {len(rows)} again (--dry-run)"])
        return 0
    failed = sum(_again(group, options, out) for group in by_method.values())
    return FAILED if failed else 0


def _again(rows: Sequence[Row], options: argparse.Namespace, out: Output) -> int:
    """Compute tasks of one method again; how many have failed again, as far as that is known."""
    what = target_of(rows[0], options.task)
    objects = [object_of(row, what, _resources(row, options)) for row in rows]
    infras = [what.infra_of(obj) for obj in objects]
    for infra in infras:
        infra.clear_job()
    if infras[0].cluster is not None:
        with infras[0].job_array() as array:
            array.extend(objects)
        out.write([f"submitted {len(objects)} of {rows[0].method} again"])
        return wait_for(array, infras, out) if options.wait else 0
    failed = 0
    for row, obj in zip(rows, objects, strict=True):
        try:
            what.call(obj)
        except Exception as e:  # of the user's method
            failed += 1
            out.write([f"  {row.id} failed again: {type(e).__name__}: {e}"])
        else:
            out.write([f"  {row.id} completed"])
    return failed


def _resources(row: Row, options: argparse.Namespace) -> list[str]:
    """Changes of what a job asks for: those that are given, and factors of what it asked for before."""
    found = list(options.set or [])
    for name, text in (("timeout_min", options.time), ("mem_gb", options.mem)):
        if text is None:
            continue
        if not text.startswith("x"):
            found.append(f"{name}={text}")
            continue
        before = row.facts.get(f"resources.{name}")
        if not isinstance(before, (int, float)):
            raise ValueError(  # noqa: TRY004 # of the command line
                f"{row.id} asked for no {name}, so {text} of it cannot be computed: give a number"
            )
        value = before * _factor(name, text)
        found.append(f"{name}={round(value) if name == 'timeout_min' else value}")
    return found


def _factor(name: str, text: str) -> float:
    try:
        factor = float(text[1:])
    except ValueError:
        factor = 0.0
    if not 0 < factor < math.inf:
        raise ValueError(f"{text} is no factor for {name}: give one as in x1.5, or a number")
    return factor


def shell(options: argparse.Namespace) -> int:
    """Start Python with the object of a task and its result."""
    row = one(selection(options))
    what = target_of(row, options.task)
    obj = object_of(row, what, ["mode=read-only"])
    names: dict[str, tp.Any] = {"obj": obj, "infra": what.infra_of(obj), "folder": row.folder}
    said = "obj, infra, folder"
    try:
        names["result"] = what.call(obj)
        said += ", result"
    except Exception as e:  # kept, or not there
        names["error"] = e
        said += f", error ({type(e).__name__}: {e})"
    banner = printable(f"{what.name} {row.id}: {said}")
    if importlib.util.find_spec("IPython") is not None and sys.stdin.isatty():
        from IPython import start_ipython

        print(banner)
        start_ipython(argv=["--no-banner"], user_ns=names)
    else:
        import code

        code.interact(banner=banner, local=names, exitmsg="")
    return 0


def accept(options: argparse.Namespace) -> int:
    """Declare a change of code harmless for the results of a method."""
    from ..explaining import accept as accept_changes
    from ..explaining import accepted

    row = selection(options).rows()
    if not row:
        raise NoSuchTaskError("nothing fits: `exca ls` shows what there is")
    what = target_of(row[0], options.task)
    infra = what.infra_of(object_of(row[0], what))
    if options.list:
        found = accepted(infra)
    elif options.why is None:
        raise ValueError("say why the change is harmless: --why 'only a log message changed'")
    else:
        found = accept_changes(infra, why=options.why, part=options.part)
    Output().write(line for each in found for line in str(each).splitlines())
    if not found:
        print("nothing was accepted here")
    return 0
