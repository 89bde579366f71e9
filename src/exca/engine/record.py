"""The record of a task: its outcome, published in one atomic step.

``job.json`` in the uid folder is all that decides whether a task has a result. It is written once the
data it names is on disk, under a temporary name, then renamed: a reader sees the whole of it or nothing.
The write is also made durable when the computation took over a second, since losing a shorter one to a power failure
costs less than syncing thousands of them: data, configuration and record are synced, and each folder down to them.
Paths in it are relative to its folder where they are below the folder of the infra, so that a cache that was moved
keeps its logs. Its last field, ``#xxh``, is the XXH3-64 of all bytes before it: a small result is in the record itself,
and one flipped bit would change it.
"""

import contextlib
import dataclasses
import datetime
import functools
import math
import os
import platform
import re
import sys
import time
import typing as tp
from pathlib import Path

from .. import _files, _trust
from .._log import logger
from ..errors import (
    ChangedConfigError,
    JobError,
    OddFileError,
    ResultError,
    UnknownVersionError,
    UntrustedFileError,
)
from ..jobs import losses
from ..jobs.backends import Submission
from ..jobs.remote_errors import error_content, rebuild_error
from .method import running

if tp.TYPE_CHECKING:
    from ..claims import Claim
    from ..codedigest import CodeDigest
    from .method import Method

NAME = "job.json"
VERSION = 2
SUBMISSION = "submission.json"  # the job last submitted for a task
KEY = "task"  # under which the claim on a task is made
LEGACY_NAME = "job.pkl"  # the outcome as earlier releases write it
OUTCOMES = (NAME, LEGACY_NAME, SUBMISSION)  # files with an outcome, or about a job that will have one
DURABLE_SECONDS = 1.0
SEALED = b'%b,"#xxh":"%016x"}\n'  # a JSON object without its closing brace, and the checksum of that
_SEAL_LENGTH = len(SEALED % (b"", 0))
_COMPLETED = tuple(b'{"version":%d,"state":"completed","result":{' % version for version in (1, VERSION))
_OUTCOME = {"completed": "result", "failed": "error"}  # what a record of each state must hold


class Record(tp.NamedTuple):
    """Outcome of a task."""

    folder: Path
    content: dict[str, tp.Any]
    trusted: bool = True  # whether it may have an error unpickled, and files removed

    @property
    def state(self) -> str:
        """``completed`` or ``failed``."""
        return tp.cast(str, self.content["state"])

    @property
    def attempt(self) -> str:
        """Token of the claim under which it was computed."""
        return tp.cast(str, self.content.get("attempt", ""))

    def value(self) -> tp.Any:
        """Load the result of a completed task; raises whatever tells that the data is damaged or not trusted."""
        from ..cachedict import load_one

        return load_one(self.folder, self.content["result"], trusted=self.trusted)

    def exception(self) -> BaseException:
        """Rebuild the error of a failed task, with the remote traceback as a note."""
        c = self.content
        job = f", {c['cluster']} job {c['job_id']}" if c.get("job_id") else ""
        where = f"host {c.get('host')}, process {c.get('pid')}{job}, {c.get('finished')}"
        return rebuild_error(c["error"], trusted=self.trusted, where=where)

    @property
    def code(self) -> str | None:
        """Digest of the code by which it was computed, where it is known."""
        code = self.content.get("code")
        return code.get("digest") if isinstance(code, dict) else None

    def remove_data(self) -> None:
        """Remove the data of a result, where the record may have files removed."""
        from ..cachedict import delete_one

        if self.state == "completed" and self.trusted:
            delete_one(self.folder, self.content["result"])


class LegacyRecord(Record):
    """Outcome of a task as an earlier release left it."""

    def value(self) -> tp.Any:
        """The result."""
        return self.content["value"]

    def exception(self) -> BaseException:
        """The error, the traceback added as a note."""
        raised, text = self.content["failure"]
        last_line = str(text).strip().rpartition("\n")[2]
        error = raised if isinstance(raised, BaseException) else JobError(last_line)
        error.add_note(f"\nTraceback where it ran:\n{text}")
        return error


