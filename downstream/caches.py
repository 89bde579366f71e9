"""A pipeline written with neuralset, whose caches one release of exca writes and another one has to find.

`caches.main("write", folder)` computes everything and notes what came out; `caches.main("read", folder)` asks for the
same in read-only mode, so that anything not found is an error, and compares. It is imported rather than run, so that
the classes belong to a module of the same name in both.
"""

import hashlib
import json
import sys
import typing as tp
from pathlib import Path

import neuralset as ns
import numpy as np
import pandas as pd
import pydantic
from neuralset.events import transforms

import exca


class LongWords(transforms.EventsTransform):
    """Keeps words of some length."""

    letters: int = 4

    def _run(self, events: pd.DataFrame) -> pd.DataFrame:
        return events[(events.type != "Word") | (events.text.str.len() >= self.letters)]


class Experiment(pydantic.BaseModel):
    """What an experiment of neuralset looks like: a chain, an extractor, and a task over both."""

    model_config = pydantic.ConfigDict(extra="forbid")
    events: ns.Chain
    extractor: ns.extractors.MegExtractor
    factor: float = 2.0
    infra: exca.TaskInfra = exca.TaskInfra(version="1")
    table: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> dict[str, tp.Any]:
        """Compute a nested result."""
        data = self.data()
        return {"mean": float(data.mean()) * self.factor, "last": data[-1, -1], "names": ["a", ("b", 1)]}

    @table.apply
    def words(self) -> pd.DataFrame:
        """Compute a table."""
        events = self.events.run()
        return events[events.type == "Word"].reset_index(drop=True)

    def data(self) -> np.ndarray[tp.Any, tp.Any]:
        """Load what the extractor has cached of the first recording."""
        events = self.events.run()
        self.extractor.prepare(events)
        first = events[events.type == "Meg"].iloc[[0]]
        start = float(first.start.iloc[0])
        return np.asarray(self.extractor(first, start=start, duration=2.0))


def experiment(folder: Path, mode: str) -> Experiment:
    """Make the experiment, with all its results below a folder."""
    backend = {"backend": "Cached", "folder": folder / "cache", "mode": mode}
    infra = {"folder": folder / "cache", "mode": mode}
    study = {"name": "Test2023Meg", "path": folder / "studies", "query": "timeline_index<2", "infra": backend}
    return Experiment.model_validate({
        "events": {"steps": [study, {"name": "LongWords", "letters": 5}], "infra": backend},
        "extractor": {"frequency": 50.0, "infra": infra},
        "infra": infra,
        "table": infra,
    })  # fmt: skip


def results(folder: Path, mode: str) -> dict[str, str]:
    """Ask for everything, and return a digest of each result."""
    one = experiment(folder, mode)
    events = one.events.run()
    found: dict[str, tp.Any] = {"chain": events.to_csv(), "extractor": one.data().tobytes()}
    run = one.run()
    found["task"] = repr([run["mean"], np.asarray(run["last"]).tolist(), run["names"]])
    found["table"] = one.words().to_csv()
    digests = {}
    for name, value in found.items():
        data = value if isinstance(value, bytes) else value.encode()
        digests[name] = hashlib.sha256(data).hexdigest()
    return digests


def main(role: str, folder: Path) -> None:
    """Write the caches below a folder, or read them.

    Parameters
    ----------
    role: str
        "write" or "read"
    folder: Path
        the folder
    """
    notes = folder / "notes.json"
    if role == "write":
        (folder / "studies" / "Test2023Meg").mkdir(parents=True)
        notes.write_text(json.dumps(results(folder, "cached")), "utf8")
        return
    found, expected = results(folder, "read-only"), json.loads(notes.read_text("utf8"))
    wrong = [name for name in expected if found.get(name) != expected[name]]
    if wrong:
        sys.exit(f"exca {exca.__version__} reads other results than were written: {', '.join(wrong)}")
    print(f"{', '.join(expected)} found by exca {exca.__version__}")
