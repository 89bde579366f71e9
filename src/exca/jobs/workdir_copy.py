"""Copies of code: which files match, where they go, a copy that appears whole or not at all, and its commits."""

import fnmatch
import functools
import os
import re
import shutil
import subprocess
import typing as tp
from pathlib import Path

from .. import _files
from .._log import logger
from ..errors import UncommittedChangesError, UntrustedFileError, WorkDirError

CODE = "EXCA_CODE"  # variable that tells a local job where the copy is that it runs on
# folders that hold the results, logs and copies of a method: no code of the user is there
_RESULTS_FOLDER = r"[^,]+\.[^,]+\.[^,]+,[^,]+"
# what marks the folder of an environment: copying it would copy thousands of installed modules
_ENVIRONMENT_MARKS = frozenset(("pyvenv.cfg", "conda-meta"))
_POOL_FROM = 64  # files; below, starting threads costs more than network file systems make wait
_POOL_SIZE = 8
COMMITS_TEXT = "git-hashes.log"
COMMITS = ".exca-commits.json"  # in a copy of code: the commits that it was made from
_SHOWN = 20  # changed files, in an error


class Source(tp.NamedTuple):
    """Something to copy, and its place in the copy (empty for the content of a folder)."""

    path: Path
    place: str


class Rules(tp.NamedTuple):
    """Which names are copied from folders, and which folders (real paths) never are."""

    includes: re.Pattern[str]
    excludes: re.Pattern[str]
    untouched: frozenset[str] = frozenset()

    @classmethod
    def of(cls, includes: tp.Iterable[str], excludes: tp.Iterable[str]) -> tp.Self:
        """Compile the patterns of names."""
        return cls(_any_of(includes), _any_of(excludes))

    def without(self, *folders: Path) -> "Rules":
        """The same rules, which never enter these folders: the copy must not copy itself."""
        return self._replace(untouched=self.untouched | {os.path.realpath(folder) for folder in folders})


def _any_of(patterns: tp.Iterable[str]) -> re.Pattern[str]:
    joined = "|".join(fnmatch.translate(os.path.normcase(pattern)) for pattern in patterns)
    return re.compile(joined or r"(?!)")  # no pattern matches no name


def source_of(name: str | Path, path: Path) -> Source:
    """Say where something found lands: a relative path keeps its place, all else goes to the top."""
    given = Path(name)
    if given == Path("."):
        return Source(path, "")
    if given.is_absolute() or ".." in given.parts or str(given).startswith("~") or given.name != path.name:
        return Source(path, path.name)
    return Source(path, str(given))


def check_places(sources: tp.Sequence[Source]) -> None:
    """Refuse two different sources with one place in the copy."""
    taken: dict[str, Path] = {}
    for source in sources:
        other = taken.setdefault(os.path.normcase(source.place), source.path)
        if not os.path.samefile(other, source.path):
            raise WorkDirError(
                f"The workdir would copy both {other} and {source.path} to {source.place or 'its top'!r}: "
                "remove one of them from 'workdir.copied', or rename it."
            )


def check_something_matches(sources: tuple[Source, ...], rules: Rules) -> None:
    """Refuse sources of which no file would be copied."""
    if not _matches_something(sources, rules):
        raise _nothing_matches(sources)


@functools.lru_cache(maxsize=256)
def _matching_once(sources: tuple[Source, ...], rules: Rules) -> None:
    # a configuration is built once for each task of a large array: what was seen to match needs no second
    # look (the copy itself looks again); an exception is not kept, so what did not match is
    for source in sources:
        if next(_files_of(source, rules), None) is not None:
            return
    raise LookupError


def _matches_something(sources: tuple[Source, ...], rules: Rules) -> bool:
    try:
        _matching_once(sources, rules)
    except LookupError:
        return False
    return True


def _nothing_matches(sources: tp.Sequence[Source]) -> WorkDirError:
    shown = ", ".join(str(source.path) for source in sources)
    return WorkDirError(
        f"The workdir copies nothing: no file in {shown} matches 'workdir.includes' and is left by "
        "'workdir.excludes'. Name files themselves in 'workdir.copied', or widen 'workdir.includes'."
    )


def files(sources: tp.Iterable[Source], rules: Rules) -> dict[str, str]:
    """The files to copy, by their place in the copy; raises WorkDirError where two have the same place."""
    plan: dict[str, str] = {}
    for source in sources:
        for place, path in _files_of(source, rules):
            other = plan.setdefault(place, path)
            if other != path and not os.path.samefile(other, path):
                raise WorkDirError(
                    f"The workdir would copy both {other} and {path} to {place!r}: "
                    "remove one of them from 'workdir.copied'."
                )
    return plan


