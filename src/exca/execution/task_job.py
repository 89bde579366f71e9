"""Handles on tasks: their outcome is the record in their uid folder."""

import contextlib
import typing as tp
from pathlib import Path

from ..errors import JobError
from ..jobs import backends
from ..jobs.job import DoneJob, Job
from ..jobs.paths import fixed_folder
from ..jobs.submission import Submission
from . import record
from .record import KEY

R = tp.TypeVar("R")


class DoneTask(DoneJob[R]):
    """A task that was computed in this process.

    Parameters
    ----------
    folder: Path
        uid folder that holds its record
    value: Any
        its result
    error: Exception, optional
        its error
    """

    def __init__(self, folder: Path, value: tp.Any, error: Exception | None = None) -> None:
        super().__init__(value, error)
        self.folder = folder

    def outcome(self) -> record.Record | None:
        """The outcome on disk, if any."""
        return record.read(self.folder)


class TaskJob(Job[R]):
    """The computation of a task, whose outcome is the record in its uid folder.

    Parameters
    ----------
    folder: Path
        uid folder of the task
    submission: Submission
        where it went
    attempt: str
        token of the computation that is meant; empty for whichever is recorded
    hint: str
        how to compute it again, added to errors
    replaces: str, optional
        the attempt whose outcome was there before and does not count
    """

    def __init__(
        self,
        folder: Path,
        submission: Submission,
        attempt: str = "",
        hint: str = "",
        replaces: str | None = None,
    ) -> None:
        super().__init__(submission)
        self.folder = folder
        self.attempt = attempt
        self.hint = hint
        self.replaces = replaces
        self.nothing_kept = False  # it ended, and is as if it had never been submitted

    def outcome(self) -> record.Record | None:
        """The outcome of this attempt, or of a later one that has taken its place."""
        if not self.attempt:
            return record.latest(self.folder)
        found = record.read(self.folder)
        return None if found is None or found.attempt == self.replaces else found

    def _finished(self) -> bool | None:
        found = self.outcome()
        return None if found is None else found.state == "completed"

    def _word_of_failure(self) -> str:
        found = self.outcome()
        return "FAILED" if found is None else str(found.content.get("ended", "FAILED"))

    @contextlib.contextmanager
    def _waiting(self) -> tp.Iterator[tp.Callable[[float], None]]:
        from ..claims.chain import Waiting

        with Waiting(self.folder, [KEY]) as waiting:
            yield waiting.look

    def _ended_without_outcome(self) -> bool:
        from ..claims import Claims

        for holder in Claims(self.folder).holders().values():
            if holder.token == self.attempt and holder.alive():
                self._process_alive()  # complains where the scheduler has not answered for long
                return False
        alive = self._process_alive()
        # a scheduler that cannot be asked has not said that the job ended; elsewhere the claim tells
        if alive is True or (alive is None and self._backend.decides):
            return False
        return self._finished() is None

    def _send_others(self) -> None:
        if self._backend.decides:
            from .unsent import send

            send(fixed_folder(self.submission.logs))

    def cancel(self) -> None:
        """End the job now; one that is done stays as it is, and of one that has not begun nothing is kept."""
        if self.done():
            return
        backends.cancel([self.submission])
        if not self._began():
            self._give_up()

    def _give_up(self) -> None:
        """Leave no trace of a job that never began, so that the next call computes."""
        from ..claims import Claims

        self.nothing_kept = True
        if self.attempt:
            Claims(self.folder).revoke(self.attempt)

    def result(self) -> R:
        """Wait for the task and return its result.

        Raises
        ------
        Exception
            the error of the task, with its own type where it can be carried, the remote traceback in it
        JobError
            if the job ended without an outcome
        SchedulerError
            if the scheduler has given no answer for so long that it is unknown what became of the job
        """
        self.wait()
        found = self.outcome() or self.record_death()
        if found is None:
            if self.nothing_kept:
                raise JobError(
                    f"{self._name()} ended before it began. {self._backend.ending(self.submission).text} "
                    "Nothing is kept of it: ask again to compute"
                )
            raise JobError(f"the computation of {self.folder} was taken over by another; ask again")
        if found.state == "completed":
            return tp.cast(R, found.value())
        error = found.exception()
        kept = self.outcome()
        if self.hint and kept is not None and kept.attempt == found.attempt:
            error.add_note(self.hint)
        raise error

    def record_death(self) -> record.Record | None:
        """Publish that the job ended without an outcome, so that every later reader knows why.

        Returns
        -------
        Record or None
            None where nothing is kept: the job was cancelled before it began, or ended by the mere warning of a
            preemption, which says nothing about the computation. A result that it was to replace stays: then only
            the caller is told.
        """
        if not self._ended_without_outcome():
            return self.outcome()
        ending = self._backend.ending(self.submission)
        if (ending.state == "CANCELLED" and not self._began()) or ending.warned:
            self._give_up()
            return None
        content = self._error_of_a_rank()
        if content is None:
            content = {"type": "", "message": self.death_notice(), "traceback": "", "pickle": None}
        where = {"ended": ending.state, **self.submission.to_json()}
        return record.publish_failure(self.folder, self.attempt, content, where, self.replaces)


class EarlierJob(TaskJob[R]):
    """A task's job that an earlier release submitted: no failure is kept on its behalf."""

    def record_death(self) -> record.Record | None:
        """Raise that the job ended without an outcome.

        Raises
        ------
        JobError
            always, if there is no outcome by now
        """
        found = self.outcome()
        if found is None and self._ended_without_outcome():
            raise JobError(
                f"{self._name()}, which an earlier release of exca submitted, ended without an outcome that can "
                f"be used. Nothing is kept of it: ask for {self.folder.parent.name}/{self.folder.name} again to "
                "submit it again"
            )
        return found
