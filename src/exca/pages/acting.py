"""What a page may ask for when actions are allowed: done by another process of the command, which says how it went."""

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from ..catalog.rows import Row

ACTIONS: dict[str, tuple[str, ...]] = {  # and in which states they make sense
    "cancel": ("running",),
    "retry": ("failed", "interrupted"),
}
MOST_AT_ONCE = 2000  # runs that one form may name
_PATIENCE = 10.0  # seconds; a task that is computed by the other process itself may take longer
_LOOK = 0.05
_SHOWN = 2000


class Actor:
    """Starts what was asked for, one thing at a time for each task.

    No code of the user is imported by this process: `exca retry` imports what it computes, as it does on the command
    line, and refuses the module that another user's folder names.
    """

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[None]] = {}
        self._said: dict[str, str] = {}

    def said(self, page: str) -> str:
        """What became of what was last asked for on a page; "" where nothing was."""
        return self._said.get(page, "")

    async def act(self, action: str, rows: Sequence[Row], page: str) -> None:
        """Do something to tasks, and wait for a while for its end.

        Parameters
        ----------
        action: str
            one of `ACTIONS`
        rows: sequence of Row
            the tasks; those for which something runs already are left alone
        page: str
            a name of the page that shows what became of it
        """
        free = [row for row in rows if (known := self._running.get(row.folder)) is None or known.done()]
        if not free:
            return
        fitting = [row for row in free if row.state in ACTIONS[action]]
        if not fitting:
            states = " or ".join(sorted({row.state for row in free}))
            they = "It is" if len(rows) == 1 else "They are"
            self._said[page] = f"{they} {states} by now, so there is nothing to {action}."
            return
        left = (
            f"{len(rows) - len(fitting):,} of {len(rows):,} left alone; " if len(fitting) < len(rows) else ""
        )
        arguments = [action, *(row.folder for row in fitting), *(["-y"] if action == "cancel" else [])]
        self._said[page] = f"{left}exca {action} runs: this page shows how it ends."
        task = asyncio.create_task(self._do(arguments, page, left))
        self._running.update((row.folder, task) for row in fitting)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), _PATIENCE)

    async def _do(self, arguments: list[str], page: str, left: str) -> None:
        self._said[page] = f"{left}{await _outcome(arguments)}"


async def _outcome(arguments: list[str]) -> str:
    """What a command prints; it goes on should this process end."""
    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen(  # noqa: ASYNC220 # one of asyncio would be killed when this process ends
            [sys.executable, "-m", "exca", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while process.poll() is None:  # noqa: ASYNC110 # nothing tells the end of a process that is none of asyncio's
            await asyncio.sleep(_LOOK)
        file.seek(0)
        lines = file.read().decode("utf-8", "replace").strip()[-_SHOWN:].splitlines()
    return "; ".join(line.strip() for line in lines) or f"exca {arguments[0]} ended with {process.returncode}"
