"""Waiting for many jobs at once: `wait` and `as_completed`, as in `concurrent.futures`."""

import contextlib
import typing as tp
from collections.abc import Iterable, Iterator

from .._log import logger
from .._polling import Poller
from ..claims import chain
from .job import SAY_WHY, Job, say_they_go_on
from .watching import Watch

J = tp.TypeVar("J", bound=Job[tp.Any])
When: tp.TypeAlias = tp.Literal["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]


class DoneAndNotDone(tp.NamedTuple, tp.Generic[J]):
    """What came of waiting for jobs, both in the order in which the jobs were given."""

    done: list[J]
    not_done: list[J]


def wait(
    jobs: Iterable[J], timeout: float | None = None, return_when: When = "ALL_COMPLETED"
) -> DoneAndNotDone[J]:
    """Wait for jobs, of any clusters and infras, with one question to the scheduler for all of them.

    Parameters
    ----------
    jobs: iterable of Job
        the jobs
    timeout: float, optional
        how long at most, in seconds
    return_when: str
        "ALL_COMPLETED", "FIRST_COMPLETED" or "FIRST_EXCEPTION" (as soon as one failed)

    Returns
    -------
    DoneAndNotDone
        named tuple of the lists ``done`` and ``not_done``; jobs that failed, or ended without an outcome, are done

    Raises
    ------
    SchedulerError
        if the scheduler has given no answer for so long that it is unknown what became of the jobs
    SubmissionError
        if one of them was never submitted, or can't be
    ValueError
        if ``return_when`` is another word
    """
    if return_when not in tp.get_args(When):
        raise ValueError(f"return_when={return_when!r} is none of {', '.join(tp.get_args(When))}")
    given = _checked(jobs)
    done: set[int] = set()
    for job in one_by_one(given, Poller(timeout)):
        if job is None:  # the time is over
            break
        done.add(id(job))
        if return_when == "FIRST_COMPLETED" or (
            return_when == "FIRST_EXCEPTION" and job.succeeded() is not True
        ):
            break
    parts = ([j for j in given if id(j) in done], [j for j in given if id(j) not in done])
    return DoneAndNotDone(*parts)


def as_completed(jobs: Iterable[J], timeout: float | None = None) -> Iterator[J]:
    """Go through jobs, of any clusters and infras, in the order in which they are done.

    Parameters
    ----------
    jobs: iterable of Job
        the jobs; one that is given twice comes once
    timeout: float, optional
        how long to wait for all of them at most, in seconds

    Returns
    -------
    iterator of Job
        the jobs; those that failed, or ended without an outcome, are done

    Raises
    ------
    TimeoutError
        when the time is over and some are not done
    SchedulerError, SubmissionError
        as :func:`wait`
    """
    given = _checked(jobs)
    return _as_completed(given, Poller(timeout), timeout)  # the time runs from now on


def _as_completed(given: list[J], poller: Poller, timeout: float | None) -> Iterator[J]:
    left = {id(job): job for job in given}
    for job in one_by_one(given, poller):
        if job is None:
            raise TimeoutError(
                f"{len(left)} of {len(given)} job(s) are not done after {timeout:g} s, such as "
                f"{next(iter(left.values())).label()}: go through them again to wait on"
            )
        del left[id(job)]
        yield job


def _checked(jobs: Iterable[J]) -> list[J]:
    found = {id(job): job for job in jobs}
    for job in found.values():
        if not isinstance(job, Job):
            raise TypeError(
                f"{job!r} is no job: give what infra.job(), infra.submit(...) or array.jobs() return"
            )
    return list(found.values())


def one_by_one(jobs: list[J], poller: Poller) -> Iterator[J | None]:
    """Yield jobs as they are done, and None when the time is over."""
    watch = Watch(jobs)
    left = len(jobs)
    try:
        with _nested(jobs) as look:
            while left:
                ended = watch.look()
                for job, error in ended:
                    if error is not None:
                        raise error
                    left -= 1
                    yield tp.cast(J, job)
                if ended or not left:
                    continue
                look(poller.waited)
                if poller.is_time_once("tell why", after=SAY_WHY):
                    logger.info("Still waiting for %d job(s), such as %s", left, watch.left[0].describe())
                if not poller.pause():
                    yield None
                    return
    except KeyboardInterrupt:
        say_they_go_on(watch.left)
        raise


@contextlib.contextmanager
def _nested(jobs: list[J]) -> Iterator[tp.Callable[[float], None]]:
    """Context of waiting; within a computation, what it holds is given back, and circles are looked for."""
    if not chain.is_computing():
        yield lambda waited: None
        return
    with contextlib.ExitStack() as stack:
        looks = [stack.enter_context(job.waiting()) for job in jobs]

        def look_at_all(waited: float) -> None:
            for look in looks:
                look(waited)

        yield look_at_all
