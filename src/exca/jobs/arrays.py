"""The planner of arrays: which calls go together, in arrays that fit, as many as there is room for.

How many jobs a user may have is written in several places (association, QOS, partition, the controller's own limit),
and how many there are at the moment changes all the time. So it is not computed but tried: an array that is refused
for want of room is halved until it fits, and what is left then waits for room.
"""

import dataclasses
import math
import re
import time
import typing as tp

from .._log import logger
from ..errors import SubmissionError
from . import losses

if tp.TYPE_CHECKING:
    from .backends import Request, Submission
    from .resources import Resources

SMALL = 500  # calls for which the limit of an array is not asked for: Slurm's default is 1001
# Slurm's words where fewer jobs would be taken, or the same ones later
_NO_ROOM = re.compile(
    r"MaxSubmit|GrpSubmit|MaxJobCount|job submit limit|temporarily unable to accept|Invalid job array specification"
    r"|Resource temporarily unavailable",
    re.IGNORECASE,
)
# Slurm's words where it may well take the very same jobs in a while
_PASSING = re.compile(r"contact|connect|timed out|no reply|zero bytes|gave no answer", re.IGNORECASE)
# which limit of an account or QOS it is; all but those on the number of jobs are about what a single job asks for
_LIMIT = re.compile(r"\b(?:QOS|Assoc)\w+")
_SMALLER = "lower mem_gb, cpus_per_task, gpus_per_node or nodes, or take a partition whose nodes have as much"
_SITE = "see `sacctmgr show qos` and `sacctmgr show associations`"
_ADVICE = (  # the first that fits
    (r"\baccount\b", "check slurm_account against `sacctmgr show associations`"),
    (r"partition", "check slurm_partition against `sinfo`"),
    (r"qos specification", "check slurm_qos against `sacctmgr show qos`"),
    (r"feature", "check slurm_constraint against `sinfo -o '%n %f'`"),
    (r"WallDuration", f"lower timeout_min, or take another slurm_qos: {_SITE}"),
    (r"requested time limit", "lower timeout_min, or take a partition with a longer limit (`sinfo -o '%P %l'`)"),
    (r"(?:QOS|Assoc)(?:Max|Grp)(?!Submit)", f"lower mem_gb, cpus_per_task, gpus_per_node or nodes: {_SITE}"),
    (r"node configuration|memory|processors|gres|gpu|TRES|node count", f"{_SMALLER} (`sinfo -o '%P %c %m %G'`)"),
    (r"contact|connect|timed out|controller|answer", "check `scontrol ping`, and try again"),
    (r"unrecognized option|invalid option|invalid argument", "check slurm_additional_parameters against `man sbatch`"),
    (r"limit|policy|qos", f"a limit of the site: {_SITE}"),
)  # fmt: skip


class RefusedError(SubmissionError):
    """A scheduler took none of the jobs of one submission; `said` are its own words."""

    def __init__(self, said: str, request: "Request") -> None:
        limits = _LIMIT.findall(said)
        self.for_room: bool = _NO_ROOM.search(said) is not None
        self.passing: bool = _PASSING.search(said) is not None
        if limits:  # the sentence beside it is the same for every limit
            self.for_room = any("SubmitJob" in limit for limit in limits)
        advice = next((text for pattern, text in _ADVICE if re.search(pattern, said, re.IGNORECASE)), "")
        super().__init__(f"Slurm refused {request.name}: {said}" + (f"\n({advice})" if advice else ""))


class UnsureError(SubmissionError):
    """A scheduler gave no answer, and cannot be asked whether it took the jobs."""

    passing = True


class Sender(tp.Protocol):
    """Sends consecutive calls of a request as one array."""

    def largest(self) -> int:
        """The most tasks of one array."""
        ...

    def send(self, first: int, count: int) -> "list[Submission]":
        """Submit some of the calls; raises `RefusedError` when the scheduler takes none of them."""
        ...


