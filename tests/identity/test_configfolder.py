"""Which folder belongs to a configuration, and the files in it that say so."""

import contextlib
import json
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import typing as tp
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # noqa: F401 - a test reads YAML as somebody who may not read the packages

from exca import _files, errors, utils
from exca.identity.configfolder import ensure_config_folder
from exca.identity.uid import uid_text

Config = dict[str, tp.Any]
MINIMAL: Config = {"x": 3, "model": {"name": "conv"}}
FULL: Config = {"x": 3, "y": "a", "model": {"name": "conv", "layers": 2}, "steps": [{"k": 1}, {"k": 2}]}
CONFIG: Config = {**FULL, "infra": {"folder": "somewhere"}}

# Two configurations with the same uid: what is hashed does not escape what separates items, and the readable text
# is cut before they differ.
TWINS: tuple[Config, Config] = (
    {"a": ["x" * 130, "p,str:q", "r", "s"]},
    {"a": ["x" * 130, "p", "q", "r,str:s"]},
)


def settled(
    parent: Path,
    uid: tp.Any = MINIMAL,
    full: tp.Any = FULL,
    config: tp.Any = CONFIG,
    *,
    create: bool = True,
    uid_of: tp.Callable[[tp.Any], str] | None = None,
) -> Path:
    name = uid_of(uid) if uid_of else uid_text(uid)
    return ensure_config_folder(
        parent / name,
        uid_config=uid,
        full_uid_config=lambda: full,
        config=lambda: (config, {}),
        create=create,
        uid_of=uid_of,
    )


def texts_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.yaml")}


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def test_three_files_say_what_a_folder_is_for(tmp_path: Path) -> None:
    folder = settled(tmp_path / "not" / "there")
    assert folder == tmp_path / "not" / "there" / uid_text(MINIMAL)
    assert texts_in(folder) == {
        "uid.yaml": "x: 3\nmodel.name: conv\n",
        "full-uid.yaml": "x: 3\ny: a\nmodel:\n  name: conv\n  layers: 2\nsteps:\n- k: 1\n- k: 2\n",
        "config.yaml": "x: 3\ny: a\nmodel:\n  name: conv\n  layers: 2\nsteps:\n- k: 1\n- k: 2\n"
        "infra:\n  folder: somewhere\n",
    }


def test_nothing_is_written_again(tmp_path: Path) -> None:
    folder = settled(tmp_path)
    before = stamps(folder)
    assert settled(tmp_path) == folder
    assert stamps(folder) == before


