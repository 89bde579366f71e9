"""What a local job runs.

``python -m exca.jobs.worker <logs> <id> 0 1 1 <seconds> <digest>`` runs a single process of a job right here, unless a
limit is to be enforced from outside. With an array size, processes and a number of jobs at once in the place of ``0 1
1`` it looks after jobs, and so does ``python -m exca.jobs.worker <order>``, an order of `supervisor` as JSON.
"""

import os
import sys
import typing as tp

from . import entry, paths, supervisor
from .order import Order


def main(arguments: tp.Sequence[str]) -> int:
    """Run a job or an array of jobs; exit code 0 where every job left an outcome."""
    if len(arguments) == 1:
        return supervisor.main(Order.parse(arguments[0]))
    logs, base = arguments[:2]
    size, workers, processes = (int(a) for a in arguments[2:5])
    seconds, digest = float(arguments[5]), arguments[6]
    if size == 0 and processes == 1 and not seconds:
        rank = int(os.environ.get("SUBMITIT_LOCAL_GLOBALID", "0"))
        own = paths.JobPaths(logs, base, rank)
        return entry.run(str(own.submitted_pickle), own, digest)
    return supervisor.main(Order(logs, base, size, workers, processes, seconds, digest))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
