"""Going through a cache: which folders become objects, and what is taken from files that others may have written."""

import logging
import os
import typing as tp
from collections.abc import Iterable, Iterator
from pathlib import Path

import pydantic
import pytest
import yaml

import exca
from exca import steps

as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files to others"
)


class Doubled(steps.Step):
    """A step with a backend."""

    def _run(self) -> int:
        return 2


class Inner(pydantic.BaseModel):
    """A part with an infra of its own."""

    y: int = 1
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def process(self, items: Iterable[int]) -> Iterator[int]:
        for item in items:
            yield self.y * item


class Outer(pydantic.BaseModel):
    """A task with infras in it."""

    x: int = 1
    inner: Inner = Inner()
    step: Doubled = Doubled()
    infra: exca.TaskInfra = exca.TaskInfra(version="3")
    _hidden: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 2 * self.x

    @_hidden.apply
    def hide(self) -> int:
        return -self.x


def outer(folder: Path, **fields: tp.Any) -> Outer:
    return Outer.model_validate({"infra": {"folder": folder}, **fields})


def test_objects_with_an_outcome_are_gone_through(tmp_path: Path) -> None:
    for x in (3, 1, 2):
        outer(tmp_path, x=x, infra={"folder": tmp_path, "mem_gb": x}).run()
    outer(tmp_path, x=4).infra.uid_folder(create=True)  # which nothing was computed for
    found = list(outer(tmp_path, x=9).infra.iter_cached())
    assert [(obj.x, obj.infra.mem_gb, obj.infra.status()) for obj in found] == [
        (1, 1, "completed"),
        (2, 2, "completed"),
        (3, 3, "completed"),
    ]
    found = list(outer(tmp_path).infra.iter_cached())
    found[0].x = 5  # they are not frozen
    assert found[0].run() == 10
    assert list(outer(tmp_path / "nothing").infra.iter_cached()) == []
    assert list(Outer().infra.iter_cached()) == []


def test_a_map_goes_through_what_has_results(tmp_path: Path) -> None:
    some = Inner.model_validate({"y": 2, "infra": {"folder": tmp_path}})
    assert list(some.process([1, 2])) == [2, 4]
    Inner.model_validate({"y": 3, "infra": {"folder": tmp_path}}).infra.uid_folder(create=True)
    (found,) = some.infra.iter_cached()
    assert (found.y, sorted(found.infra.cache_dict)) == (2, ["1", "2"])


def test_a_private_infra_goes_through_its_folder(tmp_path: Path) -> None:
    obj = Outer(x=3)
    obj._hidden = exca.TaskInfra(folder=tmp_path)
    obj.hide()
    (found,) = obj._hidden.iter_cached()
    assert (found.x, found._hidden.status()) == (3, "completed")


def test_a_folder_that_does_not_fit_is_skipped_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "exca")
    for x in (1, 2, 3, 4):
        outer(tmp_path, x=x).run()
    method = tmp_path / f"{__name__}.Outer.run,3"
    first, second, third = sorted(path for path in method.glob("x=*"))
    (first / "config.yaml").write_text("gone: 3\n")
    (second / "config.yaml").write_text("{")
    (third / "config.yaml").unlink()
    (third / "config.yaml").mkdir()
    for _ in range(2):
        assert [obj.x for obj in outer(tmp_path).infra.iter_cached()] == [1]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    for folder, message in zip((first, second, third), sorted(messages), strict=True):
        assert message.startswith(f"Skipped {folder}, which is no Outer")


def make(default: int) -> tp.Any:
    """Make a class whose default may change between two interpreters."""

    class Changing(pydantic.BaseModel):
        x: int = default
        names: dict[str, int] = {}
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply
        def run(self) -> int:
            return 2 * self.x

    return Changing


def test_an_object_whose_default_changed_still_knows_its_result(tmp_path: Path) -> None:
    infra = {"folder": tmp_path}
    old = make(1)(infra=infra)
    assert old.run() == 2
    make(1)(x=5, infra=infra).run()
    new = make(7)
    default, other = new(infra=infra).infra.iter_cached()
    assert (default.x, other.x) == (1, 5)
    assert default.infra.status() == "completed"
    assert default.infra.uid() == old.infra.uid()
    assert default.infra.uid_folder(create=True) == old.infra.uid_folder()
    assert (default.run(), other.infra.status()) == (2, "completed")
    changed, _ = new(infra=infra).infra.iter_cached()
    changed.names["a"] = 1
    assert changed.infra.uid().rpartition("/")[2].startswith("x=1,names.a=1-")
    assert changed.infra.status() == "not submitted"
    assert new(x=1, infra=infra).infra.uid() != old.infra.uid()  # unless it was found there


STRANGE = {
    "cluster": "slurm",
    "slurm_setup": ["rm -rf ~"],
    "slurm_additional_parameters": {"output": "/home/alice/.bashrc"},
    "conda_env": None,
    "workdir": {"copied": [__file__]},
    "version": "3",
}


@as_root
@pytest.mark.parametrize("how", ["owner", "everybody", "group"])
def test_how_jobs_run_is_not_taken_from_a_stranger(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "cache"
    obj = outer(folder, x=3, inner={"y": 2}, step={"infra": "Cached"})
    obj.run()
    path = tp.cast(Path, obj.infra.uid_folder()) / "config.yaml"
    config = yaml.safe_load(path.read_text())
    strange = {**STRANGE, "folder": str(tmp_path)}
    config["infra"].update(strange)
    config["inner"]["infra"].update({**strange, "version": "0"})
    config["step"]["infra"] = {"backend": "Slurm", "additional_parameters": {"wrap": "rm -rf ~"}}
    path.write_text(yaml.safe_dump(config))
    asking = outer(folder, infra={"folder": folder, "mem_gb": 2}, inner={"infra": {"max_jobs": 5}})
    (trusted,) = asking.infra.iter_cached()
    assert (trusted.infra.slurm_setup, trusted.inner.infra.cluster) == (["rm -rf ~"], "slurm")
    if how == "owner":
        os.chown(path, 12345, -1)
    elif how == "group":
        os.chown(path, -1, 12345)
    path.chmod({"owner": 0o644, "everybody": 0o666, "group": 0o664}[how])
    (found,) = asking.infra.iter_cached()
    assert (found.x, found.inner.y, found.infra.status()) == (3, 2, "completed")  # data is read
    assert found.infra == asking.infra
    assert found.inner.infra == asking.inner.infra
    assert found.step.infra.additional_parameters is None
    assert found.infra.clone_obj(x=4).infra.slurm_setup is None