def read(folder: Path, *, looking: bool = False) -> Record | None:
    """Read the outcome of a task, None where there is none; a damaged record is set aside and counts as none.

    A caller that only looks (`looking`) leaves a damaged record where it is.

    Raises UnknownVersionError where a later release of another format wrote it.
    """
    file = f"{folder!s}/{NAME}"
    try:
        data, status = _files.read_judged(file)
    except (FileNotFoundError, NotADirectoryError):
        looked = _read_after_looking(folder)
        if looked is None:
            return None
        data, status = looked
    except (UntrustedFileError, OddFileError) as e:  # a FIFO, a folder: no release ever made such
        _trust.skip(file, e)
        return None
    trusted = _trust.is_trusted(status)
    if not trusted and _files.everybody_may_write(status):
        _trust.skip(file, "everybody may write to it; if you know what is in it: chmod o-w")
        return None
    content = parse(data, file)
    if content is None:
        if looking:
            return None
        if trusted:
            set_aside(folder, "it is damaged")
        else:
            _trust.skip(file, "it is damaged, and another user may have written it")
        return None
    logs = content.get("logs")
    if isinstance(logs, str) and logs and not os.path.isabs(logs):
        content["logs"] = os.path.normpath(os.path.join(os.path.abspath(folder), logs))
    return Record(folder, content, trusted)


def latest(folder: Path) -> Record | None:
    """Read the outcome of a task, be it recorded by this release or by an earlier one that is still at work."""
    found = read(folder)
    if os.access(f"{folder!s}/{LEGACY_NAME}", os.F_OK):
        from . import legacy

        known = (
            found.content["error"].get("message") if found is not None and found.state == "failed" else None
        )
        newer = legacy.outcome(folder / LEGACY_NAME, None if found is None else folder / NAME, known)
        return found if newer is None else LegacyRecord(folder, newer)
    return found


def is_completed(folder: Path) -> bool:
    """Whether there is certainly a result, by the first bytes of a whole record of this user's; cheaper than `latest`.

    False asks for a closer look.
    """
    try:
        data, status = _files.read_judged(f"{folder!s}/{NAME}")
    except (OSError, OddFileError, UntrustedFileError):
        return False
    return (
        data.startswith(_COMPLETED)
        and _is_sealed(data)
        and _trust.is_trusted(status)
        and not os.access(f"{folder!s}/{LEGACY_NAME}", os.F_OK)
    )


def _read_after_looking(folder: Path) -> tuple[bytes, os.stat_result] | None:
    """Read a record that a network file system may remember as missing: listing its folder asks the server."""
    if not _files.on_network(os.fspath(folder)):
        return None
    try:
        return _files.read_judged(f"{folder}/{NAME}") if NAME in os.listdir(folder) else None
    except (FileNotFoundError, NotADirectoryError):
        return None


def parse(data: bytes, file: str) -> dict[str, tp.Any] | None:
    """The content of a record file, None where it is damaged; raises UnknownVersionError."""
    import orjson

    try:
        if not _is_sealed(data):
            if not _is_sealed_but_for_version(data):
                _check_version(orjson.loads(data), file)  # a later format may be sealed in another way
            return None
        content: dict[str, tp.Any] = orjson.loads(data)
        if content["version"] > VERSION:
            _check_version(content, file)
        if isinstance(content[_OUTCOME[content["state"]]], dict):
            return content
    except (ValueError, KeyError, TypeError):
        pass
    return None


def _is_sealed(data: bytes) -> bool:
    import xxhash

    body = data[:-_SEAL_LENGTH]
    return data == SEALED % (body, xxhash.xxh3_64_intdigest(body))


def _is_sealed_but_for_version(data: bytes) -> bool:
    """Whether the damage is in the version, which no later release wrote."""
    return any(
        _is_sealed(re.sub(rb'^{"version":\d+', b'{"version":%d' % version, data))
        for version in range(1, VERSION + 1)
    )


def _check_version(content: tp.Any, file: str) -> None:
    version = content.get("version") if isinstance(content, dict) else None
    if type(version) is int and version > VERSION:
        raise UnknownVersionError(
            f"{file} is a record of version {version}, and this release of exca knows those up to {VERSION}: a later "
            "release wrote it. It is left alone, and nothing is computed in its place: update exca to read it, or "
            "change the version of the infra to compute elsewhere"
        )


