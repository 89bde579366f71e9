"""How computations are lost that ended without an outcome of their own, and how often and how they are tried again."""

import contextlib
import math
import re
import time
import typing as tp
from pathlib import Path

from .. import _files

if tp.TYPE_CHECKING:
    from .backends import Ending
    from .resources import Resources

KINDS: tp.Final = (
    "preempted",
    "node_fail",
    "launch_failure",  # its worker never reported that it began
    "killed",  # it began, and a signal ended it
    "out_of_memory",
    "timeout",
    "cancelled",
    "exited",  # it began, and its process ended by itself, without an outcome
    "unknown",  # it began, and its backend does not know how it ended
)
# state of an attempt that began before an earlier task was done; it never counts
SENT_BACK: tp.Final = "sent_back"
RETRY_ON: tp.Final = ("preempted", "node_fail", "launch_failure")  # by default
NEW_FIELDS: tp.Final = (  # of infras and steps, which release 0.6 does not know
    "retries",
    "retry_on",
    "retry_scale",
    "retry_backoff_s",
    "max_requeues",
)
MAX_BACKOFF = 600.0  # seconds
_SCALED_AFTER = {"mem_gb": ("out_of_memory", "killed"), "timeout_min": ("timeout",)}  # losses, by resource
# file beside the logs of a share or call: the attempts of it that were lost so far
ATTEMPTS = "attempts.jsonl"
_MOST_RETRIES = 1000  # that are believed of a file
_MOST_LISTED = 50  # attempts in a record
_MOST_SAID = 300  # characters of a reason
_BY_STATE = {
    "BOOT_FAIL": "node_fail",
    "CANCELLED": "cancelled",
    "DEADLINE": "timeout",
    "NODE_FAIL": "node_fail",
    "OUT_OF_MEMORY": "out_of_memory",
    "PREEMPTED": "preempted",
    "TIMEOUT": "timeout",
}
# as Python writes it, the last part in capitals: words of ours have none
_EXCEPTION = r"(?:[^\W\d]\w*\.)*_*[A-Z]\w*"
Attempt = dict[str, tp.Any]  # in JSON types: state, reason, attempt, cluster, job_id, host, times

Scale = dict[str, float | tuple[float, float]]


class Loss(tp.NamedTuple):
    """What became of a job that gave no result and may be tried again."""

    kind: str  # one of `KINDS`, or the name of an exception
    reason: str
    counts: bool = True  # as one of the retries


def kind_of(ending: "Ending", *, began: bool) -> str:
    """What became of a job that left no outcome: one of `KINDS`."""
    known = ending.loss or _BY_STATE.get(ending.state)
    if known:
        return known
    if not began:
        return "launch_failure"
    if ending.warned:
        return "preempted"
    if ending.signal:
        return "killed"
    return "unknown" if ending.state == "UNKNOWN" else "exited"


def attempt(state: str, reason: str, token: str, **facts: tp.Any) -> Attempt:
    """Describe an attempt that left no outcome."""
    return {"state": state, "reason": reason[:_MOST_SAID], "attempt": token, **facts}


def number_of(lost: tp.Sequence[Attempt]) -> int:
    """How many of the attempts count as retries: not those that the scheduler began again by itself."""
    return sum(each.get("counts") is not False for each in lost)


def check_words(words: tp.Sequence[str]) -> None:
    """Raise ValueError for a word in ``retry_on`` that is neither a loss nor the name of an exception class."""
    for word in words:
        if word in KINDS or re.fullmatch(_EXCEPTION, word):
            continue
        import difflib

        alike = difflib.get_close_matches(word, KINDS, 1)
        raise ValueError(
            f"retry_on holds {word!r}, which names neither a loss nor an exception"
            + (f" (meant {alike[0]!r}?)" if alike else "")
            + f": take some of {', '.join(KINDS)}, and names of exception classes such as 'ConnectionError' or "
            "'my_package.MyError'"
        )


def check_scale(scale: Scale) -> None:
    """Raise ValueError for factors in ``retry_scale`` by which no resource can be scaled."""
    for name, value in scale.items():
        factor, bound = value if isinstance(value, tuple) else (value, None)
        if name not in _SCALED_AFTER:
            raise ValueError(
                f"retry_scale holds {name!r}: what can be scaled is {' and '.join(_SCALED_AFTER)}"
            )
        if not (math.isfinite(factor) and factor >= 1):
            raise ValueError(
                f"retry_scale[{name!r}] is {factor:g}, and a later attempt gets at least as much as the one before: "
                "give a factor of 1 or more, such as 2, or a factor and the most that is asked for, such as [2, 64]"
            )
        if bound is not None and not (math.isfinite(bound) and bound > 0):
            raise ValueError(f"retry_scale[{name!r}] has {bound:g} as its bound: give a number above 0")


def check_against(scale: Scale, values: tp.Mapping[str, float | None]) -> None:
    """Raise ValueError where a resource is to be scaled that is not set, or is beyond its bound from the start."""
    for name, value in scale.items():
        set_to = values.get(name)
        if set_to is None:
            raise ValueError(
                f"retry_scale holds {name!r}, and {name} is not set: set it, or leave it out there"
            )
        if isinstance(value, tuple) and value[1] < set_to:
            raise ValueError(
                f"retry_scale[{name!r}] scales up to {value[1]:g}, and {name}={set_to:g} is more than that already"
            )


