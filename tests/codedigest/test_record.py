"""What is known of a digest is written once beside the results, read again, and compared."""

import json
import logging
import os
import pickle
import threading
from pathlib import Path

import pytest

from exca.codedigest import CodeDigest, Content, changed_parts, diff, read_code, record, write_code
from projects import Project

MODEL = "import helper\nclass Model:\n    def run(self):\n        return helper.f(1) + helper.g(1)\n"
HELPER = "def f(x):\n    return x + 2\ndef g(x):\n    y = '\\ud800é'\n    return 3\n"


@pytest.fixture
def code(project: Project) -> CodeDigest:
    project.write({"model.py": MODEL, "helper.py": HELPER})
    return project.digest()


def test_it_is_written_once_and_read_again(code: CodeDigest, tmp_path: Path) -> None:
    write_code(tmp_path, code)
    path = tmp_path / ".code" / code.digest
    before = path.stat()
    assert before.st_mode & 0o022 == 0
    write_code(tmp_path, code)
    assert path.stat() == before
    assert [each.name for each in path.parent.iterdir()] == [code.digest]
    found = read_code(tmp_path, code.digest)
    assert found == code
    assert found is not None
    assert found.content == code.content
    assert found.content.digest() == code.digest
    assert set(json.loads(path.read_bytes())) == {"digest", "sum", *Content._fields}


def test_it_is_written_by_many_at_once(code: CodeDigest, tmp_path: Path) -> None:
    threads = [threading.Thread(target=write_code, args=(tmp_path, code)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_code(tmp_path, code.digest) == code
    assert [each.name for each in (tmp_path / ".code").iterdir()] == [code.digest]


@pytest.mark.parametrize(
    "digest", ["0" * 16, "../x", "", "x" * 16, "cpython311-" + "0" * 16, "0" * 16 + "\n"]
)
def test_what_is_not_there_is_none(tmp_path: Path, digest: str) -> None:
    assert read_code(tmp_path, digest) is None


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("part", "its checksum is another one"),
        ("source", "its checksum is another one"),
        ("forged", "its parts have the digest "),
        ("cut", ""),
        ("empty", ""),
        ("list", "its checksum is another one"),
        ("deep", "it is nested too deeply"),
        ("name", "it holds another digest"),
        ("fifo", ""),
        ("missing", "its checksum is another one"),
        ("lacking", "something is missing in it"),
    ],
)
def test_what_is_not_whole_is_reported_and_not_used(
    code: CodeDigest, tmp_path: Path, kind: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_code(tmp_path, code)
    path = tmp_path / ".code" / code.digest
    data = path.read_bytes()
    digest = code.digest
    if kind == "part":
        path.write_bytes(data.replace(code.content.parts["helper.f"].encode(), b"0" * 16))
    elif kind == "source":
        path.write_bytes(data.replace(b"x + 2", b"x + 3"))
    elif kind == "name":
        digest = "0" * 16
        path.rename(path.with_name(digest))
    elif kind == "fifo":
        path.unlink()
        os.mkfifo(path)
    elif kind in ("forged", "lacking"):
        content = json.loads(data)
        del content["sum"]
        if kind == "forged":
            content["parts"]["helper.f"] = "0" * 16
        else:
            del content["parts"]
        path.write_bytes(json.dumps({**content, "sum": record._sum(content)}).encode())
    elif kind == "missing":
        path.write_text(json.dumps({"digest": digest, "sum": "x"}))
    else:
        path.write_bytes({"cut": data[:-9], "empty": b"", "list": b"[]", "deep": b"[" * 100_000}[kind])
    with caplog.at_level(logging.WARNING, "exca"):
        assert read_code(tmp_path, digest) is None
    assert digest in caplog.text
    assert words in caplog.text


def test_it_travels_with_what_it_was_made_of(code: CodeDigest) -> None:
    found = pickle.loads(pickle.dumps(code))
    assert found == code
    assert found.content == code.content
    assert hash(found) == hash(code)
    assert found != code.digest


def test_a_diff_shows_what_has_changed(code: CodeDigest, project: Project) -> None:
    project.write(
        {
            "model.py": "import numpy\n" + MODEL.replace("g(1)", "h(1)"),
            "helper.py": HELPER.replace("x + 2", "x + 4  # four") + "def h(x):\n    'Doc.'\n    return 5\n",
        }
    )
    new = project.digest()
    assert changed_parts(code.content, new.content) == ["helper.f", "helper.g", "helper.h", "model.Model.run"]
    lines = diff(code.content, new.content)
    text = "\n".join(lines)
    assert lines[:6] == [
        "--- helper.f (before)",
        "+++ helper.f (now)",
        "@@ -1,2 +1,2 @@",
        " def f(x):",
        "-    return x + 2",
        "+    return x + 4",
    ]
    assert "+    return 5" in lines
    assert "-    return 3" in lines
    assert "Doc." not in text
    assert "four" not in text
    assert any(line.startswith("numpy: not imported -> ") for line in lines)
    assert diff(new.content, new.content) == []
