"""submitit's debug executor: a job in this process, so that a debugger can be used."""

import logging
import os
import traceback
import typing as tp
import uuid

from .._files import write_atomically
from .backends import Ending, InlineBackend, Request, Submission
from .paths import JobPaths


class DebugBackend(InlineBackend):
    """Runs each job here through submitit's debug executor, which stops at errors in a debugger."""

    def submit(self, request: Request) -> list[Submission | None]:
        """Run the calls one after the other."""
        import submitit

        out: list[Submission | None] = []
        for call in request.calls:
            job = _prepared(submitit.DebugExecutor(folder=request.logs), call, request.logs)
            job.wait()
            _keep_outcome(job, JobPaths(request.logs, job.job_id))
            out.append(Submission("debug", job.job_id, request.logs))
        return out

    def ending(self, submission: Submission) -> Ending:
        """Nothing is known beyond the end of the process."""
        return Ending("FAILED", "It ran in an interpreter that ended.")


def _prepared(executor: tp.Any, call: tp.Callable[[], tp.Any], logs: str) -> tp.Any:
    """A job of submitit's that has not run yet, with an id of its own and files that it closes."""

    def run() -> tp.Any:
        try:
            return call()
        finally:
            for handler in logging.getLogger().handlers:
                if isinstance(handler, logging.FileHandler) and handler.baseFilename in files:
                    handler.close()  # submitit leaves that to the garbage collector

    job = executor.submit(run)
    # submitit names it after an address in memory, which a later job may get too
    name = f"DEBUG_{uuid.uuid4().hex[:12]}"
    job._job_id = job.environ["SUBMITIT_DEBUG_JOB_ID"] = name
    job._paths = type(job.paths)(logs, job_id=name, task_id=0)
    files = {os.path.abspath(job.paths.stdout), os.path.abspath(job.paths.stderr)}
    return job


def _keep_outcome(job: tp.Any, place: JobPaths) -> None:
    """Write what a job returned where those of other clusters write it: submitit's debug jobs keep it in memory."""
    from .entry import pickled_outcome

    try:
        outcome: tuple[str, tp.Any] = ("success", job.result())
    except Exception:
        outcome = ("error", traceback.format_exc())
    place.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(place.result_pickle, pickled_outcome(outcome))


BACKEND = DebugBackend()