class Policy(tp.NamedTuple):
    """Which losses of a job are not its outcome: what it ran is submitted again."""

    retries: int = 0  # new submissions
    on: tuple[str, ...] = ()  # losses, and names of exceptions
    backoff: float = 0.0  # seconds before the first of them, doubled for each later one
    max_requeues: int = 0  # by the scheduler

    @classmethod
    def of(cls, resources: "Resources") -> "Policy":
        """The policy that the fields of an infra tell."""
        return cls(
            resources.retries, tuple(resources.retry_on), resources.retry_backoff_s, resources.max_requeues
        )

    @classmethod
    def from_json(cls, content: tp.Any) -> "Policy":
        """Rebuild from what ``to_json`` gave; nothing is tried again where it is of no use."""
        try:
            retries, on = content["retries"], content["on"]
            backoff, requeues = content["backoff_s"], content["max_requeues"]
        except (KeyError, TypeError):
            return cls()
        good = type(retries) is int and type(requeues) is int and isinstance(backoff, int | float)
        if not good or not isinstance(on, list) or not all(isinstance(word, str) for word in on):
            return cls()
        return cls(min(retries, _MOST_RETRIES), tuple(on), min(float(backoff), MAX_BACKOFF), requeues)

    def to_json(self) -> dict[str, tp.Any]:
        """As JSON types."""
        return {
            "retries": self.retries,
            "on": list(self.on),
            "backoff_s": self.backoff,
            "max_requeues": self.max_requeues,
        }

    def tries_again(self, kind: str, lost: tp.Sequence[Attempt]) -> bool:
        """Whether there is another attempt after a loss of this kind, and after those before it."""
        return number_of(lost) < self.retries and kind in self.on

    def named(self, error: BaseException) -> str | None:
        """The name in the policy by which an exception is one to try again after, itself or a class it derives from."""
        for cls in type(error).__mro__:
            for name in (cls.__qualname__, f"{cls.__module__}.{cls.__qualname__}"):
                if name in self.on:
                    return name
        return None

    def pause_after(self, lost: int) -> float:
        """Seconds between the loss of an attempt, the how-manieth it was, and the start of the next one."""
        return min(self.backoff * 2.0 ** min(lost - 1, 30), MAX_BACKOFF) if lost else 0.0


class Series(tp.NamedTuple):
    """The attempts of one computation: the policy, those that were lost, and what the next one gets."""

    policy: Policy = Policy()
    lost: tuple[Attempt, ...] = ()
    not_before: float = 0.0  # when the next one may start, in seconds since the epoch
    scaled: tp.Mapping[str, tp.Any] = {}  # resources that differ from those set

    @classmethod
    def next(cls, resources: "Resources", lost: tp.Sequence[Attempt], now: float) -> "Series":
        """What the next attempt gets, some having been lost."""
        policy = Policy.of(resources)
        at = lost[-1].get("lost") if lost else None
        since = at if isinstance(at, int | float) else now
        start = min(since, now) + policy.pause_after(number_of(lost))
        return cls(policy, tuple(lost), start, scaled(resources, lost))

    def tries_again(self, kind: str) -> bool:
        """Whether there is another attempt, should this one end by a loss of this kind."""
        return self.policy.tries_again(kind, self.lost)


def wait_until(start: float) -> None:
    """Wait until an attempt may start, in seconds since the epoch by a clock that may differ from this one."""
    pause = min(start - time.time(), MAX_BACKOFF)
    if pause > 0:
        time.sleep(pause)


NONE_LOST: tp.Final = Series()


def scaled(resources: "Resources", lost: tp.Sequence[Attempt]) -> dict[str, tp.Any]:
    """What a job gets otherwise than its fields tell, by name, after losses that came of too little."""
    out: dict[str, tp.Any] = {}
    for name, value in (resources.retry_scale or {}).items():
        factor, bound = value if isinstance(value, tuple) else (value, math.inf)
        times = number_of([each for each in lost if each["state"] in _SCALED_AFTER[name]])
        before = getattr(resources, name)
        if times and before is not None:
            # rounded to what a script can hold, so that binary fractions make no digits of their own
            now = min(round(before * factor**times, 6), bound)
            out[name] = math.ceil(now) if name == "timeout_min" else now
    return out


def asked_of_next(resources: "Resources", series: Series, pause: int) -> dict[str, tp.Any]:
    """What the job of the next attempt asks for otherwise than its fields tell, to start in so many seconds."""
    changed = dict(series.scaled)
    options = resources.slurm_additional_parameters or {}
    # the scheduler holds it, in place of a node on which it would wait
    if pause > 1 and "begin" not in options:
        changed["slurm_additional_parameters"] = {**options, "begin": f"now+{pause}"}
    return changed


def note_beside(folder: Path, attempts: tp.Sequence[Attempt]) -> None:
    """Note the attempts that were lost in the folder of a job's logs, for what has no record of its own."""
    import orjson

    lines = b"".join(orjson.dumps(each, default=str) + b"\n" for each in listed(attempts))
    with contextlib.suppress(OSError):  # its folder is gone
        _files.write_atomically(folder / ATTEMPTS, lines, mode=_files.OWN)


def in_words(attempts: tp.Sequence[Attempt]) -> str:
    """The attempts that were lost, in a few words."""
    shown = [
        f"{each['state']} ({each['job_id']})" if "job_id" in each else each["state"] for each in attempts
    ]
    return ", ".join(shown[-10:])


def listed(attempts: tp.Sequence[Attempt]) -> list[Attempt]:
    """Attempts as a record has them."""
    return [{key: value for key, value in each.items() if key != "lost"} for each in attempts[-_MOST_LISTED:]]


def lost_attempts(content: tp.Any) -> tuple[Attempt, ...]:
    """Attempts that a file holds, those that are of no use left out."""
    if not isinstance(content, list):
        return ()
    return tuple(each for each in content if isinstance(each, dict) and isinstance(each.get("state"), str))
