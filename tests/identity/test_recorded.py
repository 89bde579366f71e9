"""Recorded cases of identity and files are only added to: none is changed, and none taken away.

``data/recorded.txt`` has a line for each of them, with a digest. Where a test here fails after a case was added, append
the lines that it names. Where it fails for another reason, the case has to come back as it was.
"""

import hashlib
import json
import typing as tp
from pathlib import Path

TESTS = Path(__file__).parents[1]
LIST = Path(__file__).parent / "data" / "recorded.txt"
VECTORS = (
    "identity/data/identity_vectors.json",
    "identity/data/found_vectors.json",
    "identity/data/confdict_vectors.json",
    "steps/data/steps_vectors.json",
)
# how many lines there were when a release was made, and their digest
RELEASED = {"1.0.0rc1": (922, "19f7974b9e6ac9b0")}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def cases(value: tp.Any, name: str, depth: int) -> tp.Iterator[tuple[str, bytes]]:
    """Yield the cases of a file of recorded values: what is in its dicts, and in the lists of these."""
    if depth and isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from cases(inner, f"{name}#{key}" if name.endswith(".json") else f"{name}/{key}", depth - 1)
    else:
        yield name, json.dumps(value, sort_keys=True).encode()


def lines() -> list[str]:
    """Return the line of each case that is recorded now."""
    found: list[tuple[str, bytes]] = []
    for name in VECTORS:
        # of the first three the values are whole cases, but for lists of them
        recorded = json.loads((TESTS / name).read_text(encoding="utf-8"))
        found += cases(recorded, name, 2 if "confdict" in name else 1)
    for path in sorted((TESTS / "legacy_caches").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".py":
            found.append((path.relative_to(TESTS).as_posix(), path.read_bytes()))
    return [f"{digest(data)} {json.dumps(name)}" for name, data in found]


def test_no_recorded_case_was_changed_or_taken_away() -> None:
    gone = sorted(set(LIST.read_text(encoding="utf-8").splitlines()) - set(lines()))
    assert not gone, "these have to come back as they were"


def test_each_case_is_on_the_list() -> None:
    listed = set(LIST.read_text(encoding="utf-8").splitlines())
    new = [line for line in lines() if line not in listed]
    assert not new, f"append to {LIST.name}: " + "\n".join(new)


def test_the_list_itself_is_only_added_to() -> None:
    listed = LIST.read_text(encoding="utf-8").splitlines()
    for count, recorded in RELEASED.values():
        assert digest("\n".join(listed[:count]).encode()) == recorded