def send(request: "Request", sender: Sender) -> "list[Submission | None]":
    """Send the calls of a request in arrays that fit, in order; None for those, at the end, that have no room now.

    Raises SubmissionError if they are refused for another reason than the lack of room.
    """
    total = len(request.calls)
    sent: list[Submission | None] = []
    size = min(total, max(1, sender.largest()))
    while len(sent) < total:
        count = min(size, total - len(sent))
        try:
            sent += sender.send(len(sent), count)
        except RefusedError as e:
            if not e.for_room:
                if sent:  # those that were taken go on
                    logger.warning("%s. %d of %d were submitted before", e, len(sent), total)
                    break
                raise
            if count == 1:
                logger.debug("No room for more jobs of %s: %s", request.name, e)
                break
            size = count // 2
    return sent + [None] * (total - len(sent))


def by_resources(
    members: "tp.Sequence[Resources]", through: "Resources"
) -> "list[tuple[Resources, list[int]]]":
    """Group the members of an array by what their jobs get: resources, and the numbers of the members.

    Where a member leaves a field unset, that of `through` holds.
    """
    from .resources import Placed, Resources

    names = Resources.model_fields.keys() - Placed.model_fields.keys()  # what a job gets, not where it runs
    theirs = {n: getattr(through, n) for n in names}
    groups: dict[str, tuple[Resources, list[int]]] = {}
    for k, member in enumerate(members):
        mine = {n: getattr(member, n) for n in names & member.model_fields_set}
        changed = {n: v for n, v in mine.items() if v != theirs[n]}
        key = repr(sorted(changed.items()))
        if key not in groups:
            groups[key] = (changed_to(through, changed) if changed else through, [])
            groups[key][0].check_packing()  # each by itself may be right, and both together not
        groups[key][1].append(k)
    return list(groups.values())


def changed_to(through: "Resources", changed: tp.Mapping[str, tp.Any]) -> "Resources":
    """Resources with some fields changed."""
    from .resources import Resources

    content = {n: getattr(through, n) for n in Resources.model_fields} | dict(changed)
    return Resources.model_construct(_fields_set=set(content), **content)


def next_request(
    request: "Request", lost: tp.Sequence[losses.Attempt], cluster: str
) -> tuple["Request", float]:
    """The request for the next attempt after losses, and when that may start, in seconds since the epoch."""
    now = time.time()
    series = losses.Series.next(request.resources, lost, now)
    pause = max(0, math.ceil(series.not_before - now)) if cluster == "slurm" else 0
    changed = losses.asked_of_next(request.resources, series, pause)
    resources = changed_to(request.resources, changed) if changed else request.resources
    return dataclasses.replace(request, resources=resources, first=0), series.not_before


def shares(max_workers: int, sizes: tp.Sequence[int]) -> list[int]:
    """How many jobs of each of several arrays may run at once, so that all together keep to a number."""
    total = sum(sizes)
    if len(sizes) == 1 or total <= max_workers:
        return [max_workers] * len(sizes)
    return [max(1, max_workers * size // total) for size in sizes]


def report(submissions: "tp.Sequence[Submission | None]", name: str, cluster: str) -> None:
    """Say in one line what was submitted."""
    from .paths import fixed_folder

    sent = [s for s in submissions if s is not None]
    jobs = list(dict.fromkeys(s.job_id for s in sent))  # of which each may hold several calls
    bases = list(dict.fromkeys(job_id.partition("_")[0] for job_id in jobs))
    left = len(submissions) - len(sent)
    if not sent:
        logger.info(
            "No room for the %d job(s) of %s on %s now: they are sent as room comes", left, name, cluster
        )
        return
    ids = ", ".join(bases[:3]) + (f" and {len(bases) - 3} more" if len(bases) > 3 else "")
    what = "job" if len(jobs) == 1 else "jobs" if len(bases) == len(jobs) else "array"
    logger.info(
        "Submitted %s%d job(s) of %s to %s: %s %s, logs in %s%s",
        f"{len(sent)} tasks in " if len(jobs) < len(sent) else "",
        len(jobs),
        name,
        cluster,
        what,
        ids,
        fixed_folder(sent[0].logs),
        f" ({left} more are sent as room comes)" if left else "",
    )


def rest_of(request: "Request", sent: int) -> "Request":
    """The request for the calls after those that were sent."""
    return dataclasses.replace(request, calls=request.calls[sent:], first=request.first + sent)
