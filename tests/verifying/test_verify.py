"""exca.verify and exca.repair: what they find, what they repair, and that they never touch what is good."""

import json
import os
import signal
import subprocess
import sys
import typing as tp
from pathlib import Path

import numpy as np
import pydantic
import pytest

import exca
import people
from claimant import Claimant
from exca.cachedict import CacheDict
from exca.cachedict import index as cache_index
from exca.cachedict.sideindex import FILE_NAME
from exca.claims import Claims
from exca.verifying import check
from people import ALICE, BOB


class Task(pydantic.BaseModel):
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def compute(self) -> tp.Any:
        return np.arange(self.x) if self.x > 1 else self.x


class Map(pydantic.BaseModel):
    size: int = 4
    infra: exca.MapInfra = exca.MapInfra(keep_in_ram=False)

    @infra.apply(item_uid=str)
    def compute(self, items: tp.Iterable[int]) -> tp.Iterator[tp.Any]:
        for item in items:
            yield np.full(self.size, item) if item % 2 else item


def fill(root: Path) -> None:
    for x in (1, 50):
        Task(x=x, infra=exca.TaskInfra(folder=root)).compute()
    list(Map(infra=exca.MapInfra(folder=root, keep_in_ram=False)).compute(range(10)))


def answers(root: Path) -> list[tp.Any]:
    cache_index._registry.clear()
    tasks = [Task(x=x, infra=exca.TaskInfra(folder=root)).compute() for x in (1, 50)]
    items = Map(infra=exca.MapInfra(folder=root, keep_in_ram=False)).compute(range(10))
    return [np.asarray(value).tolist() for value in [*tasks, *items]]


def make_old(path: Path, seconds: float) -> None:
    then = path.lstat().st_mtime - seconds
    os.utime(path, (then, then), follow_symlinks=False)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    fill(folder)
    return folder


def uid_folder(root: Path, mark: str) -> Path:
    return next(path.parent for path in sorted(root.rglob(mark)))


def test_a_sound_cache_is_reported_entry_by_entry(root: Path) -> None:
    report = exca.verify(root)
    assert report.sound
    assert report.totals()["entries"] == 12
    assert report.totals()["nbytes"] > 5 * 32
    assert len(report.folders) == 3
    assert json.loads(json.dumps(report.to_json()))["totals"]["entries"] == 12
    assert "12" in str(report).splitlines()[-1]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_any_folder_of_a_cache_can_be_verified(root: Path, depth: int) -> None:
    folder = uid_folder(root, "*-info.jsonl")
    for _ in range(depth):
        folder = folder.parent
    assert exca.verify(folder).totals()["entries"] == (12 if depth == 2 else 10)


def test_there_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="check the path"):
        exca.verify(tmp_path / "nowhere")


