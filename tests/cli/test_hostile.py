"""Every command on every kind of folder: no traceback, nothing that moves a cursor, and JSON is JSON."""

import csv
import io
import json
import os
import re
import shutil
import stat
import typing as tp
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

import exca
import pipeline_steps
import trained
from exca import steps
from exca.cli import main
from exca.engine import record

LEGACY = Path(__file__).parents[1] / "legacy_caches"
STRANGER = 64_322  # no user of this machine

ODD = [
    "\x1b[2J\x1b]0;title\x07",
    "\u202egnp.exe\u2066",
    "\x9b31m",
    "two\nlines\r\n\ttab\x00",
    "[bold red]markup[/] <script> *a* `b` | c",
    "=cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "\udc80\ud800 surrogates",
    "ümläut 漢字 👩‍👩‍👧 é̂̂̂",
    " spaces and - at the start",
    "x" * 1_000_000,  # in one field of a record
    "{} {0} %s %(x)s",
]


def tasks(folder: Path) -> None:
    """Tasks, of which some failed, and a map."""
    trained.make(folder)


def pipeline(folder: Path) -> None:
    """Two stages."""
    infra = tp.cast(tp.Any, {"backend": "Cached", "folder": folder})
    chain = steps.Chain(
        steps=[pipeline_steps.Numbers(infra=infra), pipeline_steps.Times(coeff=2.5, infra=infra)]
    )
    chain.run()


def halved(x: float, title: str = "") -> float:
    """Half of a number."""
    return x / 2


def functions(folder: Path) -> None:
    """A plain function."""
    exca.cached(folder=folder)(halved)(3.0, "\x1b[2J")


def values(folder: Path) -> None:
    """Tasks with odd values in their configurations."""
    for title in ODD:
        if "\udc80" not in title and "\x00" not in title:
            trained.train(folder, title=title).loss()
    trained.train(folder, rate=float("-inf")).loss()


def sealed(content: dict[str, tp.Any]) -> bytes:
    """A record that counts as whole, whatever is in it."""
    import orjson

    body = orjson.dumps(content)[:-1]
    return record.SEALED % (body, xxhash.xxh3_64_intdigest(body))


def crafted(folder: Path) -> None:
    """Records, configurations and names that a hostile user has made."""
    odd: list[tp.Any] = [
        *(text.encode(errors="replace").decode() for text in ODD),
        1e308,
        -(2**63),
        [[{}]],
        {"a": 1},
    ]
    names = (
        "seconds",
        "started",
        "finished",
        "submitted",
        "host",
        "user",
        "pid",
        "cluster",
        "job_id",
        "python",
    )
    for k, value in enumerate(odd):
        place = folder / f"m\x1b[2J\u202e.C.r{k},1" / f"x\x1b]0;\n={k}-0123456{k:x}"
        place.mkdir(parents=True)
        facts = {**dict.fromkeys(names, value), "used": {"max_rss_mb": value, "cpu_seconds": value}}
        facts |= {
            "resources": {"mem_gb": value, "\x1b[1m": value},
            "git": {"commit": value},
            "attempts": [value],
        }
        result = {"#type": "Json", "content": value}
        if isinstance(value, str):
            facts = {name: part[:1000] if isinstance(part, str) else part for name, part in facts.items()}
        (place / "job.json").write_bytes(
            sealed(
                {"version": 2, "state": "completed", "result": result, "config": {f"=n{k}": value}, **facts}
            )
        )
        (place / "submission.json").write_text(json.dumps({"cluster": value, "job_id": value}))
        os.chown(place / "job.json", STRANGER, STRANGER)
    for k, error in enumerate(("", None, {"type": 1, "message": ["\x1b[2J"]}, {"message": "\x9b"})):
        place = folder / "m.C.failed,1" / f"x={k}-0000000{k}"
        place.mkdir(parents=True)
        (place / "job.json").write_bytes(sealed({"version": 2, "state": "failed", "error": error}))
    for k, text in enumerate(CONFIGURATIONS):
        place = folder / "m.C.configured,1" / f"x={k}-1000000{k:x}"
        place.mkdir(parents=True)
        (place / "uid.yaml").write_bytes(text)
        (place / "full-uid.yaml").write_bytes(text)
    (folder / "-rf").mkdir()
    (folder / "-rf" / "uid.yaml").write_text("x: 1\n")
    (folder / os.fsdecode(b"\xff\xfe.C.run,1") / "default").mkdir(parents=True)
    (folder / os.fsdecode(b"\xff\xfe.C.run,1") / "default" / "uid.yaml").write_text("x: 1\n")


