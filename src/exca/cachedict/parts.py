"""What a line holds of an entry beside the fields that its handler reads, kept where earlier releases do not look.

Release 0.6 hands every field of an entry to its handler, so a checksum among them makes it fail. Only the handlers of
containers and JSON ignore fields that they do not know. Hence:

- the reserved fields (``#sum``, ``#files``...) of the parts of a container are in its own field ``#parts``: a list
  with one item (an object, or null) per part, in the order of the parts in the content;
- the entry of another handler is written as the only part of a container:
  ``{"content":{"filename":...,"#type":"MemmapArray"},"#type":"Auto","#parts":[{"#sum":...}],"#key":...}``.

- where release 0.6 makes something else of a value (a list of a tuple), the entry is what it would read, and ``#as`` is
  the handler that makes the value of it here.

In memory, an entry has its reserved fields; those of the parts below it are in its ``#parts``.
"""

import typing as tp

import orjson

Info = dict[str, tp.Any]
Reserved = tp.Sequence[Info | None]
_IGNORING = frozenset(("Json", "Auto"))  # handlers of every release that ignore further fields
SCALARS: tp.Final = frozenset((int, float, str, bool, type(None)))


def take_reserved(info: Info) -> Info | None:
    """Take the reserved fields out of the entry of a part (but for its type) and return them."""
    return {name: info.pop(name) for name in list(info) if name[0:1] == "#" and name != "#type"} or None


def take_from_parts(content: tp.Any, taken: list[Info | None]) -> tp.Any:
    """A copy of ``content`` in which no part has reserved fields; they are added to ``taken``."""
    if isinstance(content, dict):
        if "#type" in content:
            part = dict(content)
            taken.append(take_reserved(part))
            return part
        return {name: take_from_parts(item, taken) for name, item in content.items()}
    if isinstance(content, list | tuple):
        return [take_from_parts(item, taken) for item in content]
    return content


def with_reserved(part: Info, reserved: tp.Iterator[Info | None]) -> Info:
    """The entry of a part with its reserved fields, the next ones."""
    found = next(reserved, None)
    return {**part, **found} if isinstance(found, dict) else part


def restored(content: tp.Any, reserved: tp.Iterator[Info | None]) -> tp.Any:
    """A copy of ``content`` in which each part has its reserved fields again."""
    if isinstance(content, dict):
        if "#type" in content:
            return with_reserved(content, reserved)
        return {name: restored(item, reserved) for name, item in content.items()}
    if isinstance(content, list):
        return [restored(item, reserved) for item in content]
    return content


def iter_parts(content: tp.Any, reserved: tp.Iterator[Info | None]) -> tp.Iterator[Info]:
    """Yield the entries of all parts in ``content``, with their reserved fields."""
    if isinstance(content, dict):
        if "#type" in content:
            yield with_reserved(content, reserved)
            return
        content = list(content.values())
    if isinstance(content, list):
        for item in content:
            yield from iter_parts(item, reserved)


def reserved_of(info: Info) -> tp.Iterator[Info | None]:
    """The reserved fields of the parts of an entry, in their order."""
    found = info.get("#parts")
    return iter(found if isinstance(found, list) else ())


def line_of(key: str, info: Info, *, bare: bool = False) -> bytes:
    """The line of an entry, without its closing brace; a bare one has no reserved fields but its type and key."""
    type_ = info["#type"]
    if bare:
        take_reserved(info)
    elif type_ not in _IGNORING and type_[:3] != "py.":  # of the latter, no earlier release knows any
        reserved = take_reserved(info)
        info = {"content": info, "#type": "Auto"}
        if reserved is not None:
            info["#parts"] = [reserved]
    info["#key"] = key
    return orjson.dumps(info)[:-1]


def entry_of(line: Info) -> Info:
    """The entry that a line holds."""
    content = line.get("content")
    if type(content) is not dict or line["#type"] != "Auto":
        return line
    type_ = content.get("#type")
    if type(type_) is not str or type_ == "Json":  # the content of a large container is in a file
        return line
    parts = line.get("#parts")
    if type(parts) is list and parts and type(parts[0]) is dict:
        content.update(parts[0])
        content["#type"] = type_
    content["#key"] = line["#key"]
    if "#gen" in line:
        content["#gen"] = line["#gen"]
    return content
