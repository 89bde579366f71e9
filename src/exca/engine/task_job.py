"""Handles on tasks: their outcome is the record in their uid folder."""

import contextlib
import typing as tp
from pathlib import Path

from .._log import logger
from .._polling import Poller
from ..errors import JobError
from ..jobs import backends, losses
from ..jobs.backends import Submission
from ..jobs.job import SAY_WHY, DoneJob, Job
from ..jobs.paths import fixed_folder
from . import record, unsent
from .record import KEY

if tp.TYPE_CHECKING:
    from ..claims import Holder
    from .tasks import Task

R = tp.TypeVar("R")
Again = tp.Callable[[], "TaskJob[tp.Any] | DoneJob[tp.Any] | None"]


class TaskJob(Job[R]):
    """The computation of a task, whose outcome is the record in its uid folder."""

    def __init__(
        self,
        folder: Path,
        submission: Submission,
        attempt: str = "",
        hint: str = "",
        replaces: str | None = None,
        *,
        again: "Again | None" = None,
    ) -> None:
        super().__init__(submission)
        self.folder = folder
        self.attempt: str = attempt  # token of the computation that is meant; empty for whichever is recorded
        self.hint = hint  # how to compute it again, added to errors
        self.replaces: str | None = replaces  # the attempt whose outcome was there before and does not count
        self.nothing_kept: bool = False  # it ended, and is as if it had never been submitted
        self.lost: bool = False  # it ended without an outcome, with attempts left
        self._again = again  # submits the next attempt
        self._unsent: UnsentJob[R] | None = None  # the next attempt, where there is no room for it yet

    def __getstate__(self) -> dict[str, tp.Any]:
        # the handle that travels tells of this attempt: what submits the next one holds locks
        return {**self.__dict__, "_again": None, "_unsent": None}

    def outcome(self) -> record.Record | None:
        """The outcome of this attempt, or of a later one that has taken its place."""
        if not self.attempt:
            return record.latest(self.folder)
        found = record.read(self.folder)
        return None if found is None or found.attempt == self.replaces else found

    def goes_on_after(self, found: record.Record) -> bool:
        """Whether it is to replace this outcome, and may still do so."""
        if self.nothing_kept or self.replaces is None or self.replaces != found.attempt:
            return False
        return self.cluster is not None or not self._ended_without_outcome()

    def _finished(self) -> bool | None:
        found = self.outcome()
        return None if found is None else found.state == "completed"

    def _word_of_failure(self) -> str:
        found = self.outcome()
        return "FAILED" if found is None else str(found.content.get("ended", "FAILED"))

    @contextlib.contextmanager
    def waiting(self) -> tp.Iterator[tp.Callable[[float], None]]:
        """Context of waiting: circles of computations that wait for each other are looked for."""
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

    def send_others(self) -> None:
        """Send what waits for room with the same logs."""
        if self._backend.decides:
            unsent.send(fixed_folder(self.submission.logs))

    def sent_with(self) -> tp.Hashable:
        """What waits for room with the same logs is sent together."""
        return self.cluster, fixed_folder(self.submission.logs)

    def send_again_by(self, again: Again) -> None:
        """Have something else submit the next attempt, should this one be lost."""
        if self._again is not None:
            self._again = again

    def is_lost(self) -> bool:
        """Whether it ended without an outcome and is to be submitted again, which the backend is asked here."""
        if self._again is None or self._finished() is not None or self._unsent is not None:
            return False
        return self.record_death() is None and self.lost

    def go_on(self) -> bool:
        """Have the next attempt submitted, where this one was lost, without waiting for it; whether there is one."""
        return self.is_lost() and (self._follow(0.0) or self._unsent is not None)

    def is_listed(self) -> bool:
        """Whether it waits to be sent, so that there is nothing to ask about it yet."""
        return self._unsent is not None and self._unsent.is_listed()

    def done(self) -> bool:
        """Whether there is an outcome, be it a result or an error, or the attempt was lost."""
        if self._unsent is not None:
            return self._unsent.done()
        return super().done()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job is done; attempts that were lost are submitted again, as often as they may be."""
        poller = Poller(timeout)
        while True:
            if self._unsent is None and not super().wait(poller.left):
                return False
            if self._unsent is None and not self.is_lost():
                return True
            if not self._follow(poller.left):
                return self._unsent is None  # else it waits for room

    def _follow(self, timeout: float | None) -> bool:
        """Have the next attempt submitted, and become the handle of it; False where that cannot be, or not yet."""
        later: tp.Any = self._unsent or (None if self._again is None else self._again())
        if later is None:
            return False
        if isinstance(later, UnsentJob):
            self._unsent = later
            if not later.wait(timeout):
                return False
            self._unsent, later = None, later.sent() or later
        if isinstance(later, DoneJob) and later.error is not None and self.outcome() is None:
            raise later.error  # of a caller that computed it, and could not keep the error
        if later.submission.cluster is None or later.job_id:
            self.submission: Submission = later.submission
        if isinstance(later, TaskJob):
            self.attempt, self.replaces = later.attempt, later.replaces
        self.lost = False
        return True

    def cancel(self) -> None:
        """End the job now; one that is done stays as it is, and of one that has not begun nothing is kept."""
        if self._unsent is not None:
            self._unsent.cancel()
        else:
            super().cancel()

    def was_cancelled(self) -> None:
        """Leave no trace of a job that had not begun, and submit none after it."""
        self._again = None
        if not self.began():
            self._give_up()

    def _give_up(self) -> None:
        """Leave no trace of a job that never began, so that the next call computes."""
        from ..claims import Claims

        self.nothing_kept = True
        if self.attempt:
            Claims(self.folder).revoke(self.attempt)

    def result(self) -> R:
        """Wait for the task and return its result, or raise its error.

        Raises
        ------
        JobError
            if the job ended without an outcome
        SchedulerError
            if the scheduler has given no answer for so long that it is unknown what became of the job
        """
        self.wait()
        found = self.outcome() or self.record_death()
        if found is None:
            if self.lost:
                raise JobError(
                    f"{self.label()} was lost. {self._backend.ending(self.submission).text} Nothing is kept of it, and "
                    "there are attempts left: ask again, in a mode that computes, to submit the next one"
                )
            if self.nothing_kept:
                raise JobError(
                    f"{self.label()} ended before it began. {self._backend.ending(self.submission).text} "
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

        None where nothing is kept: the job was cancelled before it began, or ended by the mere warning of a preemption,
        which tells nothing about the computation; or it was a process and no job. None as well where it was lost with
        attempts left, which is noted for the next caller that submits. A result that it was to replace stays: then
        only the caller sees it.
        """
        if not self._ended_without_outcome():
            return self.outcome()
        if self.cluster is None and not self.job_id:
            # a process that computed it, or was killed while it submitted: that tells nothing about the computation
            self.lost = self._again is not None
            self.nothing_kept = not self.lost
            return None
        submitted = record.read_submission(self.folder)
        ending, began = self._backend.ending(self.submission), self.began()
        if self._noted_as_lost(submitted, ending):
            return None
        if (ending.state == "CANCELLED" and not began) or ending.warned:
            self._give_up()
            return None
        content, kind = self._error_of_a_rank(), losses.kind_of(ending, began=began)
        where = {"ended": ending.state, **self.submission.to_json()}
        if content is None:
            content = {"type": "", "message": self.death_notice(), "traceback": "", "pickle": None}
            where["loss"] = kind
        mine = submitted is not None and submitted.attempt == self.attempt
        lost = (*(submitted.lost if submitted is not None and mine else ()), *self._requeues())
        return record.publish_death(self.folder, self.attempt, content, where, self.replaces, lost=lost)

    def note_if_lost(self) -> None:
        """Note that the job was lost with attempts left, where it was, and publish nothing of it otherwise."""
        if self._ended_without_outcome():
            self._noted_as_lost(record.read_submission(self.folder), self._backend.ending(self.submission))

    def _noted_as_lost(self, submitted: record.Submitted | None, ending: backends.Ending) -> bool:
        """Whether the job, which ended without an outcome, is one to try again: then that is noted."""
        if submitted is None:
            return False
        if self.attempt not in {each.get("attempt") for each in submitted.lost}:
            began = self.began()
            kind = losses.kind_of(ending, began=began)
            taken_back = kind == "cancelled" and not began  # as if it had never been submitted
            again = submitted.policy.tries_again(kind, submitted.lost) and not taken_back
            if submitted.attempt != self.attempt or not again or self._error_of_a_rank() is not None:
                return False
            self._note_loss(kind, ending, submitted)
        self.lost = True
        return True

    def _note_loss(self, kind: str, ending: backends.Ending, submitted: record.Submitted) -> None:
        host, began = self.began_at()
        started = None if began is None else record.iso(began)
        where, at = self.submission.to_json(), submitted.at
        loss = record.loss_of(
            kind, ending.text, self.attempt, where, host=host, submitted=at, started=started
        )
        if not ending.counts:
            loss["counts"] = False
        record.note_loss(self.folder, self.attempt, [*self._requeues(), loss])
        logger.info(
            "%s was lost (%s): attempt %d of up to %d follows",
            *(self.label(), kind, losses.number_of(submitted.lost) + 2, submitted.policy.retries + 1),
        )

    def _requeues(self) -> list[losses.Attempt]:
        """The runs of the job before the scheduler requeued it."""
        if not self.submission.trusted:
            return []
        return record.requeues(self.paths.folder, self.attempt, self.submission.to_json())


