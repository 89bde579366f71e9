"""Other interpreters, which know the modules of this folder."""

import os
import subprocess
import sys
from pathlib import Path

# what their programs start with
KNOWING = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"


def start(code: str, *args: str, **env: str) -> "subprocess.Popen[str]":
    """Start another interpreter, with pipes for stdout and stderr."""
    return subprocess.Popen(
        [sys.executable, "-c", KNOWING + code, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )


def run(code: str, *args: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run code in another interpreter to its end."""
    process = start(code, *args, **env)
    try:
        out, err = process.communicate(timeout=100)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def printed(code: str, *args: str, **env: str) -> str:
    """Return what code prints that another interpreter runs without an error."""
    done = run(code, *args, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
