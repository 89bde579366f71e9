"""Rows: what is told of a folder, whoever wrote it, and the index that is kept of it."""

import json
import os
import shutil
import subprocess
import sys
import time
import typing
from pathlib import Path

import pytest

import pipeline_steps
import trained
from exca import steps
from exca.catalog import index, scan
from exca.catalog.rows import Row
from exca.claims import Claims
from exca.engine import record
from exca.engine.record import KEY

LEGACY = Path(__file__).parents[1] / "legacy_caches"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    trained.make(tmp_path / "cache")
    return tmp_path / "cache"


def states(rows: list[Row]) -> list[str]:
    return sorted(row.state for row in rows)


def test_rows_tell_of_tasks_and_maps(cache: Path) -> None:
    rows = scan.rows(cache)
    assert states(rows) == ["completed"] * 4 + ["failed"] * 2 + ["stored"]
    found = {(row.config.get("rate"), row.config.get("model.layers")): row for row in rows}
    one = found[1.0, 4]
    assert one.method == "trained.Train.loss,1"
    assert one.facts["value"] == 0.25
    assert one.facts["kind"] == "task"
    assert found[9.0, 8].facts["error"] == "ValueError: diverged"
    squares = found[None, None]
    assert (squares.method, squares.facts["items"], squares.config) == (
        "trained.Squares.of,0",
        3,
        {"shift": 1},
    )
    assert all(Path(row.folder).is_dir() for row in rows)


def test_what_ends_while_it_is_looked_at_is_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = trained.train(tmp_path / "cache")
    folder = task.infra.uid_folder(create=True)
    assert folder is not None
    claim, _ = Claims(folder).acquire([KEY])
    assert claim is not None
    ask = scan._claims

    def end_and_ask(path: str, row: Row) -> None:
        monkeypatch.setattr(scan, "_claims", ask)
        claim.release()
        task.loss()
        ask(path, row)

    monkeypatch.setattr(scan, "_claims", end_and_ask)
    assert states(scan.rows(tmp_path / "cache")) == ["completed"]


def test_an_attempt_whose_outcome_is_there_no_longer_runs(tmp_path: Path) -> None:
    """Its claim goes a moment after its record has come; a claim of another attempt computes it again."""
    task = trained.train(tmp_path / "cache")
    folder = task.infra.uid_folder(create=True)
    assert folder is not None
    claim, _ = Claims(folder).acquire([KEY])
    assert claim is not None
    record.publish(
        folder, {"version": 2, "state": "completed", "result": {}, "attempt": claim.token}, durable=False
    )
    assert states(scan.rows(tmp_path / "cache")) == ["completed"]
    claim.release()
    claim, _ = Claims(folder).acquire([KEY])
    assert claim is not None
    assert states(scan.rows(tmp_path / "cache")) == ["running"]
    claim.release()


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_any_folder_on_the_way_may_be_named(cache: Path, depth: int) -> None:
    row = next(row for row in scan.rows(cache) if row.facts.get("value") == 0.25)
    place = [cache.parent, cache, cache / row.method, cache / row.address][depth]
    same = next(each for each in scan.rows(place) if each.facts.get("value") == 0.25)
    assert same.folder == row.folder
    assert same.id == row.id
    assert same.method.endswith(row.method)


def test_what_the_published_releases_wrote_is_stored() -> None:
    rows = scan.rows(LEGACY, keep=False)
    assert {row.state for row in rows} == {"stored"}
    assert sum(row.facts.get("items") or 0 for row in rows if row.facts.get("kind") == "items") > 0
    assert any(row.facts["kind"] == "task" and row.config for row in rows)


def test_nothing_is_imported_or_unpickled(cache: Path) -> None:
    bomb = cache / "bomb.Bomb.run,1" / "x=1-01234567"
    bomb.mkdir(parents=True)
    (bomb / "job.pkl").write_bytes(b"cos\nsystem\n(S'touch " + os.fsencode(cache / "ran") + b"'\ntR.")
    (bomb / "uid.yaml").write_text("!!python/object/apply:os.system ['touch " + str(cache / "ran") + "']")
    code = f"""
import sys
from exca.catalog import scan
rows = scan.rows({str(cache)!r})
print(len(rows), sorted(set(sys.modules) & {{"trained", "pickle", "cloudpickle", "submitit", "pandas", "torch"}}))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("8 ")
    assert "trained" not in ran.stdout
    assert not (cache / "ran").exists()


def test_damage_is_a_state_of_its_own(cache: Path) -> None:
    rows = {row.facts.get("value"): row for row in scan.rows(cache)}
    kept = Path(rows[0.25].folder) / "job.json"
    kept.write_bytes(kept.read_bytes().replace(b"0.25", b"0.26"))
    later = Path(rows[0.125].folder) / "job.json"
    later.write_text(json.dumps({"version": 3, "state": "completed", "result": {}}))
    assert states(scan.rows(cache)) == ["completed"] * 2 + ["damaged"] + ["failed"] * 2 + [
        "stored",
        "unknown",
    ]


def age(folder: Path) -> None:
    """Let all folders have been written long ago."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            os.utime(path, (time.time() - 3600, time.time() - 3600))