def test_a_flipped_bit_in_any_byte_that_counts_is_found(root: Path) -> None:
    """In the record, in the text index, in the data; padding counts for nothing."""
    for path in [*root.rglob("job.json"), *root.rglob("*-info.jsonl"), *root.rglob("data/*")]:
        whole = path.read_bytes()
        found = 0
        for at in range(0, len(whole), max(1, len(whole) // 10)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            found += bool(exca.verify(root).totals()["damaged"])
        path.write_bytes(whole)
        assert found >= (10 if "data" not in path.parts else 1), path
    assert exca.verify(root).sound


def test_repair_sets_the_damaged_aside_and_the_next_call_computes_them(root: Path) -> None:
    wanted = answers(root)
    (folder,) = {path.parent for path in root.rglob("*-info.jsonl")}
    index = next(folder.glob("*-info.jsonl"))
    lines = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(b"".join([lines[0][:9] + b"#" + lines[0][10:], *lines[1:]]))
    data = next(folder.rglob("data/*"))
    data.write_bytes(b"?" * data.stat().st_size)
    record = next(root.rglob("job.json"))
    record.write_bytes(record.read_bytes()[:-9])
    report = exca.verify(root)
    assert report.totals()["damaged"] == 1 + 5 + 1
    repairs = exca.repair(root)
    assert len(repairs.done) == 7, str(repairs)
    assert repairs.after.totals()["damaged"] == 0
    assert exca.verify(root).totals()["entries"] == 12 - 7
    assert list(folder.glob("*.damaged"))
    assert answers(root) == wanted
    assert exca.verify(root).totals()["entries"] == 12


def test_the_good_is_left_byte_by_byte(root: Path) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    repairs = exca.repair(root, orphans=True, older_than=0.0)
    assert repairs.done == repairs.left == []
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_claims_of_the_dead_go_and_those_of_the_living_stay(root: Path) -> None:
    folder = uid_folder(root, "*-info.jsonl")
    dead, alive = Claimant(folder), Claimant(folder)
    try:
        dead.ask("acquire", keys=["a"])
        alive.ask("acquire", keys=["b"])
        alive.signal(signal.SIGSTOP)
        dead.kill()
        report = exca.verify(root).totals()
        assert (report["stale_claims"], report["live_claims"]) == (1, 1)
        assert exca.repair(root).after.totals()["stale_claims"] == 0
        assert list(Claims(folder).holders()) == ["b"]
        alive.signal(signal.SIGCONT)
        assert alive.ask("is_valid")
    finally:
        dead.close()
        alive.close()


def test_leftovers_of_dead_writers_go_and_those_of_the_living_stay(root: Path) -> None:
    folder, dead, host = uid_folder(root, "job.json"), dead_pid(), os.uname().nodename
    gone = [
        folder / f".job.json.{dead}-0123abcd.tmp",
        folder / f".uid.yaml-{dead}-0123abcd.tmp",
        folder / f"{FILE_NAME}-{host}-{dead}-0123abcd-2.tmp",
        folder / "save-tmp-0123abcd-model.pt",
        root / f".shared.pkl.{dead}-0123abcd.tmp",
    ]
    for number, names in enumerate((["uid.yaml", "config.yaml"], ["uid.yaml", "result.npy"])):
        draft = root / f".a=1-{dead}-0123abc{number}.tmp"
        draft.mkdir()
        for name in names:
            (draft / name).write_text("a")
        make_old(draft, 60)
    kept = [
        folder / f".job.json.{os.getpid()}-0123abcd.tmp",
        folder / f"{FILE_NAME}-elsewhere-{dead}-0123abcd.tmp",
        folder / "save-tmp-young",
        folder / "mine.tmp",
    ]
    for path in [*gone, *kept]:
        path.write_text("half")
        make_old(path, 90_000 if path.name.startswith("save-tmp-0") else 60)
    young = folder / f".job.json.{dead}-aaaaaaaa.tmp"
    young.write_text("half")
    assert exca.verify(root).totals()["leftovers"] == len(gone) + 2
    exca.repair(root)
    assert [path.name[-5] for path in root.glob(".a=1-*")] == ["1"]  # what may be a result is not thrown away
    assert [path.name for path in gone if path.exists()] == []
    assert all(path.exists() for path in [*kept, young])


def test_orphaned_data_is_moved_aside_only_on_request_where_no_process_is_at_work(root: Path) -> None:
    folder = uid_folder(root, "*-info.jsonl")
    host = os.uname().nodename
    orphan = folder / f"data/{host}-{dead_pid()}-0123abcd.data"
    living = folder / f"data/{host}-{os.getpid()}-0123abcd.data"
    for path in (orphan, living):
        path.write_bytes(b"data")
    assert exca.verify(root).totals()["orphans"] == 2
    assert len(exca.repair(root).left) == 2
    claim, _ = Claims(folder).acquire(["x"])
    assert claim is not None
    with claim:
        exca.repair(root, orphans=True)
        assert orphan.exists()
    exca.repair(root, orphans=True)
    assert (orphan.exists(), living.exists()) == (False, True)
    assert orphan.with_name(f"{orphan.name}.orphaned").read_bytes() == b"data"
    report = exca.verify(root).totals()
    assert (report["orphans"], report["set_aside"], report["entries"]) == (1, 1, 12)


def test_the_data_of_a_task_is_no_orphan(root: Path) -> None:
    """It is named by the record, not by an index."""
    assert [path for path in root.rglob("data/*") if (path.parents[1] / "job.json").exists()]
    assert exca.verify(root).totals()["orphans"] == 0


def test_a_torn_last_line_is_cut_off_once_its_writer_is_dead(root: Path) -> None:
    folder, host = uid_folder(root, "*-info.jsonl"), os.uname().nodename
    whole = b'{"content":5,"#type":"Json","#key":"x"}\n'
    torn = {pid: folder / f"{host}-{pid}-0123abcd-info.jsonl" for pid in (dead_pid(), os.getpid())}
    for path in torn.values():
        path.write_bytes(whole + b'{"content":6')
    repairs = exca.repair(root)
    contents = [path.read_bytes() for path in torn.values()]
    assert contents == [whole, whole + b'{"content":6']
    assert len(repairs.left) == 1
    assert CacheDict[int](folder)["x"] == 5


def test_damaged_derived_files_are_made_anew(tmp_path: Path) -> None:
    cache = CacheDict[int](tmp_path)
    with cache.write():
        for n in range(10_000):
            cache[str(n)] = n
    side = tmp_path / FILE_NAME
    data = side.read_bytes()
    side.write_bytes(data[:2000] + b"?" + data[2001:])
    (tmp_path / ".identity.json").write_text("{")
    assert exca.verify(tmp_path).totals()["derived"] == 2
    after = exca.repair(tmp_path).after
    assert after.sound
    assert after.totals()["entries"] == 10_000
    cache_index._registry.clear()
    assert CacheDict[int](tmp_path)["1234"] == 1234


def test_damaged_configuration_files_are_set_aside_and_written_again(root: Path) -> None:
    path = uid_folder(root, "job.json") / "config.yaml"
    path.write_text("a: [")
    assert exca.verify(root).totals()["damaged"] == 1
    assert exca.repair(root).after.totals()["damaged"] == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("size", "words"), [(1 << 25, "it is larger than 16 MiB"), (1, "it holds no configuration")]
)
def test_what_is_wrong_with_a_configuration_file_is_said(root: Path, size: int, words: str) -> None:
    path = uid_folder(root, "job.json") / "config.yaml"
    path.write_text("3")
    os.truncate(path, size)
    assert [each.error for folder in exca.verify(root).folders for each in folder.damaged] == [words]


def test_the_pickle_of_an_earlier_release_is_read_and_never_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    folder = tmp_path / "uid"
    folder.mkdir()
    (folder / "job.pkl").write_bytes(b"cposix\nsystem\n(S'touch " + bytes(touched) + b"'\ntR.")
    assert exca.verify(tmp_path).totals()["entries"] == 1
    assert not touched.exists()
    for damaged in (
        b"cposix\nsystem\n(S'touch",
        b"S'\\\xca'\n.",
    ):  # pickletools warns of the escape in the second
        (folder / "job.pkl").write_bytes(damaged)
        assert exca.verify(tmp_path).totals()["damaged"] == 1


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_not_called_damaged(root: Path) -> None:
    path = next(root.rglob("data/*"))
    path.chmod(0)
    totals = exca.verify(root).totals()
    assert totals["damaged"] == 0
    assert totals["unreadable"] > 0
    exca.repair(root)
    path.chmod(0o600)
    assert exca.verify(root).sound


@pytest.mark.parametrize("text", ["a:b\nimportant\n", "a line without an end"])
def test_nothing_is_changed_through_a_link_of_ones_own(root: Path, text: str) -> None:
    """As an unpacked archive may hold: damaged lines were once overwritten in whatever file it led to."""
    fill(root)
    other = root.parent / "important"
    other.write_text(text)
    make_old(other, 1e6)
    [index] = root.glob("*Map.compute*/*/*-info.jsonl")
    index.with_name("linked-1-info.jsonl").symlink_to(other)
    repaired = str(exca.repair(root, orphans=True, older_than=0))
    assert other.read_text() == text
    assert "a link to a file, through which nothing is changed; put the file itself in its place" in repaired
    # an index that is a link is read, and none of its entries is removed through it
    kept = other.with_name("kept-info.jsonl")
    index.rename(kept)
    index.symlink_to(kept)
    before = kept.read_bytes()
    cache_index._registry.clear()
    cache = CacheDict[tp.Any](index.parent)
    assert len(cache) == 10
    with pytest.raises(OSError, match="a link to a file, through which nothing is changed"):
        del cache["3"]
    assert kept.read_bytes() == before


def test_verify_and_repair_beside_those_at_work(root: Path) -> None:
    """What is written, replaced and deleted meanwhile is never called damaged."""
    folder = uid_folder(root, "*-info.jsonl")
    program = (
        "import sys, numpy as np\nfrom exca.cachedict import CacheDict\ncd = CacheDict(sys.argv[1])\n"
        "for turn in range(40):\n    with cd.write():\n        for n in range(20):\n"
        "            cd[f'k{n}'] = np.full(20, turn) if n % 2 else turn\n        del cd[f'k{turn % 20}']\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(folder)])
    looks = 0
    while writer.poll() is None:
        assert exca.repair(root, orphans=True).before.totals()["damaged"] == 0
        looks += 1
    assert writer.returncode == 0
    assert looks > 0
    assert len([key for key in CacheDict[tp.Any](folder) if key[0] == "k"]) == 19
    assert exca.verify(root).totals()["damaged"] == 0


def test_an_index_that_this_user_may_not_read_hides_what_belongs_to_none(commons: people.Commons) -> None:
    """Its lines may name any data file, so none is called an orphan; what can be read is checked all the same."""
    code = """
        import os, numpy, exca
        with exca.cachedict.CacheDict(os.environ["SHARED"]).write() as cd:
            cd[str(os.getuid())] = numpy.arange(9.0)
    """
    commons.run(BOB, code)
    (index,) = commons.shared.glob("*-info.jsonl")
    index.chmod(0o600)
    commons.run(ALICE, code)
    found = commons.run(
        ALICE,
        """
        import os, exca
        (report,) = exca.verify(os.environ["SHARED"]).folders
        print(report.entries, report.orphans, *report.unreadable)
        """,
    )
    assert found.strip() == f"1 [] {index.name}: this user may not read it"


def test_many_lines_that_name_one_huge_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them overlaps the others: no entry that was written does so, and the file is not read for each."""
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "x.data").open("wb") as file:
        file.truncate(300 << 20)
    parts = {
        "offset": 0,
        "shape": [300 << 20],
        "dtype": "uint8",
        "#type": "MemmapArray",
        "filename": "data/x.data",
    }
    lines = [
        {**parts, "offset": n, "shape": [(300 << 20) - n], "#sum": "0" * 16, "#key": f"{n}"}
        for n in range(300)
    ]
    same = [{**parts, "#sum": "0" * 16, "#key": f"same {n}"} for n in range(300)]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in [*same, *lines])
    (tmp_path / "host-1-info.jsonl").write_text(text)
    read: list[int] = []
    real = check.Checking.before_reading

    def count(ctx: check.Checking, path: str, size: int, length: int) -> None:
        real(ctx, path, size, length)
        read.append(length)

    monkeypatch.setattr(check.Checking, "before_reading", count)
    report = exca.verify(tmp_path).folders[0]
    assert len(report.damaged) + len(report.unreadable) == 600
    assert len(report.unreadable) > 250
    assert sum(read) <= 6 * (300 << 20) + (64 << 20)
    assert len(report.damaged) >= 300, "those of one range are compared once"
    assert "again and again" in str(report.unreadable[0])