def test_a_folder_is_only_looked_at_unless_it_may_be_created(tmp_path: Path) -> None:
    folder = settled(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []
    settled(tmp_path)
    (folder / "config.yaml").unlink()
    before = stamps(folder)
    reordered = dict(reversed(FULL.items()))
    assert settled(tmp_path, full=reordered, create=False) == folder
    with pytest.raises(errors.ChangedDefaultError):
        settled(tmp_path, full={**FULL, "y": "b"}, create=False)
    assert stamps(folder) == before


def test_missing_files_come_back(tmp_path: Path) -> None:
    folder = settled(tmp_path)
    texts = texts_in(folder)
    for name in ("uid.yaml", "full-uid.yaml"):
        (folder / name).unlink()
        settled(tmp_path)
    assert texts_in(folder) == texts


def test_an_empty_configuration_and_a_pipeline_have_a_folder_as_well(tmp_path: Path) -> None:
    folder = ensure_config_folder(
        tmp_path / "default", uid_config={}, full_uid_config=dict, config=lambda: ({}, {})
    )
    assert (folder / "uid.yaml").read_text() == "{}\n"
    steps: list[tp.Any] = [{"type": "Load"}, {"type": "Add", "value": 2}]
    for _ in range(2):
        folder = ensure_config_folder(
            tmp_path / "a/b", uid_config=steps, full_uid_config=lambda: steps, config=lambda: (steps, {})
        )
    assert (folder / "uid.yaml").read_text() == "- type: Load\n- type: Add\n  value: 2\n"


def test_files_of_earlier_releases_are_understood(tmp_path: Path) -> None:
    """Written in another order, by another YAML writer, and never touched."""
    folder = tmp_path / uid_text(MINIMAL)
    folder.mkdir()
    texts = {
        "uid.yaml": "model: {name: 'conv'}\nx: 3.0\n",
        "full-uid.yaml": "steps: [{k: 1}, {k: 2}]\ny: a\nx: 3\n",
    }
    texts["full-uid.yaml"] += "model:\n  name: conv\n  layers: 2\n"
    for name, text in texts.items():
        (folder / name).write_text(text)
    for _ in range(3):
        assert settled(tmp_path) == folder
    assert {name: (folder / name).read_text() for name in texts} == texts


def test_what_was_understood_is_remembered_by_a_file_that_may_go(tmp_path: Path) -> None:
    folder = settled(tmp_path)
    orders = [dict(FULL), dict(reversed(FULL.items())), dict(sorted(FULL.items()))]
    for _ in range(2):
        for full in orders:
            assert settled(tmp_path, full=full) == folder
    sidecar = folder / ".identity.json"
    assert len(json.loads(sidecar.read_text())["full-uid.yaml"]["same"]) == 3
    before = stamps(folder)
    settled(tmp_path, full=orders[1])
    assert stamps(folder) == before
    for garbage in (b"", b"{", b"[]", b'{"full-uid.yaml": 3}', b'{"uid.yaml": {"same": 3}}', b"\xff\x00"):
        sidecar.write_bytes(garbage)
        assert settled(tmp_path, full=orders[1]) == folder
    sidecar.unlink()
    assert settled(tmp_path, full=orders[1]) == folder


def test_an_edit_by_hand_is_noticed(tmp_path: Path) -> None:
    folder = settled(tmp_path)
    settled(tmp_path, full=dict(reversed(FULL.items())))
    (folder / "uid.yaml").write_text("x: 4\nmodel.name: conv\n")
    with pytest.raises(errors.InconsistentConfigError) as caught:
        settled(tmp_path)
    assert issubclass(caught.type, RuntimeError)
    for part in ("-x: 4", "+x: 3", str(folder / "uid.yaml"), "change the version of the infra"):
        assert part in str(caught.value)


def test_an_edit_of_the_same_size_right_after_is_noticed(tmp_path: Path) -> None:
    folder = settled(tmp_path)
    for text in ("x: 4\nmodel.name: conv\n", "x: 5\nmodel.name: conv\n"):
        before = (folder / "uid.yaml").stat().st_mtime_ns
        while (folder / "uid.yaml").stat().st_mtime_ns == before:
            (folder / "uid.yaml").write_text(text)
        with pytest.raises(errors.InconsistentConfigError):
            settled(tmp_path, create=False)
    (folder / "uid.yaml").write_text("x: 3\nmodel.name: conv\n")
    assert settled(tmp_path) == folder


_WITHOUT_YAML = """
import json, sys
from pathlib import Path
import exca
from exca.identity.configfolder import ensure_config_folder
sys.modules["yaml"] = None
uid, full, folder = json.loads(sys.argv[1])
found = ensure_config_folder(
    Path(folder), uid_config=uid, full_uid_config=lambda: full, config=lambda: (full, {}), create=False
)
print(found)
"""
PROSE: Config = {"about": "Häuser, as seen from the window of a train that never stops: " + "and more " * 20}


def _found_without_yaml(folder: Path, uid: Config, full: Config) -> "subprocess.CompletedProcess[str]":
    arguments = json.dumps([uid, full, str(folder)])
    command = [sys.executable, "-c", _WITHOUT_YAML, arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_known_configuration_needs_no_yaml_whatever_it_holds(tmp_path: Path) -> None:
    """Not for a copied folder either, whose files have other times; but for one that the digest does not know."""
    uid, full = {**MINIMAL, **PROSE}, {**FULL, **PROSE}
    folder = settled(tmp_path / "a", uid, full, full)
    copied = Path(shutil.copytree(folder, tmp_path / "b" / folder.name, copy_function=shutil.copyfile))
    assert (copied / "uid.yaml").stat().st_mtime_ns != (folder / "uid.yaml").stat().st_mtime_ns
    for place in (folder, copied):
        ran = _found_without_yaml(place, uid, full)
        assert (ran.returncode, ran.stdout.strip()) == (0, str(place)), ran.stderr
        (place / ".identity.json").unlink()
        assert "yaml" in _found_without_yaml(place, uid, full).stderr
    assert settled(tmp_path / "a", uid, full, full) == folder  # remembered again
    assert _found_without_yaml(folder, uid, full).returncode == 0


@pytest.mark.parametrize("by", ["another user", "everybody"])
def test_a_digest_that_others_can_have_written_is_not_believed(open_folder: Path, by: str) -> None:
    """The files are compared in its place, so that it cannot hide that a default changed."""
    if by == "another user" and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    open_folder = Path(_files.name_root(str(open_folder)))
    changed = {**FULL, "y": "b"}
    folder, lying = settled(open_folder), settled(open_folder / "other", full=changed)
    sidecar = folder / ".identity.json"
    note = json.loads((lying / ".identity.json").read_text())["full-uid.yaml"]["same"]
    record = json.loads(sidecar.read_text())
    record["full-uid.yaml"]["same"] = note
    sidecar.write_text(json.dumps(record))
    assert settled(open_folder, full=changed) == folder  # of this user's own hand it is believed
    if by == "everybody":
        sidecar.chmod(0o666)
    else:
        os.chown(sidecar, 65534, 65534)
    content = sidecar.read_bytes()
    for create in (False, True):
        with pytest.raises(errors.ChangedDefaultError):
            settled(open_folder, full=changed, create=create)
        assert settled(open_folder, create=create) == folder
    # replaced where it is this user's own; two users never replace each other's
    assert (sidecar.read_bytes() == content) is (by == "another user")


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (float("nan"), None),
        (float("inf"), float("-inf")),
        (1, True),
        (1, "1"),
        ([1], 1),
        ({}, []),
    ],
)
def test_values_that_yaml_tells_apart_have_other_digests(
    tmp_path: Path, value: tp.Any, other: tp.Any
) -> None:
    folder = settled(tmp_path, full={**FULL, "y": value})
    assert settled(tmp_path, full={**FULL, "y": value}) == folder
    with pytest.raises(errors.ChangedDefaultError):
        settled(tmp_path, full={**FULL, "y": other})


