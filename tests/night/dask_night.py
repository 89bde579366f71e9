"""A night on Dask: trainings in jobs of several and of one, killed workers, a scheduler that does not answer."""

import argparse
import dataclasses
import os
import signal
import sys
import time
import typing as tp
from collections.abc import Callable
from pathlib import Path

import psutil

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

import overnight  # noqa: E402 # it is a script's neighbour
import trainings  # noqa: E402

from dask_cluster import DaskCluster  # noqa: E402

LONG = 25.0  # seconds, more than it takes until a scheduler counts as one that does not answer


@dataclasses.dataclass
class DaskNight(overnight.Night):
    """A night on a Dask cluster of its own."""

    cluster: DaskCluster = dataclasses.field(kw_only=True)
    scheduler: int = dataclasses.field(kw_only=True)  # its pid

    def faults(self) -> list[Callable[[], str]]:
        """Return one fault of each kind, some twice."""
        return [
            self.kill_worker,
            self.cancel,
            self.kill_training,
            self.kill_submitter,
            lambda: self.stop_scheduler(LONG),
            self.kill_worker,
            self.release_job,
            lambda: self.stop_scheduler(3.0),
        ]

    def kill_worker(self) -> str:
        """Kill the worker that runs a training; its nanny starts another one."""
        for index, pid in self.running():
            try:
                above = psutil.Process(pid).parents()
                worker = next(process for process in above if process.ppid() in self.cluster.pids)
                worker.kill()
            except (psutil.NoSuchProcess, StopIteration):
                continue
            return f"killed the worker of training {index}"
        return ""

    def cancel(self) -> str:
        """Have another process than the submitter cancel a training."""
        for index, _ in self.running():
            job = self.trainings()[index].infra.job()
            if not job.done():
                job.cancel()
                return f"cancelled training {index}"
        return ""

    def release_job(self) -> str:
        """Have a client of Dask cancel what runs a training, which its worker goes on to run."""
        import distributed

        for index, _ in self.running():
            job = self.trainings()[index].infra.job()
            if job.done():
                continue
            client = distributed.Client(self.cluster.address, set_as_default=False)  # type: ignore[no-untyped-call] # it has no types
            try:
                future: tp.Any = distributed.Future(f"exca-{job.job_id}", client=client)
                client.cancel([future], force=True)  # type: ignore[no-untyped-call]
            finally:
                client.close()  # type: ignore[no-untyped-call]
            return f"had Dask forget the job of training {index}"
        return ""

    def stop_scheduler(self, seconds: float) -> str:
        """Stop the scheduler for a while."""
        os.kill(self.scheduler, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(self.scheduler, signal.SIGCONT)
        return f"stopped the scheduler for {seconds:.0f} s"

    def trainings(self) -> list[trainings.Training]:
        return trainings.trainings(self.count, self.folder, self.length, **self.infra)


def main(argv: list[str] | None = None) -> int:
    """Run a night; 1 if something came out wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="an empty folder for the cache and all that is noted")
    parser.add_argument("--trainings", type=int, default=40)
    parser.add_argument("--length", type=float, default=1.0, help="of a training: 2 to 8 s times this")
    parser.add_argument("--rounds", type=int, default=1, help="how often each fault happens")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two faults")
    parser.add_argument("--minutes", type=float, default=5.0, help="time for all of it")
    options = parser.parse_args(argv)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with DaskCluster(folder / "dask") as cluster:
        scheduler = cluster.start_scheduler()
        for _ in range(2):
            cluster.start_worker()
        infra = {
            "cluster": "dask",
            "dask_address": str(cluster.scheduler_file),
            "mem_gb": 0.3,
            "timeout_min": 10,
            "tasks_per_job": 4,
            "concurrent_per_job": 2,
            "alone": 3,
            "retries": 20,
            "retry_on": [*overnight.RETRY_ON, "unknown"],
            "retry_scale": {"mem_gb": 4},
        }
        night = DaskNight(
            *(folder, dict(os.environ), options.trainings, options.length, 256, infra),
            cluster=cluster,
            scheduler=scheduler.pid,
        )
        wrong = night.play(options.rounds, options.pause, start + 60 * options.minutes)
    return night.report(wrong, start)


if __name__ == "__main__":
    sys.exit(main())