BOMB = b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (k, k, b", ".join([b"*a%d" % (k - 1)] * 10)) for k in range(1, 12)
)
CONFIGURATIONS = [
    b"",
    b"- 1\n- 2\n",
    b"text",
    b"{",
    b"x: .nan\ny: .inf\nz: -.inf\n",
    b"seed: 1180591620717411303424\n",
    b'x: "\\uD800"\n"\\x1b[2J": "\\x9b"\n',
    b"2024-01-01: 2024-01-01 10:00:00\n? [1, 2]\n: {3: !!binary aGk=, 4: !!set {a, b}}\n",
    b"x: " + b"[" * 400 + b"]" * 400,
    b"".join(b" " * k + b"a%d:\n" % k for k in range(300)),
    b"!!python/object/apply:os.system ['true']",
    b"x: " + b"9" * 5000,
    b"\xff\xfe",
    BOMB,
]


VICTIM = 'a:b\n{"x": 1}\nimportant\n'


def elsewhere(folder: Path) -> Path:
    """A file outside the folder, to which links in it lead, and which nothing may change."""
    return folder.parent / "elsewhere"


def garbage(folder: Path) -> None:
    """What is no cache, with files whose names are of one."""
    elsewhere(folder).write_text(VICTIM)
    for k, name in enumerate(
        ("job.json", "job.pkl", "uid.yaml", "submission.json", "h-info.jsonl", "a.0.b.claim")
    ):
        place = folder / "m.C.run,1" / f"x={k}-2000000{k}"
        place.mkdir(parents=True)
        (place / "uid.yaml").write_text(f"x: {k}\n")
        (place / name).write_bytes(os.urandom(500))
        for kind in ("folder", "fifo", "link"):
            other = folder / "m.C.run,1" / f"{kind}={k}-3000000{k}"
            other.mkdir()
            (other / ("full-uid.yaml" if name == "uid.yaml" else "uid.yaml")).write_text("x: 1\n")
            if kind == "folder":
                (other / name).mkdir(exist_ok=True)
            elif kind == "fifo" and not (other / name).exists():
                os.mkfifo(other / name)
            elif not (other / name).exists():
                (other / name).symlink_to(elsewhere(folder))
    (folder / ".exca-rows").mkdir()
    (folder / ".trash").write_text("no folder")
    (folder / ".sweeps").mkdir()
    (folder / ".sweeps" / "wide.json").write_bytes(b'{"version": 1, "name": [], "uids": 5}')


def strangers(folder: Path) -> None:
    """All of it another user's."""
    trained.make(folder)
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, STRANGER, STRANGER)


def nothing(folder: Path) -> None:
    """A folder that is no cache, with folders in folders."""
    place = folder
    for k in range(30):
        place /= f"d{k % 10}"
    place.mkdir(parents=True)
    (folder / "notes.txt").write_text("x")


def legacy(release: str) -> Callable[[Path], None]:
    """What a published release wrote."""
    return lambda folder: tp.cast(None, shutil.copytree(LEGACY / release, folder, dirs_exist_ok=True))


