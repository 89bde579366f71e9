"""Completion: what a real bash makes of the script, and no word that a shell would expand."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import trained
from saying import say

pytest.importorskip("shtab")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completing")
    trained.train(folder, rate=1.0).loss()
    (folder / "trained.Train.loss,1" / "$(touch evil)").mkdir()
    (folder / "trained.Train.loss,1" / "$(touch evil)" / "uid.yaml").write_text("rate: 2\n")
    (folder / ".sweeps").mkdir()
    for name in ("wide", "`touch evil`"):
        (folder / ".sweeps" / f"{name}.json").write_text("{}")
    command = folder / "bin" / "exca"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\nexec "{sys.executable}" -m exca "$@"\n')
    command.chmod(0o755)
    return folder


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{cache / 'bin'}:{os.environ['PATH']}", "TERM": "dumb", "PS1": "> "}


def test_what_bash_completes(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = cache / "bin" / "completion"
    script.write_text(say(capsys, "completion", "bash"))
    cases = {
        "exca sho": ["show"],
        "exca ls --stat": ["--state"],
        "exca ls --state comp": ["completed"],
        "exca show trai": ["trained.Train.loss"],
        "exca ls --sweep ": ["wide"],
        "exca export --to ten": ["tensorboard"],
        "exca verify b": ["bin"],
    }
    lines = [f"source {script}"]
    for line in cases:
        words = line.split(" ")
        quoted = " ".join(f"'{word}'" for word in words)
        lines.append(
            f'COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _shtab_exca; echo "${{COMPREPLY[*]}}"'
        )
    ran = subprocess.run(
        ["bash", "--norc"],
        input="\n".join(lines),
        cwd=cache,
        env=environment(cache),
        capture_output=True,
        text=True,
        check=True,
    )
    assert dict(zip(cases, map(str.split, ran.stdout.splitlines()), strict=True)) == cases
    assert not (cache / "evil").exists()


def test_a_key_in_a_real_bash(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "bin" / "completion").write_text(say(capsys, "completion", "bash"))
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(cache)
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment(cache))  # a terminal's
    try:
        os.write(terminal, b"source bin/completion; echo rea''dy\n")
        read_until(terminal, b"\nready")
        os.write(terminal, b"exca accep\t--li\t; echo do''ne\n")
        said = read_until(terminal, b"\ndone")
        assert b"exca accept --list" in said
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def read_until(terminal: int, text: bytes) -> bytes:
    """What a terminal shows, until there is a text."""
    said = b""
    end = time.monotonic() + 60
    while text not in said.replace(b"\r", b""):
        assert select.select([terminal], [], [], max(0, end - time.monotonic()))[0], said
        said += os.read(terminal, 4096)
    return said


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
def test_what_fish_completes(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = cache / "bin" / "exca.fish"
    script.write_text(say(capsys, "completion", "fish"))
    cases = {
        "exca sho": ["show"],
        "exca ls --stat": ["--state"],
        "exca ls --state comp": ["completed"],
        "exca show trai": ["trained.Train.loss"],
        "exca ls --sweep w": ["wide"],
        "exca export --to ten": ["tensorboard"],
        "exca verify b": ["bin/"],
    }
    shown = [f"echo (complete -C '{line}' | string replace -r '\\t.*' '')" for line in cases]
    lines = [f"source {script}", *shown]
    ran = subprocess.run(
        ["fish", "--no-config", "-c", "\n".join(lines)],
        cwd=cache,
        env=environment(cache),
        capture_output=True,
        text=True,
        check=True,
    )
    assert dict(zip(cases, map(str.split, ran.stdout.splitlines()), strict=True)) == cases
    assert not (cache / "evil").exists()


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")
def test_keys_in_a_real_zsh(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    functions = cache / "bin" / "functions"
    functions.mkdir()
    (functions / "_exca").write_text(say(capsys, "completion", "zsh"))
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(cache)
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**environment(cache), "TERM": "xterm"})
    try:
        start = f"fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D; echo rea''dy\n"
        os.write(terminal, start.encode())
        read_until(terminal, b"\nready")
        (cache / "asked").unlink(missing_ok=True)
        # each key is pressed when the last one has been answered: keys in between would count as text
        for keys, said in (
            (b"exca accep\t", b"accept"),
            (b"--li\t", b"--list"),
            (b"--task trai\t", b"trained.Train.loss"),
        ):
            os.write(terminal, keys)
            read_until(terminal, said)
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    asked = (cache / "asked").read_text().splitlines()
    assert set(asked) == {"completion tasks"}  # what the key asks for, and nothing when the script is loaded
    assert not (cache / "evil").exists()


def test_no_word_that_a_shell_would_expand(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "completion", "tasks", "-C", cache).split()
    assert said[-1] == "trained.Train.loss"
    assert len(said) == 2
    assert say(capsys, "completion", "sweeps", "-C", cache) == "wide\n"
    assert say(capsys, "completion", "sweeps", "-C", cache / "bin") == ""
    assert "completed\nfailed\n" in say(capsys, "completion", "states")
