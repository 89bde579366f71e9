"""The command watch: the tasks of a folder on one screen, again and again, with keys to act on one of them."""

import argparse
import collections
import os
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..catalog.rows import Row, printable
from .looking import columns_of
from .output import Output
from .tasks import selection

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _REST = "\x1b[H", "\x1b[J"
_KEYS = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "j": "down",
    "k": "cancel",
    "c": "cancel",
    "l": "log",
    "r": "retry",
    "q": "quit",
}


def watch(options: argparse.Namespace) -> int:
    """Show the tasks until ``q`` is pressed."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ValueError("watch needs a terminal: `exca ls` prints the same once")
    marked = 0
    said = ""
    with _screen():
        while True:
            rows = sorted(selection(options).rows(), key=lambda row: (row.state != "running", -row.when))
            marked = max(0, min(marked, len(rows) - 1))
            _draw(rows, marked, said)
            key = _key(options.interval)
            said = ""
            if key == "quit":
                return 0
            if key in ("up", "down"):
                marked += 1 if key == "down" else -1
            elif key is not None and rows:
                said = _act(key, rows[marked])


def _draw(rows: Sequence[Row], marked: int, said: str) -> None:
    out = Output()
    size = shutil.get_terminal_size()
    counts = collections.Counter(row.state for row in rows)
    head = f"{time.strftime('%H:%M:%S')}  " + ", ".join(f"{n} {state}" for state, n in counts.most_common())
    room = max(1, size.lines - 4)
    first = max(0, min(marked - room // 2, len(rows) - room))
    shown = rows[first : first + room]
    lines = out.table(shown, columns_of(shown)) if shown else ["  nothing is cached here"]
    if shown and marked - first + 1 < len(lines):
        lines[marked - first + 1] = ">" + lines[marked - first + 1][1:]
    foot = said or "up, down: mark   c: cancel   l: log   r: retry   q: quit"
    text = "\r\n".join(f"{out.shown(line)}\x1b[K" for line in [head, "", *lines[: size.lines - 3], foot])
    sys.stdout.write(_HOME + text + _REST)
    sys.stdout.flush()


def _act(key: str, row: Row) -> str:
    """Let another process of this command act on a task."""
    arguments = {
        "cancel": ["cancel", row.folder, "-y"],
        "log": ["logs", row.folder, "-n", "1000"],
        "retry": ["retry", row.folder],
    }[key]
    command = [sys.executable, "-m", "exca", *arguments]
    if key == "log":
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        pager = shlex.split(os.environ.get("PAGER") or "less")
        done = subprocess.run(command, capture_output=True, check=False)
        lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
        try:
            text = "".join(f"{printable(line)}\n" for line in lines)
            subprocess.run(pager, input=text.encode(), check=False)
        except OSError as e:
            return f"cannot start the pager {pager[0]} ({e.strerror}): set PAGER to another one"
        finally:
            sys.stdout.write(_ENTER)
        return ""
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return " ".join((ended.stdout + ended.stderr).split())[-200:]


@contextmanager
def _screen() -> Iterator[None]:
    """A screen of its own, on which keys are read one by one."""
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    sys.stdout.write(_ENTER)
    try:
        tty.setcbreak(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def _key(timeout: float) -> str | None:
    """The key that is pressed within so many seconds."""
    if not select.select([sys.stdin], [], [], timeout)[0]:
        return None
    text = os.read(sys.stdin.fileno(), 8).decode("utf-8", "replace")
    return _KEYS.get(text)
