"""submitit's debug executor: a job in this process, so that a debugger can be used."""

import logging
import os
import traceback
import typing as tp
import uuid

from .backends import Request
from .inline import InlineBackend
from .job import Submission
from .paths import JobPaths, write_atomically


class DebugBackend(InlineBackend):
    """Runs each job here through submitit's debug executor, which stops at errors in a debugger."""

    def submit(self, request: Request) -> list[Submission]:
        """Run the calls one after the other."""
        import submitit

        out = []
        for call in request.calls:
            executor = submitit.DebugExecutor(folder=request.logs)
            job = executor.submit(call)
            _name_for_good(job, request.logs)
            try:
                job.wait()
            finally:
                _close_logs(job)
            _keep_outcome(job, JobPaths(request.logs, job.job_id))
            out.append(Submission("debug", job.job_id, request.logs))
        return out

    def verdict(self, submission: Submission) -> str:
        """Nothing is known beyond the end of the process."""
        return "It ran in an interpreter that ended."


def _name_for_good(job: tp.Any, logs: str) -> None:
    """Give a job an id of its own: submitit names it after an address in memory, which a later job may get too."""
    name = f"DEBUG_{uuid.uuid4().hex[:12]}"
    job._job_id = job.environ["SUBMITIT_DEBUG_JOB_ID"] = name
    job._paths = type(job.paths)(logs, job_id=name, task_id=0)


def _close_logs(job: tp.Any) -> None:
    """Close the files that submitit logs to: it leaves that to the garbage collector."""
    own = {os.path.abspath(job.paths.stdout), os.path.abspath(job.paths.stderr)}
    for reference in list(logging._handlerList):  # type: ignore[attr-defined] # there is no public way to them
        handler = reference()
        if isinstance(handler, logging.FileHandler) and handler.baseFilename in own:
            handler.close()


def _keep_outcome(job: tp.Any, place: JobPaths) -> None:
    """Write what a job returned where those of other clusters write it: submitit's debug jobs keep it in memory."""
    from .worker import pickled_outcome

    try:
        outcome: tuple[str, tp.Any] = ("success", job.result())
    except Exception:
        outcome = ("error", traceback.format_exc())
    place.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(place.result_pickle, pickled_outcome(outcome))


BACKEND = DebugBackend()
