"""The command export --to: what each tracker reads back of it, and that a second export brings it up to date."""

# pyright: reportAttributeAccessIssue=false, reportMissingImports=false
# (the trackers are in an environment of their own, and TensorBoard makes its names at run time)

import importlib.util
import math
import os
import struct
import sys
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest

import exca
from saying import say

pytestmark = pytest.mark.filterwarnings("default")  # of the trackers


class Logged(pydantic.BaseModel):
    """A task that logs."""

    rate: float = 0.5
    title: str = ""
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> dict[str, tp.Any]:
        """Log a curve that ends badly for large rates."""
        for step in range(3):
            exca.log_metrics(step, loss=self.rate / (step + 1), odd=math.nan)
        if self.rate > 5:
            raise ValueError("diverged")
        return {"score": 2 * self.rate, "kind": "x"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for rate in (1.0, 9.0):
        fields = {"rate": rate, "title": "\x1b[2Jé'`", "infra": {"folder": tmp_path / "cache"}}
        try:
            Logged.model_validate(fields).run()
        except ValueError:
            continue
    return tmp_path / "cache"


def export(capsys: pytest.CaptureFixture[str], tracker: str, *arguments: object) -> None:
    """Export twice; the second time a task more is done."""
    given = ["export", "cache", "--to", tracker, "--project", "study", *arguments]
    assert say(capsys, *given).startswith("wrote 2 runs to ")
    Logged.model_validate({"rate": 2, "infra": {"folder": "cache"}}).run()
    assert say(capsys, *given).startswith("wrote 3 runs to ")


def require(tracker: str) -> None:
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed")


def test_tensorboard(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    export(capsys, "tensorboard", "-o", "runs")
    files = list(Path("runs").rglob("*tfevents*"))
    assert len(files) == 3
    found = {}
    for file in files:
        events = EventAccumulator(str(file.parent)).Reload()
        curve = [(e.step, round(e.value, 3)) for e in events.Scalars("loss")]
        data = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        params = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info.hparams
        found[params["rate"].number_value] = (curve, "value.score" in events.Tags()["scalars"])
        assert len(events.Scalars("odd")) == 3
    assert found[1] == ([(0, 1), (1, 0.5), (2, 0.333)], True)
    assert found[9] == ([(0, 9), (1, 4.5), (2, 3)], False)


@pytest.mark.long
def test_mlflow(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("mlflow")
    from mlflow.tracking import MlflowClient

    export(capsys, "mlflow", "-o", "m.db")
    client = MlflowClient(tracking_uri=f"sqlite:///{Path('m.db').absolute()}")
    experiment = client.get_experiment_by_name("study")
    assert experiment is not None
    runs = {run.data.params["rate"]: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["1.0", "2.0", "9.0"]
    assert runs["1.0"].info.status == "FINISHED"
    assert runs["9.0"].info.status == "FAILED"
    assert runs["9.0"].data.tags["exca.error"] == "ValueError: diverged"
    assert runs["1.0"].data.tags["exca.value.kind"] == "x"
    assert runs["1.0"].data.metrics["value.score"] == 2
    history = client.get_metric_history(runs["1.0"].info.run_id, "loss")
    assert [(m.step, round(m.value, 3)) for m in history] == [(0, 1), (1, 0.5), (2, 0.333)]


def records(data: bytes) -> Iterator[bytes]:
    """The records of a file of W&B: blocks of 32 KiB of parts, each with checksum, length and place in its record."""
    at, record = 7, b""  # after the header
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


@pytest.mark.long
def test_wandb(cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    require("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.delenv("WANDB_MODE", raising=False)
    export(capsys, "wandb", "-o", "w")
    folders = list(Path("w/wandb").glob("offline-run-*"))
    assert len({folder.name[-16:] for folder in folders}) == len(folders) == 3
    found = {}
    for folder in folders:
        [file] = folder.glob("*.wandb")
        rate, losses, failed = 0.0, list[float](), 0
        for data in records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            for item in record.run.config.update:
                rate = float(item.value_json) if item.key == "rate" else rate
            items = record.history.item
            losses += [round(float(i.value_json), 3) for i in items if "loss" in (i.key, *i.nested_key)]
            failed = record.exit.exit_code if record.HasField("exit") else failed
        found[rate] = (losses, failed)
    assert found[1] == ([1, 0.5, 0.333], 0)
    assert found[9] == ([9, 4.5, 3], 1)


@pytest.mark.long
def test_trackio(cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    require("trackio")
    if "trackio" in sys.modules:
        pytest.skip("trackio has been imported, and reads its folder only then")
    monkeypatch.setenv("TRACKIO_DIR", "")
    export(capsys, "trackio", "-o", "t")
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    runs = {run.config["rate"]: run for run in trackio.Api().runs("study") if run.config}
    assert sorted(runs) == [1, 2, 9]
    logs = SQLiteStorage.get_logs("study", runs[1].name, run_id=runs[1].id)
    assert [(log["step"], round(log["loss"], 3)) for log in logs] == [(0, 1), (1, 0.5), (2, 0.333)]
    assert logs[-1]["value.score"] == 2
    assert os.path.isfile("t/study.db")


def test_what_cannot_be_exported(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "name the archive that is to be written: -o" in say(capsys, "export", "cache", code=2)
    assert "no task fits, so nothing is exported" in say(
        capsys, "export", "cache", "--to", "wandb", "-w", "rate > 99", code=2
    )
    if importlib.util.find_spec("trackio") is None:
        assert "needs trackio: pip install trackio" in say(
            capsys, "export", "cache", "--to", "trackio", code=2
        )


def test_metrics_of_a_later_attempt_count(cache: Path) -> None:
    from exca.catalog import scan
    from exca.cli.trackers import run_of

    [row] = [row for row in scan.rows(cache) if row.config["rate"] == 1]
    file = Path(row.folder) / "metrics.jsonl"
    with file.open("a") as more:
        more.write(
            '{"step":1,"time":5.0,"attempt":"b","loss":7}\nnot json\n{"step":"x"}\n[]\n{"step":4,"time":1,"l'
        )
    points = [(p.step, p.value) for p in run_of(row).points if p.name == "loss"]
    assert points == [(0, 1), (1, 7), (2, pytest.approx(1 / 3))]
    file.unlink()
    (cache.parent / "other").write_text("a:b\n")
    file.symlink_to(cache.parent / "other")
    assert {p.name for p in run_of(row).points} == {"value.score", "seconds"}
    assert run_of(row).id == run_of(row).id