def set_aside(folder: Path, reason: str, attempt: str | None = None) -> None:
    """Move a record that cannot be used out of the way, unless it is of another attempt by now."""
    if attempt is not None:
        now = read(folder)
        if now is None or now.attempt != attempt:
            return
    target = folder / f"{NAME}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"
    try:
        _files.move(f"{folder}/{NAME}", target.name)
    except FileNotFoundError:
        return  # another process was quicker
    logger.warning(
        "Set aside the record of %s as %s (%s): it will be computed again", folder, target.name, reason
    )


@dataclasses.dataclass
class Attempt:
    """One computation of a task, from its start to the publication of its outcome."""

    folder: Path
    token: str  # of the claim
    where: dict[str, tp.Any]  # cluster, job id and logs
    # configuration, resources, submission time
    asked: dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    source: str | None = None  # folder of the code, whose git commit is recorded
    lost: tp.Sequence[losses.Attempt] = ()  # attempts before it
    started: float = dataclasses.field(default_factory=time.time)
    clock: float = dataclasses.field(default_factory=time.monotonic)  # at the start
    waited: float | None = None  # seconds between submission and start, of a job

    def completed(self, value: tp.Any) -> None:
        """Store a result and publish it; raises a ResultError if no handler can store it."""
        from ..cachedict import dump_one

        try:
            info = dump_one(self.folder, value, key=f"result-{self.token[-12:]}")
        except OSError:
            raise
        except Exception as e:
            raise ResultError(
                f"cannot store the result of {self.folder.parent.name}, a {type(value).__qualname__}: "
                f"{str(e).rstrip('.')}. Otherwise, return plain data, arrays, tensors, DataFrames or picklable objects"
            ) from e
        _write_for_earlier_release(self.folder, "success", value)
        old = read(self.folder) if os.path.exists(f"{self.folder}/{NAME}") else None
        self._publish({"state": "completed", "result": info})
        if old is not None:
            old.remove_data()  # now that no reader is sent there any more

    def failed(self, error: BaseException) -> None:
        """Publish an error; that it cannot be published is a note on it, since it counts more."""
        try:
            _write_for_earlier_release(self.folder, "failure", error)
            self._publish({"state": "failed", "error": error_content(error)})
        except OSError as e:
            error.add_note(f"This error could not be kept in {self.folder}: {e}")

    def _publish(self, content: dict[str, tp.Any]) -> None:
        seconds = time.monotonic() - self.clock
        content = {
            "version": VERSION,
            **content,
            "attempt": self.token,
            **self.asked,
            "started": iso(self.started),
            "finished": iso(self.started + seconds),
            "seconds": round(seconds, 6),
            **_host(),
            "pid": os.getpid(),
            **self.where,
        }
        if self.lost:
            content["attempts"] = losses.listed(self.lost)
        if self.where.get("cluster") not in (None, "debug"):  # a process of its own
            from . import usage

            content["used"] = usage.used(self.waited)
        if self.source is not None:
            from ..jobs.workdir_copy import git_commit

            commit = git_commit(self.source)
            if commit is not None:
                content["git"] = commit
        publish(self.folder, content, durable=seconds > DURABLE_SECONDS)


