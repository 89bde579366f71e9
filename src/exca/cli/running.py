"""The commands that import the user's code: run, why."""

import argparse
import collections
import dataclasses
import os
import sys
import traceback
import types
import typing as tp
from collections.abc import Sequence

import pydantic

from ..errors import OverrideError
from .commandline import FAILED
from .configuring import Configurator, File, Target, read_yaml, target
from .output import Output, as_text
from .overrides import Override, parse


def _what(options: argparse.Namespace) -> tuple[Target, File | None, list[Override]]:
    """The target, the configuration file and the overrides of a command line."""
    files = [text for text in options.arguments if "=" not in text and text.endswith((".yaml", ".yml"))]
    if len(files) > 1:
        raise OverrideError(f"one configuration file is read, and these are several: {', '.join(files)}")
    base = read_yaml(files[0]) if files else None
    overrides = [parse(text) for text in options.arguments if text not in files]
    searched = [o.argument for o in overrides if o.interval is not None]
    if searched:
        raise OverrideError(f"{searched[0]!r} is for a search: give values, or range(start, stop, step)")
    return target(options.target), base, overrides


def run(options: argparse.Namespace) -> int:
    """Compute what is not cached, and print the results."""
    if options.help:
        return describe(options)
    what, base, overrides = _what(options)
    objects = list(_by_uid(what, Configurator(what.config, base).objects(overrides)).values())
    infras = [what.infra_of(obj) for obj in objects]
    states = [_state(infra) for infra in infras]
    out = Output()
    out.write([_forecast(states, infras)])
    if options.dry_run:
        out.write(f"  {_uid(infra)}   {state}" for infra, state in zip(infras, states, strict=True))
        out.write(["nothing was computed or submitted (--dry-run)"])
        return 0
    if len(objects) > 1 and infras[0].cluster is not None and hasattr(infras[0], "job_array"):
        with infras[0].job_array() as array:
            array.extend(objects)
    failed = 0
    for obj, infra in zip(objects, infras, strict=True):
        try:
            result = what.call(obj)
        except Exception as e:  # of the user's method
            failed += 1
            Output(sys.stderr).write([f"{_uid(infra)}   failed: {type(e).__name__}: {e}"])
            if len(objects) == 1:
                traceback.print_exception(e)
            continue
        text = repr(result)
        out.write(f"{_uid(infra)}   {text if len(text) <= 200 else text[:199] + '…'}".splitlines())
    return FAILED if failed else 0


def _by_uid(what: Target, objects: Sequence[pydantic.BaseModel]) -> dict[tp.Any, pydantic.BaseModel]:
    """The objects without those that compute the same."""
    found: dict[tp.Any, pydantic.BaseModel] = {}
    for obj in objects:
        found.setdefault(what.infra_of(obj).uid(), obj)
    return found


def _state(infra: tp.Any) -> str:
    if infra.folder is None or not hasattr(infra, "status"):
        return "not kept"
    return str(infra.status())


def _uid(infra: tp.Any) -> str:
    return os.path.basename(str(infra.uid()))


def _forecast(states: Sequence[str], infras: Sequence[tp.Any]) -> str:
    counts = collections.Counter(states)
    cached, failed, running = counts["completed"], counts["failed"], counts["running"]
    todo = len(states) - cached - failed - running
    where = infras[0].cluster
    parts = [f"{cached} cached"] if cached else []
    parts += [f"{failed} failed (kept; infra.mode=retry computes them again)"] if failed else []
    parts += [f"{running} running"] if running else []
    if todo:
        parts.append(
            f"{todo} to compute here" if where is None else f"{todo} to submit to {where}{_asked(infras[0])}"
        )
    return f"{len(states)} task{'s' if len(states) > 1 else ''}: {', '.join(parts)}"


def _asked(infra: tp.Any) -> str:
    asked = infra.asked() if hasattr(infra, "asked") else {}
    return f" ({', '.join(f'{name}={value}' for name, value in asked.items())})" if asked else ""


def describe(options: argparse.Namespace) -> int:
    """Print what can be set, with types, defaults and documentation."""
    what = target(options.target)
    doc = (what.config.__doc__ or "").strip().partition("\n")[0]
    lines = [f"usage: exca run {options.target} [FILE.yaml] [NAME=VALUE ...]", ""]
    lines += [doc, ""] if doc else []
    lines += _fields(what.config, "", {what.infra})
    lines += [
        "",
        f"{what.infra}.*: where it runs and is kept: {what.infra}.cluster, {what.infra}.folder, {what.infra}.mem_gb",
    ]
    Output().write(lines)
    return 0


def _fields(model: type[pydantic.BaseModel], prefix: str, without: set[str], depth: int = 0) -> list[str]:
    lines = []
    for name, field in model.model_fields.items():
        if name in without:
            continue
        default = (
            "required"
            if field.is_required()
            else f"default {field.get_default(call_default_factory=True, validated_data={})!r}"
        )
        described = f"   {field.description}" if field.description else ""
        lines.append(f"  {prefix}{name}: {_type_text(field.annotation)}   ({default[:80]}){described}")
        parts = tp.get_args(field.annotation) if _is_union(field.annotation) else (field.annotation,)
        models = [part for part in parts if isinstance(part, type) and issubclass(part, pydantic.BaseModel)]
        for variant in models if depth < 3 else ():
            below = _fields(variant, f"{prefix}{name}.", set(), depth + 1)
            lines += below if len(models) == 1 else [f"{line}   [{variant.__name__}]" for line in below]
    return lines


def _is_union(annotation: tp.Any) -> bool:
    return tp.get_origin(annotation) in (tp.Union, types.UnionType)


def _type_text(annotation: tp.Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def why(options: argparse.Namespace) -> int:
    """Say whether a call would be a hit, and why."""
    from ..explaining import why as explained

    what, base, overrides = _what(options)
    objects = Configurator(what.config, base).objects(overrides)
    found = [explained(what.infra_of(obj)) for obj in objects]
    if options.format is not None:
        print(as_text(options.format, [dataclasses.asdict(each) for each in found]))
    else:
        Output().write(line for each in found for line in str(each).splitlines())
    return 0
