"""The tree of a pipeline, for people."""

import typing as tp

from . import addresses
from .addresses import NO_INPUT
from .lookup import StageHandle
from .pipeline import Stage, pipeline_of

if tp.TYPE_CHECKING:
    from .base import Step

_WORDS = {"success": "cached", "error": "failed", "running": "running", None: "missing"}


def draw(step: "Step", value: tp.Any) -> str:
    """Draw a step and the steps in it; see ``Step.show``."""
    words: dict[int, str] = {}
    if value is not NO_INPUT or not step.needs_input():
        uid = addresses.key_of(step, value)
        words = {id(stage.step): _word(stage, uid) for stage in pipeline_of(step).all_stages()}
    return "\n".join(_lines(step, "", words))


def _word(stage: Stage, uid: str) -> str:
    return _WORDS[StageHandle(stage, uid).status]


def _lines(step: "Step", name: str, words: dict[int, str]) -> tp.Iterator[str]:
    """Yield the line of a step, then those of the steps in it."""
    parts = list(_parts(step))
    inside = {field for field, _ in parts}
    yield f"{name}: {_title(step, inside, words)}" if name else _title(step, inside, words)
    for number, (field, content) in enumerate(parts):
        last = number == len(parts) - 1
        branch, rail = ("└── ", "    ") if last else ("├── ", "│   ")
        if isinstance(content, list):
            yield branch + field
            yield from _members(content, rail, words)
        else:
            head, *rest = _lines(content, field, words)
            yield branch + head
            yield from (rail + line for line in rest)


def _members(members: "list[tuple[str, Step]]", rail: str, words: dict[int, str]) -> tp.Iterator[str]:
    for number, (name, step) in enumerate(members):
        branch, deeper = ("└── ", "    ") if number == len(members) - 1 else ("├── ", "│   ")
        head, *rest = _lines(step, name, words)
        yield rail + branch + head
        yield from (rail + deeper + line for line in rest)


def _parts(step: "Step") -> "tp.Iterator[tuple[str, tp.Any]]":
    """Yield the fields that hold steps: each a step, or a list of (name, step)."""
    root = step._exca_root
    for field, value in step.__dict__.items():
        if isinstance(value, root):
            yield field, value
        elif isinstance(value, list | tuple) and value and all(isinstance(sub, root) for sub in value):
            yield field, [("", sub) for sub in value]
        elif isinstance(value, dict) and value and all(isinstance(sub, root) for sub in value.values()):
            yield field, [(str(name), sub) for name, sub in value.items()]


def _title(step: "Step", inside: set[str], words: dict[int, str]) -> str:
    fields = type(step).__pydantic_fields__
    values = {**step.__dict__, **(step.__pydantic_extra__ or {})}
    texts = [type(step).__name__]
    for name, value in values.items():
        if name != "infra" and name not in inside and (name not in fields or value != fields[name].default):
            text = getattr(value, "__qualname__", None) or repr(value)
            texts.append(f"{name}={text if len(text) <= 60 else text[:57] + '...'}")
    line = texts[0] + ("  " + ", ".join(texts[1:]) if len(texts) > 1 else "")
    infra = step.infra
    if infra is not None:
        facts = [infra.name, *([str(infra.folder)] if infra.folder is not None else ())]
        facts += [infra.mode] if infra.mode != "cached" else []
        line += f"  [{', '.join(facts)}]"
    return f"{line}  {words[id(step)]}" if id(step) in words else line
