"""What every job runs: reads what was submitted, calls it, and keeps what came of it beside the logs.

On Slurm: ``python -m exca.jobs.entry <folder of the array> <pattern of the log folders> <digest>``, once per
process of a job. Local jobs come here through ``worker``.
"""

import contextlib
import gc
import os
import pickle
import sys
import time
import typing as tp
from pathlib import Path

from .. import _files, _trust
from ..errors import UntrustedFileError
from . import paths

if tp.TYPE_CHECKING:
    from ..claims.owner import Process

# file with the process that runs the job, there from its beginning; for ranks above 0 see `mark_of`
BEGAN = "pid"
CANCELLED = "cancelled"  # file that keeps from beginning what has not begun


def main(arguments: tp.Sequence[str]) -> int:
    """Run one process of a Slurm job."""
    from . import before_end

    folder, pattern, digest = arguments
    env = os.environ
    job_id, task = env["SLURM_JOB_ID"], env.get("SLURM_ARRAY_TASK_ID")
    if task is not None:
        job_id = f"{env['SLURM_ARRAY_JOB_ID']}_{task}"
    job_paths = paths.JobPaths(pattern, job_id, int(env.get("SLURM_PROCID", "0")))
    env["SUBMITIT_FOLDER"] = pattern  # by which submitit.JobEnvironment finds the files of the job
    before_end.listen()
    own = os.path.join(folder, task or "0")
    paths.link_logs(own, job_paths)
    if task is not None:
        digest = paths.digest_of(folder, int(task), digest)
    return run(os.path.join(own, paths.SUBMITTED), job_paths, digest)


def run(content: str, job_paths: paths.JobPaths, digest: str) -> int:
    """Call what a file holds, if it has this digest, and keep what it returns; exit code 0 unless the call failed."""
    # in this order: a process that cancels leaves the mark first and looks then, so that one of the two sees the other
    mark = job_paths.folder / mark_of(job_paths.rank)
    if job_paths.rank == 0 and mark.exists():
        from . import before_end

        before_end.note_requeue(job_paths, noted_process(mark), noted_time(mark))
    note_process(mark)
    if (job_paths.folder / CANCELLED).exists():
        sys.stderr.write("exca: this job was cancelled before it began\n")
        return 1
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    code = 1
    try:
        data = _files.read_file(content)
        if _files.digest(data) != digest:
            raise UntrustedFileError(
                f"{content} is not what was submitted: it was exchanged, so it is not run"
            )
        with _without_looks_at_modules():
            call = pickle.loads(data)
        outcome: tuple[str, tp.Any] = ("success", call())
        code = 1 if job_paths.rank > 0 and _failed(outcome[1]) else 0  # ends the other processes of the job
    except Exception:
        import traceback

        outcome = ("error", traceback.format_exc())
        sys.stderr.write(outcome[1])
    _files.write_atomically(job_paths.result_pickle, pickled_outcome(outcome), mode=_files.PRIVATE)
    return code


@contextlib.contextmanager
def _without_looks_at_modules() -> tp.Iterator[None]:
    """Load what a job needs, which no garbage collection looks at: neither now, nor later, nor as Python ends."""
    often = gc.get_threshold()
    gc.set_threshold(100_000, *often[1:])
    try:
        yield
    finally:
        gc.set_threshold(*often)
        gc.freeze()  # a sixth of what a trivial job takes


def _failed(value: tp.Any) -> bool:
    if value is None:
        return False
    from .remote_errors import RemoteError

    return isinstance(value, RemoteError)


def pickled_outcome(outcome: tuple[str, tp.Any]) -> bytes:
    """Pickle what a process returned, or the error why that cannot be."""
    if outcome[1] is None:
        return pickle.dumps(outcome)  # a task's, published elsewhere: spare it the import
    import cloudpickle

    try:
        return tp.cast(bytes, cloudpickle.dumps(outcome))
    except Exception as e:
        return pickle.dumps(
            ("error", f"the result, a {type(outcome[1]).__qualname__}, cannot be pickled: {e}")
        )


def has_begun(folder: Path) -> bool:
    """Whether a process has begun to run the job that has this folder of logs."""
    return (folder / BEGAN).exists()


def mark_of(rank: int) -> str:
    """Name of the file that tells which process runs a rank of a job."""
    return BEGAN if rank == 0 else f"{BEGAN}-{rank}"


def note_process(path: Path, process: "Process | None" = None) -> None:
    """Note which process (by default this one) does something, told from every other by its start time."""
    import orjson

    from ..claims.owner import Process

    me = process or Process.current()
    content = {"host": me.host, "hostname": me.hostname, "pid": me.pid, "start": me.start, "at": time.time()}
    _files.write_atomically(path, orjson.dumps(content), mode=_files.OWN)


def noted_time(path: Path) -> float:
    """When a process was noted in a file, by the clock of its host where that is known."""
    import orjson

    try:
        at = orjson.loads(_trust.read_trusted(path))["at"]
    except (OSError, ValueError, KeyError, TypeError):
        at = None
    return at if isinstance(at, float) else path.stat().st_mtime


def noted_process(path: Path) -> "Process | None":
    """The process that was noted in a file; None where there is no such file, or nothing of use in it."""
    import orjson

    from ..claims.owner import Process

    try:
        # trusted, or another user could name a process of ours to be ended
        content = orjson.loads(_trust.read_trusted(path))
        host, hostname, pid, start = (content[name] for name in ("host", "hostname", "pid", "start"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    texts = isinstance(host, str) and isinstance(hostname, str) and isinstance(start, str)
    return (
        Process(host, hostname, pid, start) if texts and isinstance(pid, int) and pid > 0 and start else None
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
