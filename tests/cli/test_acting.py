"""The commands that change something."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trained
from saying import say
from waiting import wait_for


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    trained.make(tmp_path / "results")
    return tmp_path / "results"


def count(cache: Path, capsys: pytest.CaptureFixture[str]) -> int:
    return len(json.loads(say(capsys, "ls", cache, "--json")))


def test_rm_says_first_what_it_would_do(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "would move 2 folder(s)" in say(capsys, "rm", "-C", cache, "--state", "failed")
    assert count(cache, capsys) == 7
    assert "moved 2 folder(s) to .trash/" in say(capsys, "rm", "-C", cache, "--state", "failed", "-y")
    assert count(cache, capsys) == 5
    assert "brought back 2 folder(s)" in say(capsys, "restore", "-C", cache)
    assert count(cache, capsys) == 7


def test_rm_wants_a_scope(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "this is not done to everything in a folder" in say(capsys, "rm", "-C", cache, "-y", code=2)
    assert "nothing fits, so nothing is removed" in say(
        capsys, "rm", "-C", cache, "-w", "rate > 100", "-y", code=2
    )


def test_what_was_removed_is_computed_again_and_not_overwritten(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say(capsys, "rm", "-C", cache, "-w", "rate == 1", "-y")
    trained.train(cache, rate=1.0, model={"name": "network", "layers": 4}).loss()
    said = say(capsys, "restore", "-C", cache, code=1)
    assert "brought back 1 folder(s)" in said
    assert "something is there again" in said


def test_what_is_being_computed_is_not_removed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = next(r for r in json.loads(say(capsys, "ls", cache, "--json")) if r["state"] == "completed")
    folder = cache / row["method"] / row["uid"]
    code = f"""
import sys, time
from pathlib import Path
from exca.claims import Claims
claim, _ = Claims(Path({str(folder)!r})).acquire(["task"])
print("claimed", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "claimed\n"
        said = say(capsys, "rm", "-C", cache, row["id"], "-y", code=1)
        assert "it is being computed by process" in said
        assert folder.is_dir()
        assert "running" in say(capsys, "ls", "-C", cache, row["id"])
        said = say(capsys, "cancel", "-C", cache, row["id"], "-y", code=1)
        assert "left: computed by process" in said
        owner.kill()


def test_cancel_ends_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
import sys, time, pydantic, exca
class Slow(pydantic.BaseModel):
    infra: exca.TaskInfra = exca.TaskInfra(folder=sys.argv[1], cluster="local", retries=0)
    @infra.apply
    def run(self) -> int:
        time.sleep(300)
        return 1
Slow().infra.job()
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "slow")], check=True)
    wait_for(lambda: "running" in say(capsys, "ls", tmp_path / "slow"))
    assert "would cancel 1 job(s)" in say(capsys, "cancel", "-C", tmp_path / "slow", "Slow.run")
    assert "cancelled 1 job(s)" in say(capsys, "cancel", "-C", tmp_path / "slow", "Slow.run", "-y")
    wait_for(lambda: "running" not in say(capsys, "ls", tmp_path / "slow"))


def test_gc_by_age_and_version(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "gc removes nothing without a condition" in say(capsys, "gc", "-C", cache, "--apply", code=2)
    assert say(capsys, "gc", "-C", cache, "--older", "1d", "--apply") == "nothing to remove\n"
    assert "would move 1 folder(s)" in say(capsys, "gc", "-C", cache, "--version-below", 1)
    assert "moved 2 folder(s)" in say(capsys, "gc", "-C", cache, "--failed", "--apply")
    assert count(cache, capsys) == 5


def test_gc_empties_the_trash(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(capsys, "gc", "-C", cache, "--trash") == "the trash is empty\n"
    say(capsys, "rm", "-C", cache, "--state", "failed", "-y")
    assert "for good; nothing done" in say(capsys, "gc", "-C", cache, "--trash")
    assert (
        say(capsys, "gc", "-C", cache, "--trash", "--older", "1d", "--apply")
        == "nothing in the trash is that old\n"
    )
    assert say(capsys, "gc", "-C", cache, "--trash", "--apply").startswith("  ")
    assert not list((cache / ".trash").iterdir())
    assert "there is no x in" in say(capsys, "restore", "-C", cache, "x", code=2)


def test_an_archive_there_and_back(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say(capsys, "export", "-C", cache, "-w", "rate < 5", "-o", tmp_path / "a.tar.gz")
    assert "brought in 4 entries" in say(capsys, "import", tmp_path / "a.tar.gz", "-C", tmp_path / "other")
    assert "left 4 that are there already" in say(
        capsys, "import", tmp_path / "a.tar.gz", "-C", tmp_path / "other"
    )
    assert (
        trained.train(
            tmp_path / "other", rate=1.0, model={"name": "network", "layers": 4}, infra={"mode": "read-only"}
        ).loss()
        == 0.25
    )


def test_hostile_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import io
    import tarfile

    def archive(files: dict[str, bytes], entries: list[str]) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.tar"
        manifest = {
            "version": 1,
            "entries": entries,
            "files": {n: {"size": len(d), "sha256": "0"} for n, d in files.items()},
        }
        with tarfile.open(path, "w") as tar:
            for name, data in {**files, "exca-archive.json": json.dumps(manifest).encode()}.items():
                about = tarfile.TarInfo(name)
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
        return path

    for name in ("../evil/x", "/tmp/evil/x", "a/../../evil/x", "."):
        said = say(
            capsys, "import", archive({f"{name}/job.json": b"{}"}, [name]), "-C", tmp_path / "in", code=2
        )
        assert "which is no place below a folder: nothing was unpacked" in said
    said = say(capsys, "import", archive({"m/u/job.json": b"{}"}, ["m/u"]), "-C", tmp_path / "in", code=2)
    assert "is damaged (its checksum differs): nothing was unpacked" in said
    (tmp_path / "none.tar").write_bytes(b"no archive")
    assert "is no archive of `exca export`" in say(
        capsys, "import", tmp_path / "none.tar", "-C", tmp_path / "in", code=2
    )
    assert not (tmp_path / "evil").exists()
    assert not [path for path in (tmp_path / "in").rglob("*") if path.is_file()]


def test_doctor(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {one["what"]: one for one in json.loads(say(capsys, "doctor", cache, "--json"))}
    assert found["exclusive create"]["good"]
    assert found["atomic rename"]["good"]
    assert "is no folder: name the one of the infra" in say(capsys, "doctor", tmp_path / "nowhere", code=1)
    say(capsys, "doctor", cache, "--bundle", tmp_path / "b.tar.gz", "--task", "-")
    listed = subprocess.check_output(["tar", "tzf", str(tmp_path / "b.tar.gz")], text=True)
    assert "exca-bundle/doctor.json" in listed
    os.chmod(cache, 0o777)
    assert "every user may write here" in say(capsys, "doctor", cache, code=1)