FOLDERS: dict[str, Callable[[Path], None]] = {
    **{f.__name__: f for f in (tasks, pipeline, functions, values, crafted, garbage, strangers, nothing)},
    **{release: legacy(release) for release in ("0.5.20", "0.5.29", "0.6.0")},
}
# FOLDER stands for the folder, OUT for a file elsewhere
COMMANDS = [
    *(
        "ls",
        "ls --all-cols --all",
        "ls --json",
        "ls --csv",
        "ls --md",
        "ls --sort x -r",
        "ls --cols x,_error,_nope",
    ),
    *(
        "ls -w 'x > 1 or title == 1'",
        "ls --state damaged,stored",
        "ls --since 1d",
        "ls --user ada",
        "ls --sweep wide",
    ),
    *(
        "show -",
        "show - --json",
        "show -w true",
        "diff -",
        "diff - --json",
        "logs -",
        "logs - --err -n 3",
        "table",
    ),
    *(
        "table --json",
        "table --csv",
        "table --md",
        "table -o OUT.csv",
        "table -o OUT.json",
        "table -o OUT.parquet",
    ),
    *(
        "du",
        "du --json",
        "eff",
        "eff --json",
        "export -o OUT.tar.gz",
        "export --to tensorboard -o OUT-runs",
        "watch",
        "cancel --state running -y",
    ),
    *(
        "rm --since 30d",
        "gc --older 0s",
        "gc --version-below 9 --unread 0s",
        "gc --trash",
        "restore",
        "restore x",
    ),
    *(
        "import FOLDER",
        "retry --dry-run",
        "retry --state completed,stored -w false",
        "accept - --list",
        "shell -",
    ),
    *("rm - -y", "restore", "gc --trash --apply"),
]
POSITIONAL = [
    "doctor FOLDER",
    "doctor FOLDER --json",
    "doctor FOLDER --strict",
    "doctor FOLDER --bundle OUT.tar.gz --task -",
    "verify FOLDER",
]
POSITIONAL += ["report FOLDER -o OUT.html", "verify FOLDER --json", "verify FOLDER --repair --json"]
ELSEWHERE = [
    "run no_module:C",
    "why no_module:C",
    "run FOLDER",
    "sweep FOLDER",
    "sweep no.py:f",
    "retry --task a:B",
    "search FOLDER",
    "search no_module:C",
    "ui FOLDER/nowhere",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make each folder once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("hostile") / "cache"
            made[name].mkdir()
            FOLDERS[name](made[name])
        return made[name]

    return folder


def play(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of a command, and its output, in which nothing moves a cursor."""
    import shlex

    words = [
        w.replace("FOLDER", str(folder)).replace("OUT", str(folder.parent / "out"))
        for w in shlex.split(command)
    ]
    if command not in (*POSITIONAL, *ELSEWHERE):
        words[1:1] = ["-C", str(folder)]
    capsys.readouterr()
    code = main(words)
    out, err = capsys.readouterr()
    for text in (out, err):
        odd = {c for c in text if not c.isprintable() and c != "\n"}
        assert not odd, f"{command} prints {odd}"
    assert code in (0, 1, 2), err
    assert "Traceback" not in err
    assert not code or err or out
    assert not elsewhere(folder).exists() or elsewhere(folder).read_text() == VICTIM, command
    return code, out


def refuse(text: str) -> tp.NoReturn:
    """Fail for what JSON has not."""
    raise AssertionError(text)


def check_format(command: str, out: str, folder: Path) -> None:
    """What calls itself JSON or CSV is that."""
    if out and "--json" in command:
        json.loads(out, parse_constant=refuse)
    if "OUT.json" in command:
        json.loads((folder.parent / "out.json").read_text(encoding="utf-8"), parse_constant=refuse)
    if "--csv" in command or "OUT.csv" in command:
        text = out or (folder.parent / "out.csv").read_text(encoding="utf-8")
        csv.field_size_limit(1 << 30)
        rows = list(csv.reader(io.StringIO(text)))
        assert len({len(row) for row in rows if row}) <= 1
        cells = [cell for row in rows for cell in row]
        assert not [c for c in cells if c[:1] in "=+@\t\r" and c[:1] and not is_number(c)]
        assert not [c for c in cells if c[:1] == "-" and not is_number(c)]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] * (name in ("crafted", "values"))) for name in FOLDERS],
)
def test_every_command_on(
    name: str,
    folders: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One test per folder: a command takes some milliseconds."""
    folder = folders(name)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    monkeypatch.setenv("PATH", "")  # the doctor has no Slurm to ask
    for command in (*COMMANDS, *POSITIONAL):
        code, out = play(command, folder, capsys)
        if code == 0 or out:
            check_format(command, out, folder)
    assert stat.S_ISDIR(folder.stat().st_mode)


@pytest.mark.parametrize("name", ["values", "crafted", "tasks"])
def test_a_narrow_terminal(
    name: str,
    folders: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With colours, but no other escapes than these, and no line that is wider than 40 columns in a table."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "1000")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for command in ("ls", "table", "show -", "du", "eff"):
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)
        main([command.split()[0], "-C", str(folders(name)), *command.split()[1:]])
        text = terminal.getvalue()
        assert not {c for c in re.sub(r"\x1b\[\d+m", "", text) if not c.isprintable() and c != "\n"}
        assert set(re.findall(r"\x1b\[\d+m", text)) <= {f"\x1b[{k}m" for k in (0, 2, 31, 32, 33, 36)}
        lines = re.sub(r"\x1b\[\d+m", "", text).splitlines()
        cells = [line for line in lines if line.startswith("  ") and "not shown" not in line]
        if command in ("ls", "table"):
            assert all(len(line) <= 44 for line in cells)  # the first column is always shown
    assert "completed" in text or command == "eff"


class Terminal(io.StringIO):
    """A text that takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_what_an_encoding_does_not_have_is_escaped(
    encoding: str, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in ("ls", "table --json", "table --csv", "table --md"):
        data = io.BytesIO()
        with io.TextIOWrapper(data, encoding=encoding) as stream:
            monkeypatch.setattr("sys.stdout", stream)
            assert main([command.split()[0], "-C", str(folders("values")), *command.split()[1:]]) == 0
            text = data.getvalue().decode(encoding)
        assert "ml" in text
        check_format(command, text, folders("values"))


@pytest.mark.parametrize("command", ELSEWHERE)
def test_what_cannot_be_run_is_said_in_one_line(
    command: str, folders: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = play(command, folders("tasks"), capsys)
    assert code in (1, 2)