def compute(
    method: "Method",
    folder: Path,
    claim: "Claim",
    where: dict[str, tp.Any],
    attempt: str = "",
    *,
    submitted: float | None = None,
    sent: "CodeDigest | None" = None,
    series: losses.Series = losses.NONE_LOST,
    keep: tp.Callable[[Exception], bool] | None = None,
) -> tp.Any:
    """Compute a task and publish its outcome under a claim; raises what the method raised, after it was published.

    ``where`` has cluster, job id and logs, for the record; ``attempt`` is the token there, by default the claim's;
    ``submitted`` is the time of it, of a job, and ``sent`` the digest of the code that was. ``series`` tells of the
    attempts before it, and ``keep`` whether an exception is the outcome, rather than one to try again after.
    """
    from ..claims import chain

    config = method.config
    asked: dict[str, tp.Any] = {"config": _json(config)}
    if where:
        asked["resources"] = {**method.resources.asked(), **series.scaled}
    if submitted is not None:
        asked["submitted"] = iso(submitted)
    code = method.code
    if code is not None:
        asked["code"] = code.kept(sent)
    source = _source_folder(type(method.obj))
    this = Attempt(folder, attempt or claim.token, where, asked, source, series.lost)
    this.waited = None if submitted is None else max(0.0, this.started - submitted)
    outer = running.set((method, this.token, "task"))
    try:
        with chain.under(claim), chain.computing([KEY], started=True):
            value = method.call()
    except Exception as e:
        method.require_unchanged()
        if keep is None or keep(e):
            this.failed(e)
        raise
    finally:
        running.reset(outer)
    try:
        method.require_unchanged()
    except ChangedConfigError as e:
        if where:  # a caller who waits for a job gets no other word of it
            this.failed(e)
        raise
    if not claim.is_valid():
        logger.warning(
            "%s was taken over by another process while it was computed: not published again", folder
        )
        return value
    try:
        this.completed(value)
    except (ResultError, OSError) as e:
        # of a full disk, where the record may still fit, a caller who waits for a job gets no other word
        if isinstance(e, ResultError) or (where and (keep is None or keep(e))):
            this.failed(e)
        raise
    return value


def _json(config: tp.Any) -> tp.Any:
    """A configuration in which JSON keeps numbers that are not finite, as text."""
    text = repr(config)
    return _finite(config) if "inf" in text or "nan" in text else config


def _finite(config: tp.Any) -> tp.Any:
    if isinstance(config, dict):
        return {key: _finite(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_finite(value) for value in config]
    return str(config) if isinstance(config, float) and not math.isfinite(config) else config


def _source_folder(cls: type) -> str:
    """Folder of the code of a class, or the current one where it has no file."""
    module = sys.modules.get(cls.__module__)
    # in a job, __main__ is the program that runs jobs, not the script that defined the class
    known = hasattr(module, cls.__qualname__.partition(".")[0])
    file = getattr(module, "__file__", None) if known else None
    return os.path.dirname(file or "") or os.getcwd()


def publish(folder: Path, content: dict[str, tp.Any], *, durable: bool) -> None:
    """Write a record in one atomic step; one that is durable survives a power failure right after."""
    import orjson
    import xxhash

    if durable:  # the configuration beside it, too, without which a record is worth little
        for name in os.listdir(folder):
            if name.endswith(".yaml"):
                _files.sync_path(f"{folder}/{name}")
        _files.sync_above(os.fspath(folder))
    logs = content.get("logs")
    root = f"{os.path.dirname(os.path.dirname(os.path.abspath(folder)))}/"
    if logs and logs.startswith(root):
        content = {**content, "logs": os.path.relpath(logs, folder)}
    try:
        body = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS, default=str)[:-1]
    except TypeError:  # a number beyond 64 bit, or a text that is no UTF-8
        body = orjson.dumps(_readable(content), option=orjson.OPT_NON_STR_KEYS, default=str)[:-1]
    data = SEALED % (body, xxhash.xxh3_64_intdigest(body))
    _files.write_atomically(f"{folder}/{NAME}", data, mode=_files.OWN, durable=durable)