def _files_of(source: Source, rules: Rules) -> tp.Iterator[tuple[str, str]]:
    """Yield (place, path) of the files of a source, those near its top first."""
    if not source.path.is_dir():
        yield source.place, str(source.path)
        return
    folders = [(str(source.path), source.place)]
    while folders:
        path, place = folders.pop()
        entries = _entries(path)
        if path != str(source.path) and not _ENVIRONMENT_MARKS.isdisjoint(entry.name for entry in entries):
            logger.debug("Not copied, since it is an environment: %s", path)
            continue
        for entry in entries:
            name = os.path.normcase(entry.name)
            if rules.excludes.match(name):
                continue
            if entry.is_dir():
                if not _never_entered(entry, rules):
                    folders.append((entry.path, os.path.join(place, entry.name)))
            elif rules.includes.match(name) and entry.is_file():  # a dangling link or a socket is none
                yield os.path.join(place, entry.name), entry.path


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise WorkDirError(
            f"The folder {folder} cannot be read for the workdir ({error.strerror}): "
            "make it readable, or add its name to 'workdir.excludes'."
        ) from error


def _never_entered(entry: os.DirEntry[str], rules: Rules) -> bool:
    if "," in entry.name and re.fullmatch(_RESULTS_FOLDER, entry.name):
        return True
    if entry.is_symlink():
        here, target = os.path.realpath(os.path.dirname(entry.path)), os.path.realpath(entry.path)
        return target in rules.untouched or (here + os.sep).startswith(target + os.sep)  # a loop
    return bool(rules.untouched) and os.path.realpath(entry.path) in rules.untouched


def copy(sources: tp.Sequence[Source], rules: Rules, folder: Path) -> None:
    """Copy the matching files; a folder that holds the same code already is left as it is."""
    plan = files(sources, rules)
    if not plan:
        raise _nothing_matches(sources)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = _copy_aside(plan, folder)
    except OSError as error:
        raise WorkDirError(
            f"The workdir cannot be copied to {folder} ({error.strerror}: {error.filename}): "
            "make the place writable and what is copied readable, or leave it out through 'workdir.excludes'."
        ) from error
    if fresh:
        logger.debug(
            "Copied %s file(s) of %s to %s", len(plan), ", ".join(str(s.path) for s in sources), folder
        )
    elif not _holds(folder, plan, sources, rules):
        raise WorkDirError(
            f"The folder {folder} holds another version of the code, with which jobs may be running: "
            "give another 'workdir.folder', or none, for a fresh one at each submission."
        )


def require_ours(folder: str | os.PathLike[str]) -> None:
    """Refuse to run code of a folder that another user owns, who may have exchanged it."""
    owner = os.stat(folder).st_uid
    if hasattr(os, "geteuid") and owner not in (0, os.geteuid()):
        raise UntrustedFileError(
            f"The copy of the code, {folder}, belongs to user {owner}, so no job runs with it: set 'workdir.folder' to "
            "a folder of your own, or leave it out"
        )


def _copy_aside(plan: tp.Mapping[str, str], folder: Path) -> bool:
    """Copy next to the folder and move into place; False if something of the copy is there already."""
    if _is_filled(folder):
        if any(os.path.lexists(folder / place) for place in plan):
            return False
        _copy_all(plan, folder)  # the user's own folder, which holds other things
        return True
    aside = folder.with_name(_files.temporary_name(folder.name))
    try:
        _copy_all(plan, aside)
        if folder.is_dir() and not _is_filled(folder):
            folder.rmdir()  # Windows renames onto nothing, not even onto an empty folder
        os.rename(aside, folder)
    except OSError:
        if _is_filled(folder):  # another process was faster
            return False
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return True


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and bool(os.listdir(folder))


def _copy_all(plan: tp.Mapping[str, str], folder: Path) -> None:
    for parent in sorted({os.path.dirname(place) for place in plan}):
        _files.make_folders(str((folder / parent).absolute()), _files.OWN_FOLDER)
    pairs = [(path, str(folder / place)) for place, path in plan.items()]
    if len(pairs) < _POOL_FROM:
        _copy_files(pairs)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_POOL_SIZE) as pool:
        for _ in pool.map(_copy_files, (pairs[start::_POOL_SIZE] for start in range(_POOL_SIZE))):
            pass  # asked for, so that an error of a thread is raised here


def _copy_files(pairs: tp.Iterable[tuple[str, str]]) -> None:
    for source, target in pairs:
        _copy_file(source, target)


