"""dora: an experiment with a signature of its arguments; `dora launch` submits it, and follows the log of the job."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import dora

import compared

TRAIN = """
import os

import dora

import program


@dora.argparse_main(dir=os.environ["DORA_FOLDER"], parser=program.parser())
def main():
    program.app()
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("--x", type=int)
    made.add_argument("--scale", type=float, default=compared.SCALE)
    return made


def app() -> None:
    options = dora.get_xp().cfg
    result = compared.compute(options.x, options.scale)
    compared.show(lambda: result)


def launch(folder: str, text: str) -> None:
    """Submit from a package in a git repository, as dora wants it."""
    package = Path("study")
    if not package.exists():
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "train.py").write_text(TRAIN)
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        for command in (["init", "-q"], ["add", "study"], [*identity, "commit", "-qm", "study"]):
            subprocess.run(["git", *command], check=True)
    os.environ["DORA_FOLDER"] = folder
    print("ASKING", flush=True)
    program = Path(sys.executable).with_name("dora")
    command = [str(program), "-P", "study", "launch", "--no_git_save", "-p", "debug", "--", f"--x={text}"]
    os.execv(command[0], command)  # noqa: S606 # no shell on purpose


def main() -> None:
    mode, folder, text = sys.argv[1:]
    if mode == "slurm":
        launch(folder, text)
    sys.argv[1:] = [f"--x={text}"]
    dora.argparse_main(dir=Path(folder), parser=parser())(app)()
