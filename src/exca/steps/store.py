"""Where a stage keeps its results and errors."""

import contextlib
import logging
import os
import typing as tp
from pathlib import Path

from .. import _files

if tp.TYPE_CHECKING:
    from ..cachedict import CacheDict
    from .pipeline import Stage

logger: logging.Logger = logging.getLogger("exca")

ERRORS = "errors"  # folder of cached errors, beside that of the results


class StageStore:
    """Results and errors of one stage: two mappings by key in the folder of its address.

    A key has a result, an error, or none of them; where it has both, the result counts. A result that is to be
    replaced (mode "force") stays until the new outcome is there: it does not count for the object that asked, and
    does for all others.
    """

    def __init__(self, stage: "Stage") -> None:
        from ..cachedict import CacheDict

        assert stage.folder is not None, "only stages with a folder keep anything"
        self.stage = stage
        self.base: Path = Path(_files.name_root(os.path.abspath(stage.folder)))
        self._settled = False
        self.folder: Path = self._settle(create=False)
        self._errors: CacheDict[dict[str, tp.Any]] | None = None
        keep = stage.infra.keep_in_ram
        found = stage.caches.get(self.folder) if keep else None
        if found is None:
            found = CacheDict(self.folder / "cache", keep_in_ram=keep, cache_type=stage.cache_type)
        self.results: CacheDict[tp.Any] = found
        if keep:
            stage.caches[self.folder] = self.results

    def _settle(self, *, create: bool) -> Path:
        from ..identity import configfolder

        stage = self.stage
        lineage, depth = stage.lineage, stage.depth
        return configfolder.ensure_config_folder(
            self.base / stage.address,
            uid_config=lineage.configs(depth),
            full_uid_config=lambda: lineage.full_configs(depth),
            config=lambda: (lineage.everything(depth), lineage.new_fields(depth)),
            create=create,
        )

    def open(self) -> None:
        """Make the folder, and write the configuration files into it."""
        if not self._settled:
            self._settle(create=True)
            _files.make_folders(f"{self.folder}/cache")
            self._settled = True

    # ---------------------------------------------------------------- results

    def absent(self, keys: tp.Sequence[str]) -> list[str]:
        """Those of the keys that have no result, or still the one to be replaced, in order."""
        absent = self.results.missing(keys)
        stale = self.stage.stale
        asked = [key for key in keys if key in stale] if stale else []
        if not asked:
            return absent
        places = self.results.places_of(asked)
        for key in asked:
            if places.get(key) != stale.get(key):  # replaced, here or elsewhere
                self._forget_stale(key)
        gone = set(absent)
        return [key for key in keys if key in gone or key in stale]

    def has(self, key: str) -> bool:
        """Whether there is a result that counts."""
        return not self.absent([key]) if key in self.stage.stale else key in self.results

    def _forget_stale(self, key: str) -> None:
        self.stage.stale.pop(key, None)
        self.results.doubt([key])  # where another process has written the new one

    def missing(self, keys: tp.Sequence[str]) -> list[str]:
        """Those of the keys that have neither a result nor an error, in order."""
        absent = self.absent(keys)
        return self.errors.missing(absent) if absent and self._has_errors() else absent

    def known(self) -> list[str]:
        """All keys that have a result or an error."""
        errors = self.errors if self._has_errors() else ()
        return list(dict.fromkeys([*self.results, *errors]))

    def put(self, key: str, value: tp.Any) -> None:
        """Keep a result; inside ``results.write()``."""
        self.results[key] = value
        if self.stage.stale:
            self.stage.stale.pop(key, None)

    def drop(self, keys: tp.Iterable[str]) -> int:
        """Remove results and errors; return how many results there were."""
        count = 0
        for key in keys:
            try:
                del self.results[key]
                count += 1
            except KeyError:
                pass
        self.clear_errors(keys)
        return count

    def mark_stale(self, keys: tp.Sequence[str]) -> None:
        """Remember which results are to be replaced, and remove errors."""
        self.clear_errors(keys)
        places = self.results.places_of(keys)
        if places:
            self.stage.stale.update(places)
            logger.info("Computing %d item(s) of %s again (mode='force')", len(places), self.stage.address)

    # ---------------------------------------------------------------- errors

    def _has_errors(self) -> bool:
        # a network file system may remember that a folder was not there: the cache asks the server
        return (
            self._errors is not None or (self.folder / ERRORS).is_dir() or _files.on_network(str(self.folder))
        )

    @property
    def errors(self) -> "CacheDict[dict[str, tp.Any]]":
        """The cached errors, as JSON."""
        if self._errors is None:
            from ..cachedict import CacheDict, DumpOptions

            options = DumpOptions(group_writable=False)  # errors are kept as pickles, too
            self._errors = CacheDict(self.folder / ERRORS, cache_type="Json", options=options)
        return self._errors

    def failed(self, keys: tp.Sequence[str]) -> list[str]:
        """Those of the keys that have an error and no result, in order."""
        if not self._has_errors():
            return []
        absent = self.absent(keys)
        unknown = set(self.errors.missing(absent))
        return [key for key in absent if key not in unknown]

    def put_errors(self, keys: tp.Sequence[str], error: BaseException) -> None:
        """Keep an error as that of all the keys, in place of results that were to be replaced."""
        from ..jobs.remote_errors import error_content

        content = error_content(error)
        with self.errors.write():
            for key in keys:
                self.errors[key] = content
        stale = self.stage.stale
        replaced = self.results.places_of([key for key in keys if key in stale]) if stale else {}
        for key, place in replaced.items():
            if place == stale.get(key):  # not a newer one, of the process that took this computation over
                with contextlib.suppress(KeyError):
                    del self.results[key]
                self._forget_stale(key)

    def clear_errors(self, keys: tp.Iterable[str]) -> int:
        """Remove cached errors; return how many there were."""
        if not self._has_errors():
            return 0
        keys = list(keys)
        unknown = set(self.errors.missing(keys))
        known = [key for key in keys if key not in unknown]
        for key in known:
            try:
                del self.errors[key]
            except KeyError:  # removed by another process, just now
                pass
        return len(known)

    def error(self, key: str) -> BaseException:
        """Rebuild a cached error, with a note on how to compute it again.

        Raises: KeyError where there is none.
        """
        from ..jobs.remote_errors import rebuild_error

        content = self.errors[key]
        error = rebuild_error(
            content, trusted=self.errors.trusts(key), where=f"{self.stage.name}, item {key!r}"
        )
        error.add_note(
            f"This is the cached error of {self.stage.address}, item {key!r}, in {self.base}. To compute it again: "
            f"mode='retry' on the infra of {self.stage.name}, or lookup(...).clear_cache()."
        )
        return error
