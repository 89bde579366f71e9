"""The commits that copied code stands at."""

import functools
import logging
import os
import subprocess
import typing as tp
from pathlib import Path

from .. import _files
from ..errors import UncommittedChangesError, WorkDirError
from .workdir_copy import Rules, Source, files

logger = logging.getLogger("exca")

RECORD = "git-hashes.log"
COMMITS = ".exca-commits.json"  # in a copy of code: the commits that it was made from
_SHOWN = 20  # changed files, in an error


@functools.lru_cache(maxsize=256)
def check_committed(sources: tuple[Source, ...], rules: Rules) -> None:
    """Refuse uncommitted changes when a configuration is built.

    What was clean needs no second look, since the copy itself looks again: git costs some 10 ms, and a large
    array builds a configuration for each of its tasks. Raises as :func:`commits_of`.
    """
    commits_of(sources, rules)


def commits_of(sources: tp.Sequence[Source], rules: Rules) -> dict[str, str]:
    """Find the commit of each git repository that is copied from.

    Returns
    -------
    dict of str to str
        name of the repository's folder (its path where two have one name) -> full commit hash.
        What lies in no repository is warned about and left out.

    Raises
    ------
    UncommittedChangesError
        a tracked file of what is copied was changed since, or a file that would be copied is not tracked.
    WorkDirError
        git is not there, or the repository has no commit yet.
    """
    commits: dict[str, str] = {}
    for source in sources:
        place = source.path if source.path.is_dir() else source.path.parent
        top = _git(place, "rev-parse", "--show-toplevel")
        if top is None:
            logger.warning("No commit is recorded for %s, which lies in no git repository", source.path)
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


def record(commits: tp.Mapping[str, str], folder: Path) -> None:
    """Write the commits into the copy, one ``name: commit`` a line."""
    text = "".join(f"{name}: {commit}\n" for name, commit in sorted(commits.items()))
    (folder / RECORD).write_text(text, "utf8")


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
            ["git", *args], cwd=folder, capture_output=True, text=True, errors="surrogateescape", check=False
        )
    except FileNotFoundError as error:
        raise WorkDirError("workdir.log_commit needs git, which is not on the PATH: install git.") from error
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


@functools.lru_cache(maxsize=64)
def git_commit(folder: str) -> dict[str, tp.Any] | None:
    """Commit of the git repository that holds a folder, asked once a process.

    Parameters
    ----------
    folder: str
        any folder

    Returns
    -------
    dict or None
        ``commit`` and ``dirty`` (whether tracked files were changed), None outside a repository
    """
    noted = _noted_commit(folder)
    if noted is not None:
        return noted
    command = [
        "git",
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
    """Write into a copy of code which commits it was made from: the copy is in no repository, or in another one.

    Parameters
    ----------
    sources: mapping of str to str
        what was copied, by its place in the copy
    copy: Path
        folder of the copy
    """
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