def _readable(value: tp.Any) -> tp.Any:
    """A value in which text stands for what every reader of JSON would not read alike."""
    if isinstance(value, dict):
        return {_readable(key): _readable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(part) for part in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return str(value) if type(value) is int and not -(2**63) <= value < 2**63 else value


def publish_death(
    folder: Path,
    attempt: str,
    error: dict[str, tp.Any],
    where: dict[str, tp.Any],
    replaces: str | None,
    *,
    lost: tp.Sequence[losses.Attempt] = (),
) -> Record:
    """Publish on behalf of a dead job that it failed, unless there is an outcome after all, its own or a later one.

    It is published under the claim on the task, so that it never takes the place of the outcome of a later attempt,
    nor is taken for it while that is under way: then only the caller gets to know. Of what the attempt ``replaces``,
    a failure makes way and a result is kept.
    """
    from ..claims import Claims

    now = iso(time.time())
    content = {
        "version": VERSION,
        "state": "failed",
        "error": error,
        "attempt": attempt,
        "finished": now,
        **where,
    }
    if lost:
        content["attempts"] = losses.listed(lost)
    found = latest(folder)
    if found is None or (found.attempt == replaces and found.state == "failed"):
        claim, held = Claims(folder).acquire([KEY, end_of(attempt)])
        if claim is None or held:  # a later attempt is under way: its outcome is the one that counts
            if claim is not None:
                claim.release()
            return Record(folder, content)
        with claim:  # no other process publishes meanwhile
            found = latest(folder)
            if found is None or (found.attempt == replaces and found.state == "failed"):
                _write_for_earlier_release(folder, "failure", JobError(error["message"]))
                publish(folder, content, durable=True)
                return Record(folder, content)
    return found if found.attempt != replaces else Record(folder, content)


class Submitted(tp.NamedTuple):
    """The job that was last submitted for a task."""

    submission: Submission
    attempt: str  # token of the claim that it was given
    replaces: str | None  # the attempt whose outcome was there
    policy: losses.Policy = losses.Policy()  # what becomes of it, should it be lost
    lost: tuple[losses.Attempt, ...] = ()  # the attempts before it, and itself once it was noted as lost
    at: str | None = None  # when it was submitted

    @property
    def is_lost(self) -> bool:
        """Whether it was noted as lost, with attempts left."""
        return bool(self.lost) and self.lost[-1].get("attempt") == self.attempt


def read_submission(folder: Path) -> Submitted | None:
    """Read which job was last submitted for a uid folder."""
    try:
        import orjson

        data, status = _files.read_judged(f"{folder}/{SUBMISSION}")
        content = orjson.loads(data)
        submission = Submission.from_json(content, trusted=_trust.is_trusted(status))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OddFileError, UntrustedFileError, ValueError, TypeError) as e:
        _trust.skip(f"{folder}/{SUBMISSION}", e)
        return None
    # what another user wrote about earlier attempts goes into no record of this user
    lost = losses.lost_attempts(content.get("attempts")) if submission.trusted else ()
    policy = losses.Policy.from_json(content.get("retry"))
    at = content.get("submitted")
    at = at if isinstance(at, str) else None
    return Submitted(submission, str(content.get("attempt", "")), content.get("replaces"), policy, lost, at)


def note_submission(
    folder: Path,
    where: dict[str, tp.Any],
    attempt: str,
    replaces: str | None,
    *,
    series: losses.Series = losses.NONE_LOST,
    submitted: str | None = None,
) -> None:
    """Write down which job computes a task, what becomes of it should it be lost, and the attempts before it."""
    import orjson

    note: dict[str, tp.Any] = {**where, "attempt": attempt, "replaces": replaces}
    if submitted is not None:
        note["submitted"] = submitted
    if series.policy.retries:
        note["retry"] = series.policy.to_json()
    if series.lost:
        note["attempts"] = list(series.lost)
    _files.write_atomically(folder / SUBMISSION, orjson.dumps(note), mode=_files.OWN)


def lost_before(folder: Path, replaces: str | None) -> tuple[losses.Attempt, ...]:
    """The attempts of a task that were lost since it has had the outcome of an attempt, or none."""
    submitted = read_submission(folder)
    if submitted is None or not submitted.is_lost or submitted.replaces != replaces:
        return ()
    return submitted.lost


def loss_of(
    state: str, reason: str, attempt: str, where: tp.Mapping[str, tp.Any], **facts: str | None
) -> losses.Attempt:
    """Describe the loss of an attempt at this moment: what became of it, and which job it was."""
    now = time.time()
    job = {name: where[name] for name in ("cluster", "job_id") if where.get(name)}
    known = {name: value for name, value in facts.items() if value is not None}
    return losses.attempt(state, reason, attempt, **job, **known, finished=iso(now), lost=now)