def job_behind(
    folder: Path, holder: "Holder", before: record.Record | None, logs: str, **options: tp.Any
) -> TaskJob[tp.Any]:
    """The job behind a claim, which was looked for after the outcome; ``logs`` are those of jobs that name none."""
    replaces = None if before is None or before.attempt == holder.token else before.attempt
    submission = Submission(None, "", "")
    announced = holder.announced
    if holder.owner.kind == "job":
        submitted = record.read_submission(folder)
        submission = submission if submitted is None else submitted.submission
        if not holder.trusted:
            submission = submission._replace(trusted=False)
    elif announced is not None:  # its submitter died before it could say which job it had become
        found = backends.tagged(announced.cluster, announced.tag, announced.task, announced.logs or logs)
        submission = found or submission
    return TaskJob(folder, submission, holder.token, replaces=replaces, **options)


class EarlierJob(TaskJob[R]):
    """A task's job that an earlier release submitted: no failure is kept on its behalf."""

    def record_death(self) -> record.Record | None:
        """Raise a JobError where the job ended without an outcome."""
        found = self.outcome()
        if found is None and self._ended_without_outcome():
            raise JobError(
                f"{self.label()}, which an earlier release of exca submitted, ended without an outcome that can "
                f"be used. Nothing is kept of it: ask for {self.folder.parent.name}/{self.folder.name} again to "
                "submit it again"
            )
        return found


