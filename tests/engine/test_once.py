"""From asked to stored, exactly once: what is claimed, what is given back, what is waited for."""

import typing as tp
from pathlib import Path

import pytest

from exca.claims import Claim, Claims
from exca.engine import once


class Squares:
    """Work whose results are files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.computed: list[str] = []

    def missing(self, keys: tp.Sequence[str]) -> list[str]:
        return [key for key in keys if not (self.folder / f"{key}.txt").exists()]

    def execute(self, claim: Claim, keys: tp.Sequence[str]) -> None:
        assert set(Claims(self.folder).holders()) == set(claim.keys)
        for key in keys:
            self.computed.append(key)
            (self.folder / f"{key}.txt").write_text(str(int(key) ** 2))


def test_only_what_is_missing_is_computed_and_nothing_stays_claimed(tmp_path: Path) -> None:
    work = Squares(tmp_path)
    once.compute_once(work, ["1", "2"])
    once.compute_once(work, ["2", "3"])
    assert work.computed == ["1", "2", "3"]
    assert Claims(tmp_path).holders() == {}


def test_what_was_stored_between_look_and_claim_is_not_computed(tmp_path: Path) -> None:
    stored = ["1"]
    claim, keys, held = once.claim_missing(
        tmp_path, ["1", "2"], lambda asked: [k for k in asked if k not in stored]
    )
    assert claim is not None
    assert (keys, held) == (["2"], {})
    claim.release()
    assert once.claim_missing(tmp_path, ["1"], lambda _: []) == (None, [], {})
    assert Claims(tmp_path).holders() == {}


def test_an_error_of_the_second_look_leaves_nothing_claimed(tmp_path: Path) -> None:
    def look(keys: tp.Sequence[str]) -> list[str]:
        raise OSError("the folder cannot be read")

    with pytest.raises(OSError, match="cannot be read"):
        once.claim_missing(tmp_path, ["1"], look)
    assert Claims(tmp_path).holders() == {}


def test_what_another_owner_holds_is_named(tmp_path: Path) -> None:
    other, _ = Claims(tmp_path).acquire(["1"])
    assert other is not None
    with other:
        claim, keys, held = once.claim_missing(tmp_path, ["1"], list)
    assert (claim, keys) == (None, [])
    assert held["1"].token == other.token
