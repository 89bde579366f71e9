"""What a page may ask for when actions are allowed: done by another process of the command, which says how it went."""

import asyncio
import contextlib
import subprocess
import sys
import tempfile

from ..catalog.rows import Row

ACTIONS: dict[str, tuple[str, ...]] = {  # and in which states they make sense
    "cancel": ("running",),
    "retry": ("failed", "interrupted"),
}
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

    def said(self, row: Row) -> str:
        """What became of what was last asked for; "" where nothing was."""
        return self._said.get(row.folder, "")

    async def act(self, action: str, row: Row) -> None:
        """Do something to a task, and wait for a while for its end."""
        known = self._running.get(row.folder)
        if known is not None and not known.done():
            return
        if row.state not in ACTIONS[action]:
            self._said[row.folder] = f"It is {row.state} by now, so there is nothing to {action}."
            return
        arguments = ["cancel", row.folder, "-y"] if action == "cancel" else ["retry", row.folder]
        self._said[row.folder] = f"exca {action} runs: this page shows how it ends."
        self._running[row.folder] = task = asyncio.create_task(self._do(arguments, row.folder))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), _PATIENCE)

    async def _do(self, arguments: list[str], folder: str) -> None:
        self._said[folder] = await _outcome(arguments)


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
