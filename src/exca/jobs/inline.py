"""Computations in this very thread: done when the call returns."""

import typing as tp

from .backends import Backend, Ending, Request
from .submission import Submission


class InlineBackend(Backend):
    """No job at all: the answers for what ran, or runs, in an interpreter."""

    def submit(self, request: Request) -> list[Submission | None]:
        """Run the calls here and now."""
        for call in request.calls:
            call()
        return [Submission(None, "inline", request.logs) for _ in request.calls]

    def alive(self, submission: Submission) -> bool | None:
        """Unknown here: the claim on the folder tells."""
        return None

    def state(self, submission: Submission) -> str:
        """No scheduler, so no word of its own."""
        return "RUNNING"

    def ending(self, submission: Submission) -> Ending:
        """Nothing is known beyond the end of the process."""
        return Ending("FAILED", "The interpreter that computed it ended.")

    def cancel(self, submissions: tp.Sequence[Submission]) -> None:
        """Nothing to end."""


BACKEND = InlineBackend()