@pytest.mark.parametrize(
    ("changed", "field", "was", "now"),
    [
        ({"y": "b"}, "y", "'a'", "'b'"),
        ({"y": None}, "y", "'a'", "None"),
        ({"x": True}, "x", "3", "True"),
        ({"model": {"name": "conv", "layers": 5}}, "model.layers", "2", "5"),
        ({"steps": [{"k": 1}, {"k": 7}]}, "steps.1.k", "2", "7"),
        ({"steps": [{"k": 1}]}, "steps", "[{'k': 1}, {'k': 2}]", "[{'k': 1}]"),
        ({"y": float("inf")}, "y", "'a'", "inf"),
    ],
)
def test_a_changed_default_is_an_error(
    tmp_path: Path, changed: Config, field: str, was: str, now: str
) -> None:
    folder = settled(tmp_path)
    with pytest.raises(errors.ChangedDefaultError) as caught:
        settled(tmp_path, full={**FULL, **changed})
    assert issubclass(caught.type, RuntimeError)
    assert f"{field}: was {was}, is now {now}" in str(caught.value)
    assert "exca.utils.DEFAULT_CHECK_SKIPS" in str(caught.value)
    (folder / "full-uid.yaml").unlink()
    assert settled(tmp_path, full={**FULL, **changed}) == folder


def test_a_skip_allows_a_changed_default_while_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(tmp_path)
    changed = {**FULL, "y": "b", "model": {"name": "conv", "layers": 5}}
    seen = []

    def skip(key: str, new: tp.Any, old: tp.Any) -> bool:
        seen.append((key, new, old))
        return True

    utils.DEFAULT_CHECK_SKIPS.append(skip)
    try:
        for _ in range(2):
            settled(tmp_path, full=changed)
    finally:
        utils.DEFAULT_CHECK_SKIPS.remove(skip)
    assert seen == [("y", "b", "a"), ("model.layers", 5, 2)] * 2
    with pytest.raises(errors.ChangedDefaultError):
        settled(tmp_path, full=changed)


def test_fields_come_and_go(tmp_path: Path) -> None:
    """A field that came is remembered with its default, one that went is said and not forgotten."""
    folder = settled(tmp_path)
    grown = {**FULL, "new": 1, "model": {"name": "conv", "layers": 2, "bias": True}}
    assert settled(tmp_path, full=grown) == folder
    shrunk = {key: value for key, value in FULL.items() if key != "y"}
    with pytest.warns(
        errors.GoneFieldWarning, match=r"y \(was 'a'\), model\.bias \(was True\), new \(was 1\)\. The"
    ):
        assert settled(tmp_path, full=shrunk) == settled(tmp_path) == folder
    with pytest.raises(errors.ChangedDefaultError, match="new: was 1, is now 2"):
        settled(tmp_path, full={**FULL, "new": 2})
    with pytest.raises(errors.ChangedDefaultError, match=r"model\.bias"):
        settled(tmp_path, full={**FULL, "model": {"name": "conv", "layers": 2, "bias": False}})


def test_an_integral_float_is_no_change(tmp_path: Path) -> None:
    folder = settled(tmp_path)
    assert settled(tmp_path, full={**FULL, "x": 3.0}) == folder


def test_the_order_of_an_ordered_dict_counts(tmp_path: Path) -> None:
    ordered = {**FULL, "o": OrderedDict(a=1, b=2)}
    settled(tmp_path, full=ordered)
    settled(tmp_path, full=ordered)
    with pytest.raises(errors.ChangedDefaultError, match="o: was"):
        settled(tmp_path, full={**FULL, "o": OrderedDict(b=2, a=1)})