def requeues(folder: Path, attempt: str, where: tp.Mapping[str, tp.Any]) -> list[losses.Attempt]:
    """The runs of a job, with this folder of logs, before the scheduler requeued it; they count as no retries."""
    from ..jobs.before_end import requeues_of

    job = {name: where[name] for name in ("cluster", "job_id") if where.get(name)}
    out: list[losses.Attempt] = []
    for each in requeues_of(folder):
        started, host = each.get("started"), each.get("host")
        facts: dict[str, tp.Any] = {"host": host} if isinstance(host, str) else {}
        if isinstance(started, int | float):
            with contextlib.suppress(ValueError, OverflowError, OSError):  # it is no time
                facts["started"] = iso(started)
        state, reason = str(each.get("state")), str(each.get("reason"))
        out.append(losses.attempt(state, reason, attempt, **job, **facts, counts=False))
    return out


_OURS = r"\..*|.*\.(?:yaml|json|jsonl|claim|tmp)|data|code|submitit|job\.pkl|.*\.damaged.*"


def holds_files_of_users(folder: Path, since: float) -> bool:
    """Whether a computation has written files of its own into its folder since a time, from which it may go on."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return any(
            re.fullmatch(_OURS, entry.name) is None and entry.stat().st_mtime >= since for entry in entries
        )
    return False


def note_loss(
    folder: Path, attempt: str, loss: tp.Sequence[losses.Attempt], claim: "Claim | None" = None
) -> None:
    """Note that the attempt last submitted for a task was lost, with attempts left, for the next caller that submits.

    The loss comes last, after the runs of the same job that were requeued.

    Under a claim on the task: that of the attempt itself, or one that is made here. Where a later attempt is under
    way, or an outcome is there, nothing is noted.
    """
    from ..claims import Claims

    if claim is None:
        claim, held = Claims(folder).acquire([KEY, end_of(attempt)])
        if claim is None:
            return
        with claim:
            if not held:
                _note_loss(folder, attempt, loss)
        return
    _note_loss(folder, attempt, loss)


def _note_loss(folder: Path, attempt: str, loss: tp.Sequence[losses.Attempt]) -> None:
    submitted, found = read_submission(folder), latest(folder)
    if submitted is None or submitted.attempt != attempt or submitted.is_lost:
        return
    if not submitted.submission.trusted:  # written anew, it would be this user's word
        return
    if found is not None and found.attempt != submitted.replaces:
        return
    _note_again(folder, submitted, (*submitted.lost, *loss))


def note_revival(folder: Path, attempt: str) -> bool:
    """Note that an attempt goes on which was noted as lost, under the claim on the task; False where it was not."""
    submitted = read_submission(folder)
    if submitted is None or submitted.attempt != attempt or not submitted.is_lost:
        return False
    _note_again(folder, submitted, tuple(each for each in submitted.lost if each.get("attempt") != attempt))
    return True


def _note_again(folder: Path, submitted: Submitted, lost: tuple[losses.Attempt, ...]) -> None:
    series, where = losses.Series(submitted.policy, lost), submitted.submission.to_json()
    note_submission(
        folder, where, submitted.attempt, submitted.replaces, series=series, submitted=submitted.at
    )


def end_of(attempt: str) -> str:
    """What is claimed along with a task while it is published that an attempt ended without an outcome."""
    return f"end of {attempt}"


def _write_for_earlier_release(folder: Path, kind: str, value: tp.Any) -> None:
    """Before the record, which is the newer outcome then."""
    if os.environ.get("EXCA_WRITE_FOR_0_6", "") not in ("", "0"):
        from .legacy import write_job_pickle

        write_job_pickle(folder / LEGACY_NAME, kind, value)


def iso(seconds: float) -> str:
    """A time, given in seconds since the epoch, as records have it."""
    # with the local offset of that moment, in half the time that astimezone() takes to find it
    zone = _zone(time.localtime(seconds).tm_gmtoff)
    return datetime.datetime.fromtimestamp(seconds, zone).isoformat(timespec="milliseconds")


@functools.lru_cache(maxsize=16)
def _zone(seconds: int) -> datetime.timezone:
    return datetime.timezone(datetime.timedelta(seconds=seconds))


@functools.lru_cache(maxsize=1)
def _host() -> dict[str, tp.Any]:
    """Where and by whom something is computed."""
    from .. import __version__

    return {
        "host": _files.host_name(),
        "user": _files.user_name(),
        "python": platform.python_version(),
        "exca": __version__,
    }