class UnsentJob(TaskJob[R]):
    """A task that waits for room in the queue, or for tasks before it that its backend cannot wait for."""

    def __init__(self, task: "Task", logs: Path, cluster: str, *, held: bool = False) -> None:
        super().__init__(task.method.folder, Submission(cluster, "", str(logs / "%j")), "", task.hint)
        self._task = task
        self._logs = logs
        self._sent: Job[tp.Any] | None = None
        self._held = held  # by tasks before it

    def sent(self) -> Job[tp.Any] | None:
        """The job once there is one."""
        if self._sent is None:
            found = self._task.running_job(record.latest(self.folder))
            if found is not None and found.job_id:
                self._sent = found
                self.submission: Submission = found.submission
        return self._sent

    @property
    def state(self) -> str:
        """The scheduler's word for the state of the job, ``UNSUBMITTED`` as long as it is not sent."""
        if self._finished() is None and self.sent() is None:
            return "UNSUBMITTED"
        return super().state

    def outcome(self) -> record.Record | None:
        """The outcome, once there is one."""
        found = record.latest(self.folder)
        return None if found is None or (self._task.method.mode != "cached" and not self._sent) else found

    def describe(self) -> str:
        """The task in words."""
        job = self.sent()
        why = "which comes after tasks that are not done" if self._held else "for which there is no room yet"
        return f"{self.folder.name}, {why}" if job is None else job.describe()

    def done(self) -> bool:
        """Whether there is an outcome, be it a result or an error, or it will not be sent any more."""
        if self._finished() is not None or self.nothing_kept:
            return True
        if self.sent() is not None:
            return super().done()
        if unsent.holds(self._logs, self.folder):
            return False
        self.nothing_kept: bool = self.sent() is None  # it may have been sent just before it left the list
        return self.nothing_kept or super().done()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job is sent and done, sending what there is room for meanwhile."""
        poller = Poller(timeout)
        try:
            while self._finished() is None:
                job = self.sent()
                if job is not None:
                    return job.wait(poller.left)
                self.send_others()
                if not unsent.holds(self._logs, self.folder) and self.sent() is None:
                    return self._finished() is not None  # nothing waits any more: ask again
                if poller.is_time_once("to tell", after=SAY_WHY):
                    logger.info("Still waiting for %s", self.describe())
                if not poller.pause():
                    return False
        except KeyboardInterrupt:
            logger.warning(
                "Interrupted while waiting for room in the queue: %s was not submitted yet. It is sent as soon as "
                "another call waits for it, or submits with the same logs; infra.job().cancel() takes it off the list",
                self.folder.name,
            )
            raise
        return True

    def result(self) -> R:
        """Wait for the task and return its result."""
        self.wait()
        job = self.sent()
        if job is not None:
            return tp.cast(R, job.result())
        if self.outcome() is None:
            raise JobError(
                f"{self.folder.name} waited {'for tasks before it' if self._held else 'for room in the queue'} and was "
                "not submitted: it was cancelled, or refused (see the log). Nothing is kept of it: ask again to submit "
                "it"
            )
        return super().result()

    def send_others(self) -> None:
        """Send what waits for room with the same logs."""
        if self._held:
            self._task.go_on_before()
        unsent.send(self._logs)

    def is_listed(self) -> bool:
        """Whether it is on the list of what waits for room."""
        return self._sent is None and unsent.holds(self._logs, self.folder, recently=True)

    def cancel(self) -> None:
        """Take it off the list, or end its job."""
        job = self.sent()
        if job is not None:
            job.cancel()
            return
        unsent.forget(self._logs, self.folder)
        self.nothing_kept = True
