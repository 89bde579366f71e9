"""What a local job runs.

``python -m exca.jobs.worker <logs> <id> <array size> <workers> <processes> <seconds> <digest>``: the last is that
of what was submitted, or of the list of digests of an array.

An array size of 0 is a single job. A single job of one process runs right here, to save a process;
all else is looked after from here, each process with its own interpreter.
"""

import os
import subprocess
import sys
import threading
import typing as tp

from .. import _files
from .._polling import Poller
from . import entry, paths
from .local import TIMED_OUT, submitit_variables
from .workdir_copy import CODE, require_ours


def main(arguments: tp.Sequence[str]) -> int:
    """Run a job or an array of jobs; exit code 0 where every job left an outcome."""
    logs, base = arguments[:2]
    size, workers, processes = (int(a) for a in arguments[2:5])
    seconds, digest = float(arguments[5]), arguments[6]
    if size == 0 and processes == 1:
        rank = int(os.environ.get("SUBMITIT_LOCAL_GLOBALID", "0"))
        return run(paths.JobPaths(logs, base, rank), seconds, digest)
    from concurrent.futures import ThreadPoolExecutor

    jobs = [(base, digest)]
    if size:
        folder = paths.JobPaths(logs, f"{base}_0").folder
        jobs = [(f"{base}_{k}", paths.digest_of(folder, k, digest)) for k in range(size)]
    with ThreadPoolExecutor(workers) as pool:
        codes = list(pool.map(lambda job: keep(logs, job[0], processes, seconds, job[1]), jobs))
    return max(codes, key=abs)


def run(job_paths: paths.JobPaths, seconds: float, digest: str) -> int:
    """Run one process of a job here and keep what it returns beside its logs."""
    if seconds:
        timer = threading.Timer(seconds, _time_out, (seconds, job_paths))
        timer.daemon = True
        timer.start()
    return entry.run(str(job_paths.submitted_pickle), job_paths, digest)


def keep(logs: str, job_id: str, processes: int, seconds: float, digest: str) -> int:
    """Start the processes of one job and wait for them."""
    started: list[subprocess.Popen[bytes]] = []
    job_paths = paths.JobPaths(logs, job_id)
    if (job_paths.folder / entry.CANCELLED).exists():
        return 1
    if CODE in os.environ:
        try:
            require_ours(os.environ[CODE])
        except OSError as e:  # it was exchanged while this job waited for its turn
            with paths.open_log(job_paths.stderr) as err:
                err.write(f"exca: {e}\n".encode())
            _note_exit(job_paths, 1)
            return 1
    for rank in range(processes):
        own = paths.JobPaths(logs, job_id, rank)
        command = [sys.executable, "-m", "exca.jobs.worker", logs, job_id, "0", "1", "1", str(seconds)]
        command.append(digest)
        env = {**os.environ, **submitit_variables(own, rank, processes)}
        with paths.open_log(own.stdout) as out, paths.open_log(own.stderr) as err:
            started.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env)
            )
    code = _wait_for(started)
    # others of the array may go on for long: a caller that waits for this one learns now how it ended
    _note_exit(job_paths, code)
    return code


def _wait_for(processes: "list[subprocess.Popen[bytes]]") -> int:
    """Wait for the processes of a job; where one fails, the others end with it. Returns the exit code that counts."""
    if len(processes) == 1:
        return processes[0].wait()
    poller = Poller()
    while True:
        codes = [process.poll() for process in processes]
        failed = next((code for code in codes if code), None)
        if failed is not None:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
            return failed
        if None not in codes:
            return 0
        poller.pause()


def _note_exit(job_paths: paths.JobPaths, code: int) -> None:
    _files.write_atomically(job_paths.exit_file, str(code).encode(), mode=_files.OWN)


def _time_out(seconds: float, job_paths: paths.JobPaths) -> None:
    sys.stderr.write(f"exca: time limit of {seconds / 60:g} min reached (timeout_min), ending the job\n")
    sys.stderr.flush()
    _note_exit(job_paths, TIMED_OUT)
    os._exit(TIMED_OUT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
