"""What a verification found: per folder and in total, as text and as JSON."""

import dataclasses
import typing as tp

_COLUMNS = {
    "entries": "entries",
    "nbytes": "bytes",
    "damaged": "damaged",
    "orphans": "orphaned",
    "stale_claims": "stale claims",
    "leftovers": "leftovers",
    "derived": "derived",
    "unreadable": "unreadable",
    "live_claims": "at work",
    "set_aside": "set aside",
}
_FAULTS = ("damaged", "orphans", "stale_claims", "leftovers", "derived", "unreadable")
MAX_SHOWN = 20  # findings that the text names one by one


@dataclasses.dataclass(frozen=True)
class Damaged:
    """An entry, or a file, that is not whole.

    Parameters
    ----------
    file: str
        path within its folder
    error: str
        what is wrong with it
    key: str, optional
        key of the entry, where it can be read
    offset: int, optional
        where its line starts in the file, in bytes; None when the whole file is meant
    length: int
        length of the line with its end, in bytes
    """

    file: str
    error: str
    key: str | None = None
    offset: int | None = None
    length: int = 0

    def __str__(self) -> str:
        place = self.file if self.offset is None else f"{self.file} at byte {self.offset}"
        return f"{place}{'' if self.key is None else f', entry {self.key[:60]!r}'}: {self.error}"


@dataclasses.dataclass
class FolderReport:
    """What was found in one folder.

    Parameters
    ----------
    folder: str
        the folder, within the one that was verified
    entries: int
        results (and cached errors) that are whole
    nbytes: int
        bytes of index and data that they take
    damaged: list of Damaged
        entries and files that are not
    unreadable: list of Damaged
        those that this user, or this environment, cannot check
    orphans: list of str
        data files that no entry names; where another process is at work, their entries may be about to come
    stale_claims: list of str
        claim files whose owner is dead
    live_claims: int
        claims whose owner lives, or may live
    leftovers: list of str
        temporary files of writers that are dead, or that have been silent for a day
    derived: list of str
        files made from others that are damaged and can be made anew
    set_aside: list of str
        files that were found bad and moved out of the way earlier
    """

    folder: str
    entries: int = 0
    nbytes: int = 0
    damaged: list[Damaged] = dataclasses.field(default_factory=list)
    unreadable: list[Damaged] = dataclasses.field(default_factory=list)
    orphans: list[str] = dataclasses.field(default_factory=list)
    stale_claims: list[str] = dataclasses.field(default_factory=list)
    live_claims: int = 0
    leftovers: list[str] = dataclasses.field(default_factory=list)
    derived: list[str] = dataclasses.field(default_factory=list)
    set_aside: list[str] = dataclasses.field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing asks for repair."""
        return not any(getattr(self, name) for name in _FAULTS)

    def counts(self) -> dict[str, int]:
        """All findings as numbers, by name."""
        values = {name: getattr(self, name) for name in _COLUMNS}
        return {name: value if isinstance(value, int) else len(value) for name, value in values.items()}

    def findings(self) -> tp.Iterator[tuple[str, str]]:
        """Yield (what, which) for everything that asks for repair."""
        for name in _FAULTS:
            for item in getattr(self, name):
                yield _COLUMNS[name], f"{self.folder}/{item}"


@dataclasses.dataclass
class Report:
    """What was found in a folder and all below it.

    Parameters
    ----------
    root: str
        the folder that was verified
    folders: list of FolderReport
        one for each folder that holds results, claims or leftovers
    """

    root: str
    folders: list[FolderReport] = dataclasses.field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing asks for repair."""
        return all(folder.sound for folder in self.folders)

    def totals(self) -> dict[str, int]:
        """Return all findings as numbers, by name, over all folders."""
        every = [folder.counts() for folder in self.folders]
        return {name: sum(counts[name] for counts in every) for name in _COLUMNS}

    def to_json(self) -> dict[str, tp.Any]:
        """Return the whole report in JSON types."""
        folders = [{**dataclasses.asdict(folder), "sound": folder.sound} for folder in self.folders]
        return {"root": self.root, "sound": self.sound, "totals": self.totals(), "folders": folders}

    def _repr_html_(self) -> str | None:
        from .. import _notebook

        totals = self.totals()
        shown = {
            n: title for n, title in _COLUMNS.items() if totals[n] or n in ("entries", "nbytes", "damaged")
        }
        rows = [[folder.folder, *_row(folder.counts(), shown, "")[:-1]] for folder in self.folders]
        found = [pair for folder in self.folders for pair in folder.findings()]
        said = (
            "sound"
            if self.sound
            else f"{len(found):,} finding(s): exca.repair({self.root!r}) sets aside what is damaged"
        )
        return _notebook.card(
            f"{self.root}: {said}",
            _notebook.table(["folder", *shown.values()], rows, "what was found"),
            _notebook.table(["finding", "where"], found, "findings"),
        )

    def _repr_mimebundle_(self, **_: tp.Any) -> dict[str, str] | None:
        from .. import _notebook

        return _notebook.bundle(str(self), self._repr_html_())

    def __str__(self) -> str:
        shown = {name: title for name, title in _COLUMNS.items() if name in ("entries", "nbytes", "damaged")}
        totals = self.totals()
        shown |= {name: title for name, title in _COLUMNS.items() if totals[name]}
        rows = [[*shown.values(), "folder"]]
        rows += [_row(folder.counts(), shown, folder.folder) for folder in self.folders]
        rows.append(_row(totals, shown, f"all {len(self.folders)} in {self.root}"))
        widths = [max(len(row[n]) for row in rows) for n in range(len(shown))]
        lines = ["  ".join([*map(str.rjust, row, widths), row[-1]]) for row in rows]
        found = [f"{what}: {which}" for folder in self.folders for what, which in folder.findings()]
        if len(found) > MAX_SHOWN:
            found[MAX_SHOWN:] = [f"and {len(found) - MAX_SHOWN} more"]
        return "\n".join([*lines, *found])


def _row(counts: dict[str, int], shown: tp.Iterable[str], name: str) -> list[str]:
    return [*(f"{counts[column]:,}" for column in shown), name]
