"""What a method may ask about the computation it is in, and the numbers that it logs."""

import contextvars
import json
import os
import threading
import typing as tp
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pydantic
import pytest

import exca
from exca import steps
from exca.errors import NotComputingError

SLURM = pytest.param("slurm", marks=pytest.mark.slurm)
Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time


def told() -> dict[str, tp.Any]:
    """Return what there is to ask, in JSON types."""
    now = exca.current()
    return {
        "type": type(now.obj).__name__,
        "uid": now.uid,
        "folder": None if now.folder is None else str(now.folder),
        "config": now.config.flat(),
        "attempt": now.attempt,
        "rank": now.rank,
        "processes": now.processes,
        "cluster": now.cluster,
        "job_id": now.job_id,
    }


class Training(pydantic.BaseModel):
    """Logs a loss per step."""

    rate: float = 0.1
    steps: int = 3
    fail: bool = False
    infra: exca.TaskInfra = exca.TaskInfra()
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("fail",)

    @infra.apply
    def run(self) -> dict[str, tp.Any]:
        """Return what it was told."""
        for step in range(self.steps):
            exca.log_metrics(step, loss=1 / (step + 1))
        if self.fail:
            raise ValueError("not today")
        return told()


def lines(path: Path) -> list[dict[str, tp.Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("cluster", [None, "debug", "local", SLURM])
def test_a_task_knows_itself_and_logs_beside_its_record(cluster: str | None, slurm_folder: Path) -> None:
    infra: Infra = {"folder": slurm_folder, "cluster": cluster}
    training = Training(rate=0.2, infra=infra)
    found = training.run()
    folder = tp.cast(Path, training.infra.uid_folder())
    record = json.loads((folder / "job.json").read_text())
    assert found.pop("config").items() >= {"rate": 0.2, "steps": 3, "fail": False}.items()
    assert found == {
        "type": "Training",
        "uid": training.infra.uid(),
        "folder": str(folder),
        "attempt": record["attempt"],
        "rank": 0,
        "processes": 1,
        "cluster": cluster,
        "job_id": None if cluster is None else record["job_id"],
    }
    logged = lines(folder / "metrics.jsonl")
    assert [(line["step"], line["loss"], line["attempt"]) for line in logged] == [
        (step, 1 / (step + 1), record["attempt"]) for step in range(3)
    ]
    assert not [found.damaged for found in exca.verify(slurm_folder).folders if found.damaged]


def test_a_later_attempt_adds_its_lines_and_clearing_removes_all(tmp_path: Path) -> None:
    infra: Infra = {"folder": tmp_path}
    with pytest.raises(ValueError, match="not today"):
        Training(fail=True, infra=infra).run()
    again = Training(infra=tp.cast(tp.Any, {**infra, "mode": "retry"}))
    attempt = again.run()["attempt"]
    path = tp.cast(Path, again.infra.uid_folder()) / "metrics.jsonl"
    assert [line["step"] for line in lines(path)] == [0, 1, 2] * 2
    assert [line["attempt"] == attempt for line in lines(path)] == [False] * 3 + [True] * 3
    again.infra.clear_job()
    assert not path.exists()


def test_each_process_of_a_job_has_its_rank_and_its_file(tmp_path: Path) -> None:
    infra: Infra = {"folder": tmp_path, "cluster": "local", "tasks_per_node": 2}
    training = Training(infra=infra)
    found = training.infra.job().results()
    assert [(each["rank"], each["processes"]) for each in found] == [(0, 2), (1, 2)]
    assert len({each["attempt"] for each in found}) == 1
    folder = tp.cast(Path, training.infra.uid_folder())
    for name in ("metrics.jsonl", "metrics-1.jsonl"):
        assert [line["step"] for line in lines(folder / name)] == [0, 1, 2]


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = Training().run()
    assert (found["folder"], found["attempt"], found["cluster"]) == (None, "", None)
    assert found["uid"].endswith(".Training.run,0/default")
    assert list(tmp_path.iterdir()) == []


class Squares(pydantic.BaseModel):
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def squares(self, items: Iterable[int]) -> Iterator[dict[str, tp.Any]]:
        for item in items:
            exca.log_metrics(item, square=item**2)
            yield told()


@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool", "local"])
def test_a_map_knows_itself_and_logs_per_attempt(cluster: str | None, tmp_path: Path) -> None:
    infra: Infra = {"folder": tmp_path, "cluster": cluster, "max_jobs": 2}
    obj = Squares(infra=infra)
    found = list(obj.squares(range(4)))
    folder = tp.cast(Path, obj.infra.uid_folder())
    assert {each["uid"] for each in found} == {obj.infra.uid()}
    assert {each["folder"] for each in found} == {str(folder)}
    files = {path.name: lines(path) for path in folder.glob("metrics-*.jsonl")}
    assert files.keys() == {f"metrics-{each['attempt']}.jsonl" for each in found}
    assert sorted(line["square"] for logged in files.values() for line in logged) == [0, 1, 4, 9]
    assert not [found.damaged for found in exca.verify(tmp_path).folders if found.damaged]


class Double(steps.Step):
    factor: float = 2

    def _run(self, value: float) -> dict[str, tp.Any]:
        exca.log_metrics(0, value=value)
        return told()


def test_a_stage_of_a_pipeline_knows_itself(tmp_path: Path) -> None:
    step = Double.model_validate({"infra": {"backend": "Cached", "folder": tmp_path}})
    found = step.run(3)
    assert (found["type"], found["config"]["factor"]) == ("Double", 2)
    [path] = tmp_path.rglob("metrics-*.jsonl")
    assert str(path.parent) == found["folder"]
    assert found["folder"].endswith(found["uid"])
    assert path.name == f"metrics-{found['attempt']}.jsonl"
    assert [line["value"] for line in lines(path)] == [3]


class Sends(pydantic.BaseModel):
    infra: exca.SubmitInfra = exca.SubmitInfra()

    @infra.apply
    def call(self, x: int) -> dict[str, tp.Any]:
        exca.log_metrics(x, x=x)
        return told()


@pytest.mark.parametrize("cluster", [None, "local"])
def test_a_call_of_which_nothing_is_kept_knows_itself(cluster: str | None, tmp_path: Path) -> None:
    infra: Infra = {"folder": tmp_path, "cluster": cluster}
    found = Sends(infra=infra).call(3)
    assert (found["type"], found["folder"], found["cluster"]) == ("Sends", None, cluster)
    assert not list(tmp_path.rglob("metrics*"))


class Outer(pydantic.BaseModel):
    inner: Training = Training()
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> list[str]:
        return [exca.current().uid, self.inner.run()["uid"], exca.current().uid]


def test_the_innermost_computation_counts(tmp_path: Path) -> None:
    infra: Infra = {"folder": tmp_path}
    outer = Outer(inner=Training(infra=infra), infra=infra)
    assert outer.run() == [outer.infra.uid(), outer.inner.infra.uid(), outer.infra.uid()]


class Threaded(pydantic.BaseModel):
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> list[str]:
        found: list[str] = []

        def ask() -> None:
            try:
                found.append(exca.current().attempt)
            except NotComputingError as e:
                found.append(str(e))

        for target, args in ((ask, ()), (contextvars.copy_context().run, (ask,))):
            thread = threading.Thread(target=target, args=args)
            thread.start()
            thread.join()
        return [*found, exca.current().attempt]


def test_a_thread_of_the_method_needs_its_context(tmp_path: Path) -> None:
    infra: Infra = {"folder": tmp_path}
    without, within, own = Threaded(infra=infra).run()
    assert "contextvars.copy_context().run" in without
    assert within == own


def test_outside_of_a_computation_there_is_none() -> None:
    for ask in (exca.current, lambda: exca.log_metrics(0, loss=1)):
        with pytest.raises(NotComputingError, match=r"none runs here\. Call them in a decorated method"):
            ask()


class Logs(pydantic.BaseModel):
    infra: exca.TaskInfra = exca.TaskInfra()
    _metrics: tp.Any = None

    @infra.apply
    def run(self) -> None:
        exca.log_metrics(*self._metrics[0], **self._metrics[1])


def logging(folder: Path, *args: tp.Any, **metrics: tp.Any) -> dict[str, tp.Any]:
    infra: Infra = {"folder": folder}
    logs = Logs(infra=infra)
    logs._metrics = args, metrics
    logs.run()
    [line] = lines(tp.cast(Path, logs.infra.uid_folder()) / "metrics.jsonl")
    return {name: value for name, value in line.items() if name not in ("time", "attempt")}


def test_numbers_of_every_kind(tmp_path: Path) -> None:
    numbers: dict[str, tp.Any] = {
        "int": 3,
        "bool": True,
        "float": 0.5,
        "numpy": np.float32(0.25),
        "array": np.array(2),
        "val/loss": 1.5,
    }
    not_finite = {"nan": float("nan"), "inf": np.inf, "minus": -np.inf}
    found = logging(tmp_path, np.int64(7), **numbers, **not_finite)
    assert found == {
        "step": 7,
        "int": 3,
        "bool": 1,
        "float": 0.5,
        "numpy": 0.25,
        "array": 2,
        "val/loss": 1.5,
        "nan": "nan",
        "inf": "inf",
        "minus": "-inf",
    }


def test_a_tensor_of_one_number(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    assert logging(tmp_path, 1, loss=torch.tensor(0.5, requires_grad=True)) == {"step": 1, "loss": 0.5}


@pytest.mark.parametrize(
    ("step", "metrics", "error", "words"),
    [
        (1, {"loss": "0.5"}, TypeError, "log_metrics takes numbers, not loss='0.5' of type str"),
        (1, {"loss": None}, TypeError, "log_metrics takes numbers, not loss=None of type NoneType"),
        ("1", {}, TypeError, "log_metrics takes numbers, not step='1' of type str"),
        (
            1,
            {"time": 3},
            ValueError,
            "a metric cannot be named 'time', which each line of metrics.jsonl has itself",
        ),
    ],
)
def test_what_is_no_metric(
    tmp_path: Path, step: tp.Any, metrics: dict[str, tp.Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        logging(tmp_path, step, **metrics)


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="as on Windows, links are followed")
def test_a_link_in_the_place_of_the_file_of_another_user_is_not_followed(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a link to another user")
    infra: Infra = {"folder": tmp_path / "cache"}
    training = Training(infra=infra)
    path = tp.cast(Path, training.infra.uid_folder(create=True)) / "metrics.jsonl"
    path.symlink_to(tmp_path / "other")
    (tmp_path / "other").touch()
    os.lchown(path, 64_321, 64_321)
    with pytest.raises(PermissionError, match="Not following the link"):
        training.run()
    assert (tmp_path / "other").read_bytes() == b""
