"""The helpers that code around exca uses."""

import json
import os
import typing as tp
from pathlib import Path

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import exca.base
from exca import utils

VECTORS = json.loads((Path(__file__).parent / "identity/data/confdict_vectors.json").read_text("utf8"))


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_saved_file_takes_its_place_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with utils.temporary_save_path(path) as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".txt")
        temporary.write_text("one")
        assert not path.exists()
    with utils.temporary_save_path(str(path)) as temporary:
        temporary.write_text("two")
    assert content(tmp_path) == {"a.txt": "two"}


def test_what_is_there_may_be_kept(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with utils.temporary_save_path(tmp_path / "a.txt", replace=False) as temporary:
            temporary.write_text(text)
    assert content(tmp_path) == {"a.txt": "one"}


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")

    def fail() -> None:
        with utils.temporary_save_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    with (
        pytest.raises(FileNotFoundError, match="nothing was saved"),
        utils.temporary_save_path(tmp_path / "b"),
    ):
        pass
    assert content(tmp_path) == {"a.txt": "one"}


@pytest.mark.parametrize(("replace", "kept"), [(True, "two"), (False, "one")])
def test_a_folder_is_saved_like_a_file(tmp_path: Path, replace: bool, kept: str) -> None:
    for text in ("one", "two"):
        with utils.temporary_save_path(tmp_path / "data", replace=replace) as temporary:
            temporary.mkdir()
            (temporary / "x").write_text(text)
    assert content(tmp_path) == {"data/x": kept}


def test_the_umask_holds_for_saved_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with utils.temporary_save_path(tmp_path / "a") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_deleted_file_is_gone_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/b").write_text("y")
    for name in ("a", "folder"):
        with utils.fast_unlink(tmp_path / name):
            assert not (tmp_path / name).exists()
    assert list(tmp_path.iterdir()) == []


def test_deleting_what_is_not_there(tmp_path: Path) -> None:
    with utils.fast_unlink(tmp_path / "a", missing_ok=True):
        pass
    for error in (ValueError, FileNotFoundError):
        with pytest.raises(error, match="is not there"), utils.fast_unlink(tmp_path / "a"):
            pass


def test_an_error_does_not_bring_a_deleted_file_back(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(RuntimeError), utils.fast_unlink(tmp_path / "a"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_environment_variables_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCA_OLD", "1")
    monkeypatch.setenv("EXCA_GONE", "1")
    seen: dict[str, str] = {}

    def look() -> None:
        with utils.environment_variables(EXCA_OLD=2, EXCA_NEW="a", EXCA_GONE=None):
            seen.update(os.environ)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        look()
    assert (seen["EXCA_OLD"], seen["EXCA_NEW"]) == ("2", "a")
    assert "EXCA_GONE" not in seen
    assert (os.environ["EXCA_OLD"], os.environ["EXCA_GONE"]) == ("1", "1")
    assert "EXCA_NEW" not in os.environ


class Leaf(pydantic.BaseModel):
    x: int = 1


class Big(Leaf):
    inner: Leaf = Leaf()


class Tree(pydantic.BaseModel, extra="allow"):
    leaf: Leaf = Leaf()
    leaves: list[Leaf] = [Leaf(), Big()]
    named: dict[str, Leaf] = {"k": Leaf()}
    mixed: tuple[tp.Any, ...] = (Leaf(), {"q": [Leaf()]}, 3)
    circle: tp.Any = None
    _private: Leaf = pydantic.PrivateAttr(default_factory=Leaf)


def test_models_are_found_by_their_path() -> None:
    tree = Tree.model_validate({"more": Leaf()})
    everywhere = [
        "leaf",
        "leaves.0",
        "leaves.1",
        "leaves.1.inner",
        "named.k",
        "mixed.0",
        "mixed.1.q.0",
        "more",
    ]
    assert list(utils.find_models(tree, Leaf)) == [*everywhere, "_private"]
    assert list(utils.find_models(tree, Leaf, include_private=False)) == everywhere
    assert list(utils.find_models(tree, Big)) == ["leaves.1"]
    assert utils.find_models(tree, Leaf)["named.k"] is tree.named["k"]
    assert "leaves.1.inner" not in utils.find_models(tree, Leaf, stop_on_find=True)
    assert list(utils.find_models(Big(), Leaf, stop_on_find=True)) == [""]
    assert list(utils.find_models([tree, 3], Tree)) == ["0"]
    assert utils.find_models(3, Leaf) == {}


def test_skipped_models_are_not_looked_into() -> None:
    found = utils.find_models(Tree(), Leaf, skip=lambda model: isinstance(model, Big))
    assert not any(path.startswith("leaves.1") for path in found)
    assert utils.find_models(Tree(), Leaf, skip=lambda model: isinstance(model, Tree)) == {}


def test_a_circle_of_models_ends() -> None:
    tree = Tree()
    tree.circle = [tree]
    assert list(utils.find_models(tree, Tree)) == [""]


class Excluding(pydantic.BaseModel, extra="forbid"):
    x: int = 1
    device: str = "cpu"
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("device",)


def test_the_exporter_exports() -> None:
    model = Excluding(x=2, device="gpu")
    assert utils.ConfigExporter().apply(model) == {"x": 2, "device": "gpu"}
    assert utils.ConfigExporter(uid=True).apply(model) == {"x": 2}
    assert utils.ConfigExporter(exclude_defaults=True).apply(Excluding()) == {}
    with pytest.raises(pydantic.ValidationError):
        utils.ConfigExporter.model_validate({"uids": True})


@pytest.mark.parametrize("case", VECTORS["short_item_uid"])
def test_recorded_short_uids(case: dict[str, tp.Any]) -> None:
    assert utils.ShortItemUid(str, case["max_length"])(case["uid"]) == case["short"]


@pytest.mark.parametrize("case", VECTORS["long_item_uid"])
def test_recorded_short_uids_of_long_ones(case: dict[str, tp.Any]) -> None:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    uid = (alphabet * (case["uid_length"] // 26 + 1))[: case["uid_length"]]
    assert utils.ShortItemUid(str, case["max_length"])(uid) == case["short"]


def test_short_uids_refuse_what_cannot_work() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        utils.ShortItemUid(str, 31)
    with pytest.raises(TypeError, match="must return a str"):
        utils.ShortItemUid(lambda item: item, 64)(3)


@settings(deadline=None)
@given(st.integers(0, 300), st.none() | st.integers(1, 50), st.integers(1, 40))
def test_chunks_are_even_and_complete(count: int, max_chunks: int | None, at_least: int) -> None:
    items = list(range(count))
    chunks = utils.even_chunks(items, max_chunks=max_chunks, min_items=at_least)
    assert [item for chunk in chunks for item in chunk] == items
    sizes = [len(chunk) for chunk in chunks]
    assert len(sizes) <= (max_chunks or count)
    if sizes:
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= min(at_least, count)
        # not fewer chunks than possible
        assert len(sizes) == (max_chunks or count) or count // (len(sizes) + 1) < at_least


@pytest.mark.parametrize("case", VECTORS["to_chunks"])
def test_recorded_chunks(case: dict[str, tp.Any]) -> None:
    chunks = utils.to_chunks(
        range(case["items"]), max_chunks=case["max_chunks"], min_items_per_chunk=case["at_least"]
    )
    assert [len(chunk) for chunk in chunks] == case["sizes"]
    assert [item for chunk in chunks for item in chunk] == list(range(case["items"]))


@given(st.text(min_size=1, max_size=9), st.integers(1, 12_000), st.integers(32, 300))
def test_short_uids_are_never_too_long(text: str, repeats: int, max_length: int) -> None:
    assert len(utils.ShortItemUid(str, max_length)(text * repeats)) <= max_length


def test_the_skips_are_one_list_everywhere() -> None:
    assert exca.base.DEFAULT_CHECK_SKIPS is utils.DEFAULT_CHECK_SKIPS