@pytest.mark.parametrize("garbage", ["", "[garbage", "just text", "1: 2", "\x00"])
def test_a_damaged_file_is_written_again(
    tmp_path: Path, garbage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = settled(tmp_path)
    for name in ("uid.yaml", "full-uid.yaml"):
        whole = (folder / name).read_text()
        (folder / name).write_text(garbage)
        with caplog.at_level(logging.WARNING):
            assert settled(tmp_path, create=False) == folder
            assert (folder / name).read_text() == garbage
            assert settled(tmp_path) == folder
        assert f"{name} is damaged" in caplog.text
        assert (folder / name).read_text() == whole


def test_a_true_collision_moves_to_a_longer_suffix(tmp_path: Path) -> None:
    first, second = TWINS
    assert uid_text(first) == uid_text(second)
    one = settled(tmp_path, first, first, first)
    two = settled(tmp_path, second, second, second)
    assert two.parent == one.parent
    assert two.name.startswith(f"{one.name}-")
    assert len(two.name) == len(one.name) + 17
    for _ in range(2):
        assert settled(tmp_path, first, first, first) == one
        assert settled(tmp_path, second, second, second, create=False) == two
    assert (two / "uid.yaml").read_text().endswith("\n- p\n- q\n- r,str:s\n")


def test_a_third_one_finds_a_place_as_well(tmp_path: Path) -> None:
    """With a function that gives everything one uid, every place may be taken."""
    configs: list[Config] = [{"x": index} for index in range(4)]
    folders = [settled(tmp_path, config, config, config, uid_of=lambda _: "same") for config in configs]
    assert len(set(folders)) == 4
    # the place of the last one, taken by another configuration
    shutil.copytree(folders[1], tmp_path / "other")
    shutil.rmtree(folders[3])
    shutil.copytree(folders[1], folders[3])
    moved = settled(tmp_path, configs[3], configs[3], configs[3], uid_of=lambda _: "same")
    assert moved not in folders


def test_permissions_follow_the_umask_and_the_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    before = os.umask(0o007)
    try:
        folder = settled(tmp_path / "deep")
        settled(tmp_path / "deep", full=dict(reversed(FULL.items())))
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o7777 == 0o2770
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.yaml")} == {0o660}
    # what a group may write to is believed by none who does not trust the group
    assert (folder / ".identity.json").stat().st_mode & 0o777 == 0o640


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file") as caught:
        settled(tmp_path / "file")
    assert any("uid.yaml" in note for note in caught.value.__notes__)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that everybody may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


@contextlib.contextmanager
def as_somebody_without_rights() -> Iterator[None]:
    """Root may write everywhere: become somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_a_folder_that_cannot_be_written_says_so(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    with as_somebody_without_rights(), pytest.raises(errors.FolderNotWritableError) as caught:
        settled(closed)
    assert isinstance(caught.value, PermissionError)
    assert str(closed) in str(caught.value)
    assert "choose another folder" in str(caught.value)


def test_a_cache_that_others_own_is_read_in_silence(open_folder: Path) -> None:
    folder = settled(open_folder)
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    before = stamps(folder)
    with as_somebody_without_rights():
        assert settled(open_folder) == folder
        assert settled(open_folder, full=dict(reversed(FULL.items()))) == folder
        assert settled(open_folder, full={**FULL, "new": 1}) == folder
    assert stamps(folder) == before


def _settle_many(parent: Path, turn: int, barrier: tp.Any, queue: tp.Any) -> None:
    results = []
    for index in range(20):
        first, second = TWINS
        barrier.wait()
        for twin in (first, second) if turn % 2 else (second, first):
            config = {**twin, "z": index}
            results.append((index, config, str(settled(parent, config, {**config, "d": 1}, config))))
    queue.put(results)


def test_many_processes_settle_at_once(tmp_path: Path) -> None:
    """Twins started together by several processes: each ends in one folder, the same for all, whole."""
    context = multiprocessing.get_context("spawn")
    count = 4
    barrier, queue = context.Barrier(count), context.Queue()
    processes = [
        context.Process(target=_settle_many, args=(tmp_path, turn, barrier, queue)) for turn in range(count)
    ]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    places: dict[str, set[str]] = {}
    for results in answers:
        for _, config, folder in results:
            places.setdefault(json.dumps(config), set()).add(folder)
    assert len(places) == 40
    assert all(len(folders) == 1 for folders in places.values())
    assert len({folder for folders in places.values() for folder in folders}) == 40
    for folders in places.values():
        (folder,) = folders
        assert sorted(path.name for path in Path(folder).iterdir()) == [
            ".identity.json",
            "config.yaml",
            "full-uid.yaml",
            "uid.yaml",
        ]


def test_leftovers_of_a_crash_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / uid_text(MINIMAL)
    folder.mkdir()
    (folder / ".uid.yaml-1-abcd.tmp").write_text("x: ")
    assert settled(tmp_path) == folder
    assert settled(tmp_path) == folder
