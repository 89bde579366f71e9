"""What a local job runs: ``python -m exca.execution.worker <logs> <id> <array size> <workers> <processes> <seconds>``.

An array size of 0 is a single job. A single job of one process runs right here, to save a process;
all else is looked after from here, each process with its own interpreter.
"""

import os
import pickle
import subprocess
import sys
import threading
import typing as tp

from .._files import write_atomically
from . import paths
from .local import submitit_variables


def main(arguments: tp.Sequence[str]) -> int:
    """Run a job or an array of jobs.

    Parameters
    ----------
    arguments: sequence of str
        as in the usage above

    Returns
    -------
    int
        exit code: 0 where every job left an outcome
    """
    logs, base = arguments[:2]
    size, workers, processes = (int(a) for a in arguments[2:5])
    seconds = float(arguments[5])
    if size == 0 and processes == 1:
        return run(paths.JobPaths(logs, base, int(os.environ.get("SUBMITIT_LOCAL_GLOBALID", "0"))), seconds)
    from concurrent.futures import ThreadPoolExecutor

    ids = [f"{base}_{k}" for k in range(size)] if size else [base]
    with ThreadPoolExecutor(workers) as pool:
        codes = list(pool.map(lambda job_id: keep(logs, job_id, processes, seconds), ids))
    return max(codes, key=abs)


def run(job_paths: paths.JobPaths, seconds: float) -> int:
    """Run one process of a job here and keep what it returns beside its logs.

    Parameters
    ----------
    job_paths: JobPaths
        the job and the rank of the process
    seconds: float
        time limit; 0 for none
    """
    if job_paths.rank == 0:
        write_atomically(job_paths.folder / "pid", str(os.getpid()).encode())
    if seconds:
        timer = threading.Timer(seconds, _time_out, (seconds,))
        timer.daemon = True
        timer.start()
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    with open(job_paths.submitted_pickle, "rb") as f:
        call = pickle.load(f)
    try:
        outcome: tuple[str, tp.Any] = ("success", call())
        code = 0
    except Exception:
        import traceback

        outcome, code = ("error", traceback.format_exc()), 1
        sys.stderr.write(outcome[1])
    write_atomically(job_paths.result_pickle, pickled_outcome(outcome))
    return code


def pickled_outcome(outcome: tuple[str, tp.Any]) -> bytes:
    """Pickle what a process returned, or the error that says why that cannot be.

    Parameters
    ----------
    outcome: tuple
        "success" and the value, or "error" and the traceback
    """
    if outcome[1] is None:
        return pickle.dumps(outcome)  # a task's, published elsewhere: spare it the import
    import cloudpickle

    try:
        return tp.cast(bytes, cloudpickle.dumps(outcome))
    except Exception as e:
        return pickle.dumps(
            ("error", f"the result, a {type(outcome[1]).__qualname__}, cannot be pickled: {e}")
        )


def keep(logs: str, job_id: str, processes: int, seconds: float) -> int:
    """Start the processes of one job and wait for them.

    Parameters
    ----------
    logs, job_id: str
        the job
    processes: int
        how many
    seconds: float
        time limit; 0 for none
    """
    started = []
    if (paths.JobPaths(logs, job_id).folder / "cancelled").exists():
        return 1
    for rank in range(processes):
        job_paths = paths.JobPaths(logs, job_id, rank)
        command = [sys.executable, "-m", "exca.execution.worker", logs, job_id, "0", "1", "1", str(seconds)]
        env = {**os.environ, **submitit_variables(job_paths, rank, processes)}
        with open(job_paths.stdout, "ab") as out, open(job_paths.stderr, "ab") as err:
            started.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env)
            )
    code = max((process.wait() for process in started), key=abs)
    # others of the array may go on for long: who waits for this one is to know now, and how it ended
    write_atomically(paths.JobPaths(logs, job_id).exit_file, str(code).encode())
    return code


def _time_out(seconds: float) -> None:
    sys.stderr.write(f"exca: time limit of {seconds / 60:g} min reached (timeout_min), ending the job\n")
    sys.stderr.flush()
    os._exit(124)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
