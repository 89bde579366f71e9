"""The commands that change something."""

import bz2
import gzip
import hashlib
import io
import json
import os
import re
import resource
import subprocess
import sys
import tarfile
import typing as tp
from pathlib import Path

import pytest

import pipeline_steps
import trained
from exca import settings, steps
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


def test_gc_keeps_the_points_of_a_sweep(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specification = tmp_path / "wide.yaml"
    specification.write_text(
        f"task: trained:Train.loss\nbase: {{infra: {{folder: {cache}}}}}\ngrid: {{rate: [1.0], model.layers: [4, 8]}}\n"
    )
    say(capsys, "sweep", specification)
    said = say(capsys, "gc", "-C", cache, "--older", "0s", "--keep", "wide", "--apply")
    assert "moved 5 folder(s)" in said
    assert "2 completed" in say(capsys, "ls", cache)
    assert "gc removes nothing without a condition" in say(
        capsys, "gc", "-C", cache, "--keep", "wide", code=2
    )
    said = say(capsys, "gc", "-C", cache, "--older", "0s", "--keep", "wise", "--apply", code=2)
    assert "there is no sweep 'wise'" in said
    assert "would move 2 folder(s)" in say(capsys, "rm", "-C", cache, "--sweep", "wide")


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


def pack(
    path: Path,
    files: dict[str, bytes],
    entries: list[str],
    members: tp.Sequence[tarfile.TarInfo] = (),
    manifest: tp.Mapping[str, tp.Any] = {},
) -> Path:
    """Make an archive by hand: with the right checksums, and further members."""
    sums = {n: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()}
    about: dict[str, tp.Any] = {"version": 1, "entries": entries, "files": sums, **manifest}
    with tarfile.open(path, "w") as tar:
        for name, data in {**files, "exca-archive.json": json.dumps(about).encode()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in members:
            tar.addfile(member)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member that is no file."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


SUMS = {"size": 2, "sha256": "0"}
ODD: list[dict[str, tp.Any]] = [
    {"files": []},
    {"entries": 5},
    {"entries": [None]},
    {"files": {"m/u/x": {"size": -1}}},
]
HOSTILE: list[tuple[dict[str, bytes], list[str], list[tarfile.TarInfo], dict[str, tp.Any], str]] = [
    *(
        ({f"{name}/job.json": b"{}"}, [name], [], {}, "which is no place below a folder")
        for name in ("../evil/x", "/tmp/evil/x", "a/../../evil/x", ".trash/x", "m/.code/x", "m/u/\0", ".")
    ),
    ({"m/u/.identity.json": b"{}"}, ["m/u"], [], {}, "which is no place below a folder"),
    ({"other/u/job.json": b"{}"}, ["m/u"], [], {}, "is of none of its entries"),
    ({"m/u/job.json": b"{}"}, ["m/u"], [], {"files": {"m/u/job.json": SUMS}}, "(its checksum differs)"),
    ({}, ["m/u"], [], {"files": {"m/u/job.json": SUMS}}, "'m/u/job.json' in the archive is no file"),
    ({"m/u/x": b""}, ["m/u"], [special("m/u/x", tarfile.REGTYPE)], {}, "holds 'm/u/x' twice"),
    *(
        ({}, ["m/u"], [special("m/u/x", kind, "/etc/passwd")], {"files": {"m/u/x": SUMS}}, "is no file")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    ),
    (
        {"m/u/x": b"12"},
        ["m/u"],
        [],
        {"files": {"m/u/x": {"size": 1 << 60, "sha256": "0"}}},
        "are free in",
    ),
    ({}, ["m/u"], [], {"version": 2}, "is of version 2, and this release knows 1"),
    ({}, ["m/u"], [], {"version": "1"}, "is of version '1'"),
    *(({}, ["m/u"], [], about, "is no archive of `exca export`, or is damaged") for about in ODD),
]


@pytest.mark.parametrize(("case", "said"), [(case[:4], case[4]) for case in HOSTILE])
def test_hostile_archives(
    case: tuple[tp.Any, tp.Any, tp.Any, tp.Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = pack(tmp_path / "a.tar", *case)
    assert said in say(capsys, "import", archive, "-C", tmp_path / "in", "--trust", code=2)
    assert not list((tmp_path / "in").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar", "in"}


def test_what_is_no_archive(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say(capsys, "export", "-C", cache, "-w", "rate < 5", "-o", tmp_path / "whole.tar.gz")
    whole = (tmp_path / "whole.tar.gz").read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for data in (b"", b"no archive", whole[:middle], flipped, gzip.compress(b"none"), bz2.compress(b"")):
        (tmp_path / "none.tar").write_bytes(data)
        said = say(capsys, "import", tmp_path / "none.tar", "-C", tmp_path / "in", code=2)
        # a flipped byte may spoil any part of the archive, so any refusal will do
        assert data == flipped or "is no archive of `exca export`" in said
        assert not list((tmp_path / "in").iterdir())
    assert "No such file" in say(capsys, "import", tmp_path / "nowhere", "-C", tmp_path / "in", code=2)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("job.pkl", b"\x80", "job.pkl may be anything"),
        ("checkpoint.pt", b"", "checkpoint.pt may be anything"),
        ("further/job.json", b"{}", "further/job.json may be anything"),
        ("job.json", b'{"result": {"#type": "Pickle", "filename": "data/x"}}', "holds values of Pickle"),
        (
            "job.json",
            b'{"result": {"#type": "Auto", "content": [{"#type": "py.dataclass"}]}}',
            "holds values of py.dataclass",
        ),
        (
            "job.json",
            b'{"result": {"#type": "Auto", "content": {"#type": "Json", "filename": "data/x.jsonl"}}}',
            "holds values of parts that are listed in a file",
        ),
        ("job.json", b'{"error": {"pickle": "gASVAA=="}}', "holds values of errors that are pickled"),
        ("job.json", b"[" * 5000, "job.json is damaged"),
        (
            "h-info.jsonl",
            b'{"#type": "NumpyArray", "filename": "data/x.npy"}\n',
            "holds values of NumpyArray",
        ),
        ("h-info.jsonl", b'{"#type": "Json"}\n{"#type": "ours.Own"}\n', "holds values of ours.Own"),
        ("h-info.jsonl", b'{"no": "type"}\n', "h-info.jsonl is damaged"),
    ],
)
def test_what_may_run_code_is_imported_only_where_it_is_trusted(
    name: str, data: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = pack(tmp_path / "a.tar", {f"m/u/{name}": data, "m/u/config.yaml": b"x: 1\n"}, ["m/u"])
    told = say(capsys, "import", archive, "-C", tmp_path / "in", code=1)
    assert f"left m/u: {said.replace('holds', f'{name} holds')}" in told
    assert "If you trust whoever made the archive: --trust" in told
    assert not list((tmp_path / "in").iterdir())
    assert "brought in 1 entries" in say(capsys, "import", archive, "-C", tmp_path / "in", "--trust")
    assert (tmp_path / "in" / "m" / "u" / "config.yaml").exists()


def test_what_is_only_data_is_imported_without_its_objects(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say(capsys, "export", "-C", cache, "-w", "rate < 5 or shift == 1", "-o", tmp_path / "a.tar.gz")
    assert "brought in 5 entries" in say(capsys, "import", tmp_path / "a.tar.gz", "-C", tmp_path / "in")
    assert not list((tmp_path / "in").rglob("config.yaml"))
    assert list(
        trained.Squares.model_validate(
            {"shift": 1, "infra": {"folder": tmp_path / "in", "mode": "read-only"}}
        ).of([1, 2, 3])
    ) == [2, 5, 10]
    said = say(capsys, "retry", "-C", tmp_path / "in", "--state", "completed", code=2)
    assert "has no config.yaml, from which its object would be made again" in said


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A cache of a pipeline of three stages, each with a number in its address."""
    folder = tmp_path / "pipeline"
    infra = {"backend": "Cached", "folder": folder}
    stages = [pipeline_steps.Numbers, *[pipeline_steps.Times] * 2]
    fields: list[dict[str, tp.Any]] = [{}, {"coeff": 2.5}, {"coeff": 0.5}]
    chain = steps.Chain(
        steps=[stage(infra=infra, **given) for stage, given in zip(stages, fields, strict=True)]
    )
    assert chain.run() == [0.0, 1.25, 2.5]
    return folder


def test_each_stage_of_a_pipeline_is_moved_alone(pipeline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(path for path in pipeline.rglob("*") if path.is_file() and ".code" not in path.parts)
    assert count(pipeline, capsys) == 3
    assert "moved 1 folder(s)" in say(capsys, "rm", "-C", pipeline, "-w", "coeff == 2.5", "-y")
    assert count(pipeline, capsys) == 2
    assert "moved 1 folder(s)" in say(capsys, "rm", "-C", pipeline, "-w", "not coeff", "-y")
    assert count(pipeline, capsys) == 1
    for place in (pipeline / ".trash").iterdir():
        assert "brought back 1 folder(s)" in say(capsys, "restore", "-C", pipeline, place.name)
    assert sorted(p for p in pipeline.rglob("*") if p.is_file() and ".code" not in p.parts) == files
    assert "moved 3 folder(s)" in say(capsys, "rm", "-C", pipeline, "--state", "stored", "-y")
    assert count(pipeline, capsys) == 0
    assert {path.name for path in pipeline.iterdir()} == {".trash", ".code"}
    assert "brought back 3 folder(s)" in say(capsys, "restore", "-C", pipeline)
    assert sorted(p for p in pipeline.rglob("*") if p.is_file() and ".code" not in p.parts) == files


def test_stages_of_a_pipeline_there_and_back(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say(capsys, "export", "-C", pipeline, "--state", "stored", "-o", tmp_path / "a.tar")
    assert "brought in 3 entries" in say(capsys, "import", tmp_path / "a.tar", "-C", tmp_path / "other")
    assert count(tmp_path / "other", capsys) == 3
    sizes = [row["bytes"] for row in json.loads(say(capsys, "du", pipeline, "--json"))]
    files = [p for p in pipeline.rglob("*") if p.is_file() and ".code" not in p.parts]
    assert sum(sizes) == sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("place", ["..", ".", "", "x", "../x", "/"])
def test_restore_takes_only_what_is_in_the_trash(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".trash" / "a").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("x")
    assert "in the trash of" in say(capsys, "restore", "-C", tmp_path, place, code=2)
    assert (tmp_path / "notes.txt").exists()


def test_restore_leaves_in_the_trash_what_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".trash" / "a" / "m").mkdir(parents=True)
    (tmp_path / ".trash" / "a" / "m" / "notes.txt").write_text("x")
    assert "brought back 0" in say(capsys, "restore", "-C", tmp_path)
    assert (tmp_path / ".trash" / "a" / "m" / "notes.txt").exists()


def test_doctor(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {one["what"]: one for one in json.loads(say(capsys, "doctor", cache, "--json"))}
    assert found["exclusive create"]["good"]
    assert found["atomic rename"]["good"]
    assert "is no folder: name the one of the infra" in say(capsys, "doctor", tmp_path / "nowhere", code=1)
    os.chmod(cache, 0o777)
    assert "every user may write here" in say(capsys, "doctor", cache, code=1)


def test_a_bundle_tells_no_values_and_no_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "tok-in-environment")
    monkeypatch.setenv("EXCA_LOG", "tok-in-environment")
    title = "the title of it"
    obj = trained.train(tmp_path / "cache", rate=0.1234, title=title, infra={"cluster": "local"})
    assert obj.loss() == 0.1234 / 2
    folder = obj.infra.uid_folder()
    assert folder is not None
    secrets = [
        "password=hunter22",
        "API_KEY: 'abcdef12'",
        "Authorization: Bearer abc.def.ghi",
        "https://ada:lovelace@example.org/x",
        "ghp_0123456789abcdefghij",
        "tok-in-environment",
        "ada@example.org",
        "A" * 50,
        f"rate 0.1234 of {title!r}",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
    ]
    log = next(tmp_path.rglob("*_log.err"))
    with log.open("a") as file:
        file.write("ValueError: what a person needs to know\n" + "\n".join(secrets))
    bundle = tmp_path / "b.tar.gz"
    told = say(capsys, "doctor", tmp_path / "cache", "--bundle", bundle, "--task", "-")
    assert told
    assert bundle.stat().st_mode & 0o777 == 0o600
    with tarfile.open(bundle) as archive:
        texts = {m.name: tp.cast(tp.IO[bytes], archive.extractfile(m)).read().decode() for m in archive}
    assert {name.removeprefix("exca-bundle/") for name in texts} == {
        *("doctor.json", "mount.txt", "task.json", "claims.json", "files.txt", "stdout.txt", "stderr.txt"),
    }
    text = "\n".join(texts.values())
    hidden = [
        "hunter22",
        "abcdef12",
        "abc.def",
        "lovelace",
        "ghp_",
        "tok-in",
        "ada@",
        "AAAA",
        "1234",
        title,
        "MIIE",
    ]
    assert [word for word in (*hidden, folder.name, str(tmp_path), "0.0617") if word in text] == []
    assert "what a person needs to know" in texts["exca-bundle/stderr.txt"]
    task = json.loads(texts["exca-bundle/task.json"])
    assert (task["state"], task["config"]["rate"], task["value"]) == ("completed", "float", "float")
    json.loads(texts["exca-bundle/doctor.json"])


STRICT = """
import pydantic
import exca

class Fit(pydantic.BaseModel):
    rate: float = 1.0
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> float:
        return self.rate * 1

class Lines(pydantic.BaseModel):
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self):
        yield 1
"""


def test_doctor_tells_what_would_be_refused_and_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "strictly.py").write_text(STRICT)
    compute = "import strictly; [strictly.Fit(rate=x, infra={'folder': 'cache'}).run() for x in (2, 3)]"
    python = [sys.executable, "-W", "ignore", "-c", compute]
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "EXCA_ALLOW": "all"}
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # a file that changes twice a second has one time
    subprocess.run(python, check=True, env=env)
    monkeypatch.setenv("PATH", "")  # no Slurm to ask
    assert "strict" not in {one["what"] for one in json.loads(say(capsys, "doctor", "cache", "--json"))}
    assert "strictly" not in sys.modules
    (tmp_path / "strictly.py").write_text(STRICT.replace("* 1", "* 2"))
    said = say(capsys, "doctor", "cache", "--strict", code=1)
    assert re.search(r"BAD +strict +strictly.Fit.run,0: .*Lines.* \[generator-method\]", said)
    assert re.search(
        r"strict +strictly.Fit.run,0: code='strict' would compute 2 of 2 again: .*Fit.run changed", said
    )
    assert "EXCA_ALLOW" not in os.environ
    monkeypatch.setenv("EXCA_ALLOW", "generator-method")
    monkeypatch.delitem(sys.modules, "strictly")
    monkeypatch.setattr(settings, "_warned", set())  # as in a new process
    assert "[generator-method] [allowed: generator-method]" in say(capsys, "doctor", "cache", "--strict")


def test_an_archive_for_which_there_is_no_room(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    archive = tmp_path / "archive" / "x.tar.gz"
    archive.parent.mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        said = say(capsys, "export", "-C", cache, "-o", archive, code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"{archive} was not written: File too large. Make room, or name a file elsewhere (-o)" in said
    assert not list(archive.parent.iterdir())