@pytest.fixture
def kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache whose rows are kept."""
    monkeypatch.setattr(index, "WORTH", 1)
    age(cache)
    assert len(scan.rows(cache)) == 7
    assert (cache / "trained.Train.loss,1" / index.FILE).exists()
    return cache


def test_what_was_kept_is_not_looked_at_again(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [row.to_json() for row in scan.rows(kept)]
    monkeypatch.setattr(scan, "_look", lambda *_: None)
    assert [row.to_json() for row in scan.rows(kept)] == before


def test_what_changed_is_looked_at_again(kept: Path) -> None:
    trained.train(kept, rate=3.0).loss()
    failed = next(Path(row.folder) for row in scan.rows(kept) if row.state == "failed")
    shutil.rmtree(failed)
    assert states(scan.rows(kept)) == ["completed"] * 5 + ["failed", "stored"]


@pytest.mark.parametrize("harm", ["cut", "flip", "garbage", "folder", "empty"])
def test_a_damaged_index_is_made_anew(kept: Path, harm: str) -> None:
    file = kept / "trained.Train.loss,1" / index.FILE
    data = file.read_bytes()
    if harm == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(
            {
                "cut": data[:-5],
                "flip": data[:40] + bytes([data[40] ^ 1]) + data[41:],
                "garbage": b"x" * 99,
                "empty": b"",
            }[harm]
        )
    assert states(scan.rows(kept)) == ["completed"] * 4 + ["failed"] * 2 + ["stored"]


def test_there_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match=r"there is no folder .*nowhere: check the path"):
        scan.rows(tmp_path / "nowhere")


def test_no_link_is_followed(cache: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    trained.make(elsewhere)
    (cache / "link").symlink_to(elsewhere)
    assert len(scan.rows(cache)) == 7


def test_any_folder_of_a_pipeline_may_be_named(tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    infra = typing.cast(typing.Any, {"backend": "Cached", "folder": folder})
    pipeline_steps.Numbers(infra=infra)
    chain = steps.Chain(
        steps=[pipeline_steps.Numbers(infra=infra), pipeline_steps.Times(coeff=2.5, infra=infra)]
    )
    chain.run()
    first, second = scan.rows(folder)
    assert (first.method, first.config, second.config) == (
        "",
        {"type": "Numbers"},
        {"type": "Times", "coeff": 2.5},
    )
    assert second.method == first.uid
    for place, rows in ((first.folder, [first, second]), (second.folder, [second])):
        assert [row.to_json() | {"top": row.top} for row in scan.rows(place)] == [
            row.to_json() | {"top": str(folder)} for row in rows
        ]


def test_items_are_counted_again_where_some_were_stored(kept: Path) -> None:
    """Also in a file that was there before, which changes no folder."""
    squares = trained.Squares.model_validate({"shift": 1, "infra": {"folder": kept}})
    list(squares.of([4]))
    folder = squares.infra.uid_folder()
    assert folder is not None
    for path in (folder, folder.parent):
        os.utime(path, (time.time() - 3600, time.time() - 3600))
    assert {row.facts["items"] for row in scan.rows(kept) if row.state == "stored"} == {4}
    list(squares.of([5]))
    for path in (folder, folder.parent):
        os.utime(path, (time.time() - 3600, time.time() - 3600))
    assert {row.facts["items"] for row in scan.rows(kept) if row.state == "stored"} == {5}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_what_another_user_has_kept_is_not_read(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCA_CACHE_DIR", str(kept.parent / "mine"))
    method = kept / "trained.Train.loss,1"
    assert len(index.load(str(method), method.name)) == 6
    os.chown(method / index.FILE, 64_322, 64_322)
    assert index.load(str(method), method.name) == {}
    assert states(scan.rows(kept)) == ["completed"] * 4 + ["failed"] * 2 + ["stored"]
    assert (method / index.FILE).stat().st_uid == 64_322
    assert len(index.load(str(method), method.name)) == 6  # what was kept in this user's own folder


def test_a_cache_may_have_a_comma_in_its_name(tmp_path: Path) -> None:
    trained.train(tmp_path / "one,two").loss()
    [row] = scan.rows(tmp_path / "one,two")
    assert (row.top, row.method) == (str(tmp_path / "one,two"), "trained.Train.loss,1")
    assert [each.folder for each in scan.rows(tmp_path / "one,two" / row.method)] == [row.folder]
