"""Commands of Slurm that come late, fail or say nothing: wrappers that stand before the real ones on the PATH."""

import os
import shutil
from pathlib import Path

import pytest


class Faults:
    """Puts wrappers before Slurm's commands, each of which can be changed while tests run.

    Parameters
    ----------
    folder: Path
        where the wrappers lie
    monkeypatch: MonkeyPatch
        by which the PATH is changed
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def real(self, command: str) -> str:
        """Path of a command itself."""
        return str(shutil.which(command, path=os.environ["PATH"].partition(os.pathsep)[2]))

    def put(self, command: str, *lines: str) -> None:
        """Wrap a command: each call is noted, then the lines run, then the real command."""
        real = self.real(command)
        draft = self.folder / f".{command}"
        text = "\n".join(
            ["#!/bin/bash", f'echo "$*" >> {self.folder}/{command}.calls', *lines, f'exec {real} "$@"', ""]
        )
        draft.write_text(text)
        draft.chmod(0o755)
        draft.rename(self.folder / command)

    def fail(self, command: str, said: str = "Unable to contact slurm controller (connect failure)") -> None:
        """Let a command fail."""
        self.put(command, f'echo "{command}: error: {said}" >&2', "exit 1")

    def silence(self, command: str) -> None:
        """Let a command succeed without a word."""
        self.put(command, "exit 0")

    def end(self, command: str) -> None:
        """Let a command be itself again, its calls still noted."""
        self.put(command)

    def calls(self, command: str) -> int:
        """How often a command was called."""
        try:
            return len((self.folder / f"{command}.calls").read_text().splitlines())
        except FileNotFoundError:
            return 0


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Wrappers for Slurm's commands, none to begin with."""
    return Faults(tmp_path / "slurm-bin", monkeypatch)