def _copy_file(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    mode = os.stat(target).st_mode & ~0o022  # jobs run it, so that no group may change it, whatever the umask
    if os.access(source, os.X_OK):  # all users who may read the copy may run it
        mode |= (mode & 0o444) >> 2
    os.chmod(target, mode)


def _holds(folder: Path, plan: tp.Mapping[str, str], sources: tp.Sequence[Source], rules: Rules) -> bool:
    """Tell whether the folder holds these files and no further module (one that was deleted since)."""
    copied = [Source(folder / source.place, source.place) for source in sources]
    copied = [source for source in copied if source.path.exists()]
    found = files(copied, rules._replace(untouched=frozenset()))
    if any(place.endswith(".py") and place not in plan for place in found):
        return False
    return all(_same(path, folder / place) for place, path in plan.items())


def _same(path: str, copied: Path) -> bool:
    import filecmp

    return copied.is_file() and filecmp.cmp(path, copied, shallow=False)


# ---------------------------------------------------------------- commits


@functools.lru_cache(maxsize=256)
def check_committed(sources: tuple[Source, ...], rules: Rules) -> None:
    """Refuse uncommitted changes when a configuration is built.

    What was clean needs no second look, since the copy itself looks again: git costs some 10 ms, and a large
    array builds a configuration for each of its tasks. Raises as :func:`commits_of`.
    """
    commits_of(sources, rules)


def commits_of(sources: tp.Sequence[Source], rules: Rules) -> dict[str, str]:
    """The commit of each git repository that is copied from, by the name of its folder, or by its path.

    What is in no repository is warned about and left out. Raises UncommittedChangesError where a tracked file of what
    is copied was changed since, or a file to copy is not tracked; WorkDirError without git or a commit.
    """
    commits: dict[str, str] = {}
    for source in sources:
        place = source.path if source.path.is_dir() else source.path.parent
        top = _git(place, "rev-parse", "--show-toplevel")
        if top is None:
            logger.warning("No commit is recorded for %s, which is in no git repository", source.path)
            continue
        commit = _git(place, "rev-parse", "--verify", "HEAD")
        if commit is None:
            raise WorkDirError(
                f"workdir.log_commit is set, but the repository {top} has no commit: make one."
            )
        _check_clean(source, Path(top), rules)
        name = Path(top).name
        if commits.get(name, commit) != commit:
            name = top
        commits[name] = commit
    for name, commit in commits.items():
        logger.info("The commit of %s is %s", name, commit)
    return commits


def write_commits(commits: tp.Mapping[str, str], folder: Path) -> None:
    """Write the commits into the copy, one ``name: commit`` a line."""
    text = "".join(f"{name}: {commit}\n" for name, commit in sorted(commits.items()))
    (folder / COMMITS_TEXT).write_text(text, "utf8")


def _check_clean(source: Source, top: Path, rules: Rules) -> None:
    status = _git(
        source.path if source.path.is_dir() else source.path.parent,
        *("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", str(source.path)),
    )
    lines = [line for line in (status or "").split("\0") if line]
    if not lines:
        return
    # an untracked file matters if it is copied, a tracked one always
    copied = {os.path.realpath(path) for path in files([source], rules).values()}
    changed = [line for line in lines if line[:2] != "??" or os.path.realpath(top / line[3:]) in copied]
    if changed:
        shown = "".join(f"\n  {line}" for line in changed[:_SHOWN])
        more = f"\n  ... and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise UncommittedChangesError(
            f"workdir.log_commit is set, but {source.path} holds changes that are not committed "
            f"(as git status shows them):{shown}{more}\nCommit them, or unset workdir.log_commit."
        )


def _git(folder: Path, *args: str) -> str | None:
    """What git prints, or None where it refuses."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *args],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
        )
    except FileNotFoundError as error:
        raise WorkDirError("workdir.log_commit needs git, which is not on the PATH: install git.") from error
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


@functools.lru_cache(maxsize=64)
def git_commit(folder: str) -> dict[str, tp.Any] | None:
    """Commit of the git repository that holds a folder, and whether it is dirty, asked once per process."""
    noted = _noted_commit(folder)
    if noted is not None:
        return noted
    place = Path(os.path.realpath(folder))
    if "GIT_DIR" not in os.environ and not any(
        (above / ".git").exists() for above in (place, *place.parents)
    ):
        return None  # as git would find, in a process of its own
    command = [
        "git",
        "--no-optional-locks",  # else the user's own commands fail meanwhile, and a job that is killed leaves a lock
        "-C",
        folder,
        "-c",
        "core.fsmonitor=false",
        "status",
        "--porcelain=v2",
        "--branch",
        "-uno",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    if commit == "(initial)":
        return None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def note_commits(sources: tp.Mapping[str, str], copy: Path) -> None:
    """Write into a copy of code which commits it was made from: the copy is in no repository, or in another one."""
    import orjson

    commits = {}
    for place, path in sources.items():
        if not os.path.isdir(path):
            place, path = os.path.dirname(place), os.path.dirname(path)
        commits[place] = git_commit(path)
    if not any(commits.values()):
        return
    try:
        _files.write_atomically(copy / COMMITS, orjson.dumps(commits))
    except OSError as e:
        logger.debug("the commits of %s cannot be noted: %s", copy, e)


def _noted_commit(folder: str) -> dict[str, tp.Any] | None:
    """The commit that a copy of code was made from, in which a folder is; None where it is in no such copy."""
    import orjson

    here, place = os.getcwd(), Path(folder)  # a job with a copy runs in it
    if not place.is_relative_to(here):
        return None
    try:
        commits = orjson.loads(_files.read_file(f"{here}/{COMMITS}"))
    except (OSError, ValueError):
        return None
    relative = place.relative_to(here)
    fitting = [p for p in commits if p in ("", ".") or relative.is_relative_to(p)]
    return tp.cast("dict[str, tp.Any] | None", commits[max(fitting, key=len)] if fitting else None)
