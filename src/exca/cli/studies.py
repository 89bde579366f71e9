"""The study of a search: kept so that Optuna goes on where it was, and made anew where the cache differs from it."""

import contextlib
import copy
import inspect
import json
import os
import typing as tp
import warnings
import zlib
from collections.abc import Callable, Iterator

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState

from .. import _files, _trust
from ..errors import SearchError
from .configuring import near
from .spaces import Search, Space

# attributes of a study: what it was made for; that all points were drawn
_ABOUT, _EXHAUSTED = "exca", "exhausted"


class _Journal(BaseJournalBackend):
    """What Optuna has noted of a study, in one file; one process writes it at a time.

    Lines are written by `keep`, all together, so that a killed process leaves no half of a step.

    Parameters
    ----------
    path: str
        the file; one that is another user's, or is damaged, counts as not there
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._logs, self._whole = _lines(path)
        self._kept = len(self._logs)

    def read_logs(self, log_number_from: int) -> list[dict[str, tp.Any]]:
        """What was noted, from a number on."""
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, tp.Any]]) -> None:
        """Note something."""
        self._logs += logs

    def clear(self) -> None:
        """Forget all of it."""
        self._logs, self._kept, self._whole = [], 0, False

    def keep(self) -> None:
        """Write what was noted since the last time."""
        data = "".join(f"{json.dumps(log)}\n" for log in self._logs[self._kept :]).encode()
        if self._whole and data:
            fd = _files.reopen_to_append(self._path)
            try:
                _files.write_all(fd, data)
            finally:
                os.close(fd)
        elif not self._whole:
            _files.write_atomically(self._path, data, mode=_files.OWN)
        self._whole, self._kept = True, len(self._logs)


def _lines(path: str) -> tuple[list[dict[str, tp.Any]], bool]:
    """The lines of a journal, and whether the file can be appended to as it is."""
    try:
        data, status = _files.read_judged(path)
    except OSError:  # not there, another user's, or no file
        return [], False
    if not _trust.is_trusted(status):
        return [], False
    whole, _, rest = data.rpartition(b"\n")
    try:
        logs = [json.loads(line) for line in whole.splitlines()]
    except ValueError:
        return [], False
    return (logs, not rest) if all(isinstance(log, dict) for log in logs) else ([], False)


class Study:
    """A study that is kept beside the cache.

    Parameters
    ----------
    path: str
        the file of its journal
    name: str
        name of the search
    search: Search
        what is searched for, and how
    space: Space
        what it draws from
    """

    def __init__(self, path: str, name: str, search: Search, space: Space) -> None:
        self._name = name
        self._search = search
        self._space = space
        self._journal = _Journal(path)
        self._about = json.dumps([search.minimize, search.maximize, space.described()])
        self.optuna: optuna.Study = self._opened()
        self._same = self.optuna.user_attrs.get(_ABOUT) == self._about

    def _opened(self) -> optuna.Study:
        options: dict[str, tp.Any] = {
            "study_name": self._name,
            "direction": "minimize" if self._search.maximize is None else "maximize",
            "sampler": sampler(self._search, 0),
            "pruner": pruner(self._search),
            "load_if_exists": True,
        }
        with quiet():
            try:
                study = optuna.create_study(storage=JournalStorage(self._journal), **options)
            except Exception:  # of a journal that is none, or of another release of Optuna
                self._journal.clear()
                study = optuna.create_study(storage=JournalStorage(self._journal), **options)
        # a sampler that has drawn all there is calls it, which Optuna only allows in a loop of its own
        vars(study)["stop"] = lambda: study.set_user_attr(_EXHAUSTED, str(self._search.sampler))
        return study

    @property
    def exhausted(self) -> bool:
        """Whether there are no further points."""
        return self.optuna.user_attrs.get(_EXHAUSTED) == str(self._search.sampler)

    def agree_with(self, truth: Callable[[tp.Any], tp.Any]) -> list[tp.Any]:
        """Bring the study in line with the cache, and return the trials that have not ended.

        Parameters
        ----------
        truth: callable
            gives a trial as the cache knows it: itself, another, or None where it is of other tasks
        """
        before = self.optuna.get_trials(deepcopy=False)
        now = [truth(trial) for trial in before]
        if not self._same or any(new is not old for new, old in zip(now, before, strict=True)):
            self._journal.clear()
            self.optuna = self._opened()
            self.optuna.set_user_attr(_ABOUT, self._about)
            for trial in now:
                if trial is not None:
                    kept = copy.deepcopy(trial)
                    kept.distributions = self._space.distributions(kept.params)
                    self.optuna.add_trial(kept)
        self.keep()
        return self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def ask(self) -> tuple[optuna.Trial, dict[str, tp.Any]]:
        """A new trial, and its point."""
        if self._search.seed is not None:  # of each trial, so that a search that goes on draws no point again
            self.optuna.sampler = sampler(self._search, len(self.optuna.get_trials(deepcopy=False)))
        with quiet():
            trial = self.optuna.ask()
            return trial, self._space.draw(trial)

    def again(self, trial: tp.Any) -> optuna.Trial:
        """A trial that was asked for by an earlier process."""
        with quiet():
            return optuna.Trial(self.optuna, trial._trial_id)

    def tell(self, trial: optuna.Trial, value: float | None, *, pruned: bool = False) -> None:
        """Note the end of a trial; without a value it has failed."""
        state = TrialState.PRUNED if pruned else TrialState.FAIL if value is None else TrialState.COMPLETE
        with quiet():
            self.optuna.tell(trial, value, state)

    def keep(self) -> None:
        """Write what was noted."""
        self._journal.keep()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's messages about trials and its warnings about experimental features."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def sampler(search: Search, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of a search, for the trial of a number."""
    seed = search.seed
    kind = _class(search.sampler, optuna.samplers, optuna.samplers.BaseSampler)
    if seed is not None and kind is not optuna.samplers.QMCSampler:  # which draws one sequence
        seed = zlib.crc32(f"{seed}:{number}".encode())
    return tp.cast(optuna.samplers.BaseSampler, _made(kind, search.sampler, {"seed": seed}))


def pruner(search: Search) -> optuna.pruners.BasePruner:
    """The pruner of a search."""
    if search.prune is None:
        return optuna.pruners.NopPruner()
    kind = _class(search.prune.pruner, optuna.pruners, optuna.pruners.BasePruner)
    return tp.cast(optuna.pruners.BasePruner, _made(kind, search.prune.pruner, {}))


def _class(given: str | dict[str, tp.Any], module: tp.Any, base: type) -> type:
    name = given if isinstance(given, str) else str(given.get("name"))
    found = getattr(module, name, None)
    if not (inspect.isclass(found) and issubclass(found, base)) or inspect.isabstract(found):
        known = [n for n in module.__all__ if n.endswith(base.__name__.removeprefix("Base"))]
        known = [n for n in known if not n.startswith("Base")]
        raise SearchError(f"{module.__name__} has no class {name!r}{near(name, known)}")
    return tp.cast(type, found)


def _made(kind: type, given: str | dict[str, tp.Any], more: dict[str, tp.Any]) -> tp.Any:
    options = {} if isinstance(given, str) else {k: v for k, v in given.items() if k != "name"}
    known = inspect.signature(kind).parameters
    more = {name: value for name, value in more.items() if name in known}
    try:
        with quiet():
            return kind(**{**more, **options})
    except (TypeError, ValueError, ImportError) as e:
        raise SearchError(f"{kind.__name__} cannot be made with {options}: {e}") from e
