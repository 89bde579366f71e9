"""What the folders of infras hold for release 0.6, which refuses fields that it does not know."""

import json
import os
import subprocess
import typing as tp
from pathlib import Path

import pydantic
import pytest
import yaml
from interop_models import InteropLoad, Part, Whole

import exca
from exca.identity.export import export_readable
from exca.steps import backends
from exca.workdir import WorkDir

KNOWN: dict[str, list[str]] = json.loads((Path(__file__).parent / "data" / "fields_of_0_6.json").read_text())
REFERENCE = os.environ.get(
    "EXCA_REFERENCE_PYTHON"
)  # with exca 0.6.0; read before tests clean the environment


def classes() -> list[type[pydantic.BaseModel]]:
    """All classes whose fields get into config.yaml."""
    found = [v for v in vars(backends).values() if isinstance(v, type) and issubclass(v, backends.Backend)]
    named = [cls for cls in found if not cls.__name__.startswith("_")]
    return [exca.TaskInfra, exca.MapInfra, exca.SubmitInfra, WorkDir, *named]


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_fields_that_0_6_does_not_know_are_named_as_new(cls: type[pydantic.BaseModel]) -> None:
    if getattr(cls, "_exca_is_new", False):
        assert cls.__name__ not in KNOWN
        return
    new = getattr(cls, "_exca_new_fields", ())
    assert set(cls.model_fields) - set(new) == set(KNOWN[cls.__name__])


def whole(folder: Path, **fields: tp.Any) -> Whole:
    """Make a configuration that sets fields old and new."""
    pool = {"backend": "ThreadPool", "min_items_per_job": 5}
    code = Path(__file__)
    content = {
        "part": {"infra": {"folder": folder, "cluster": "threadpool", "min_samples_per_job": 3}},
        "load": {"infra": pool},
        "more": [{"x": 2}, {"x": 3, "infra": {**pool, "min_items_per_job": 1}}, {"x": 4, "infra": pool}],
        "infra": {"folder": folder, "workdir": {"copied": [code]}, "mem_gb": 2},
    }
    return Whole.model_validate({**content, **fields})


def test_what_runs_where_0_6_runs_nothing_is_in_the_other_file(tmp_path: Path) -> None:
    """A cluster, and a backend of a step, that 0.6 would refuse by its name."""
    dask = {"backend": "Dask", "address": "tcp://host:8786", "max_jobs": 3}
    config = whole(tmp_path, infra={"folder": tmp_path, "cluster": "dask"}, load={"infra": dask})
    readable, new = export_readable(config)
    assert "cluster" not in readable["infra"]
    assert "infra" not in readable.get("load", {})
    assert (new["infra.cluster"], new["load.infra.backend"]) == ("dask", "Dask")
    assert (new["load.infra.address"], new["load.infra.max_jobs"]) == ("tcp://host:8786", 3)
    known = whole(tmp_path, infra={"folder": tmp_path, "cluster": "local"})
    assert export_readable(known)[0]["infra"]["cluster"] == "local"


def test_config_yaml_holds_nothing_that_0_6_would_refuse(tmp_path: Path) -> None:
    obj = whole(tmp_path / "cache")
    assert obj.run() == 1
    folder = obj.infra.uid_folder()
    assert folder is not None
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert sorted(config["infra"]) == KNOWN["TaskInfra"]
    assert sorted(config["infra"]["workdir"]) == KNOWN["WorkDir"]
    assert sorted(config["part"]["infra"]) == KNOWN["MapInfra"]
    pools = [config["load"]["infra"], *(step["infra"] for step in config["more"][1:])]
    assert all(set(pool) == {"backend", *KNOWN["ThreadPool"]} for pool in pools)
    new = yaml.safe_load((folder / "config-new.yaml").read_text())
    assert new == {"load.infra.min_items_per_job": 5, "more.2.infra.min_items_per_job": 5}
    plain = whole(tmp_path / "cache", x=2, load={}, more=[])
    plain.run()
    assert not (tp.cast(Path, plain.infra.uid_folder()) / "config-new.yaml").exists()


def test_new_fields_are_read_back(tmp_path: Path) -> None:
    obj = whole(tmp_path / "cache")
    obj.run()
    (found,) = obj.infra.iter_cached()
    assert found.load.infra.min_items_per_job == 5
    assert [step.infra and step.infra.min_items_per_job for step in found.more] == [None, 1, 5]
    assert obj.infra.config(uid=False)["load.infra.min_items_per_job"] == 5  # only files leave it out


def test_the_files_of_a_step_hold_nothing_that_0_6_would_refuse(tmp_path: Path) -> None:
    infra: tp.Any = {"backend": "ThreadPool", "min_items_per_job": 5, "folder": tmp_path}
    assert InteropLoad(infra=infra).run() == 1
    (path,) = tmp_path.rglob("config.yaml")
    (config,) = yaml.safe_load(path.read_text())
    assert set(config["infra"]) == {"backend", *KNOWN["ThreadPool"]}
    assert (path.parent / "config-new.yaml").read_text() == "0.infra.min_items_per_job: 5\n"


READ = """
import json, sys
import exca, interop_models
assert exca.__version__ == "0.6.0"
out = []
for cls in ("Whole", "Part"):
    fields = {"load": {}} if cls == "Whole" else {}
    infra = getattr(interop_models, cls)(infra={"folder": sys.argv[1]}, **fields).infra
    out.append([[obj.infra.uid(), obj.infra.config(uid=True)] for obj in infra.iter_cached()])
print(json.dumps(out))
"""


@pytest.mark.skipif(not REFERENCE, reason="EXCA_REFERENCE_PYTHON names no interpreter with exca 0.6.0")
def test_0_6_goes_through_what_was_written_here(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    objects = [whole(folder), whole(folder, x=2, load={}), whole(folder, x=3, more=[])]
    for obj in objects:
        obj.run()
        list(obj.part.run([1, 2]))
        (tp.cast(Path, obj.infra.uid_folder()) / "job.pkl").touch()  # 0.6 passes over folders without one
    list(Part.model_validate({"y": 3, "infra": {"folder": folder}}).run([1]))
    assert REFERENCE is not None
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [REFERENCE, "-c", READ, str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wholes, parts = json.loads(done.stdout)
    ours = [[obj.infra.uid(), obj.infra.config(uid=True)] for obj in objects]
    assert sorted(wholes, key=str) == sorted(json.loads(json.dumps(ours)), key=str)
    assert sorted(config["y"] for _, config in parts) == [1, 3]
