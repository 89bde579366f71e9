"""What published packages reach for on infras beyond their documented methods."""

import os
import sys
import typing as tp
from pathlib import Path

import launcher_models
import pytest

import exca.slurm
from exca.errors import InfraError

Study: tp.Any = launcher_models.Study  # dicts become infras at run time


def test_the_method_of_an_infra_is_described() -> None:
    for infra in (Study().infra, Study.model_fields["infra"].default):
        method = infra._infra_method
        assert (method.method.__name__, method.infra_name) == ("run", "infra")
        assert method.exclude_from_cache_uid == ("x",)
    method = Study().items._infra_method
    assert (method.method.__name__, method.infra_name, method.params) == ("double", "items", ("numbers",))
    assert method.item_uid(3) == "3"
    assert exca.TaskInfra()._infra_method is None, "applied to nothing"


def test_fields_are_updated_also_once_there_is_a_uid(tmp_path: Path) -> None:
    study = Study(infra={"folder": tmp_path})
    study.run()
    study.infra._update(cpus_per_task=3)
    study.infra._update({"mem_gb": 2})
    study.infra._update(exca.TaskInfra(nodes=2))
    assert (study.infra.cpus_per_task, study.infra.mem_gb, study.infra.nodes) == (3, 2.0, 2)
    assert study.infra.status() == "completed"
    study.infra._update(version="2")
    assert study.infra.uid().startswith("launcher_models.Study.run,2/infra.version=2-")
    assert study.infra.status() == "not submitted"
    with pytest.raises(ValueError, match='no field "nope"'):
        study.infra._update(nope=1)


def test_the_form_of_an_address_can_be_set(tmp_path: Path) -> None:
    study = Study(x=3, items={"folder": tmp_path})
    study.items._uid_string = "{version}-{method}/{uid}"
    assert study.items.uid().startswith("0-launcher_models.Study.double/x=3-")
    assert list(study.double([1, 2])) == [2, 4]
    assert study.items.cache_dict.folder == tmp_path / study.items.uid()
    with pytest.raises(InfraError, match="too late"):
        study.items._uid_string = "{method},{version}/{uid}"
    with pytest.raises(InfraError, match=r"should hold exactly \{method\}, \{version\} and \{uid\}"):
        Study().items._uid_string = "{method}"


def test_the_form_of_an_address_travels_to_processes(tmp_path: Path) -> None:
    study = Study(items={"folder": tmp_path, "cluster": "processpool"})
    study.items._uid_string = "{version}/{method}/{uid}"
    assert list(study.double([1, 2, 3])) == [2, 4, 6]
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_work_goes_on_inside_a_copy_of_the_code(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "module.py").write_text("x = 1\n", "utf8")
    study = Study(infra={"folder": tmp_path / "cache", "workdir": {"copied": [tmp_path / "code"]}})
    before, path = os.getcwd(), list(sys.path)
    with study.infra._work_env():
        assert Path("code/module.py").read_text("utf8") == "x = 1\n"
        assert Path(os.getcwd()).parents[1].name == "launcher_models.Study.run,1"
        assert sys.path[0] == os.getcwd()
    assert (os.getcwd(), sys.path) == (before, path)
    with Study().infra._work_env():
        assert os.getcwd() == before


def test_the_folder_of_logs(tmp_path: Path) -> None:
    infra = Study(infra={"folder": tmp_path}).infra
    assert (
        infra._log_path()
        == tmp_path / "launcher_models.Study.run,1" / "logs" / infra._log_path().parts[-2] / "%j"
    )
    with pytest.raises(RuntimeError, match="No folder specified"):
        Study().infra._log_path()


def test_a_cache_that_is_deleted_is_opened_anew(tmp_path: Path) -> None:
    study = Study(items={"folder": tmp_path})
    assert list(study.double([1])) == [2]
    before = study.items.cache_dict
    assert before._ram_data == {"1": 2}
    del study.items._state.cache_dict
    assert list(study.double([1])) == [2]
    assert study.items.cache_dict is not before
    with pytest.raises(AttributeError, match="never_there"):
        _ = study.items._state.never_there


# ---------------------------------------------------------------------------------------------- launchers


def _launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    original: tp.Any = exca.slurm.SubmititMixin.executor

    def executor(self: tp.Any) -> tp.Any:
        made = original(self)
        if made is None:
            return None
        parameters = made._executor.parameters
        made._executor.update_parameters(
            setup=[*parameters.get("setup", []), "export EXCA_TEST_LAUNCHED=yes"],
            additional_parameters={**parameters.get("additional_parameters", {}), "nice": 7},
            job_name="launched",
            time=3,
        )
        return made

    monkeypatch.setattr(exca.slurm.SubmititMixin, "executor", executor)


def test_nothing_is_asked_of_an_executor_that_was_not_replaced(tmp_path: Path) -> None:
    assert Study(infra={"folder": tmp_path, "cluster": "slurm"}).infra._launcher_parameters() == {}
    assert Study().infra.executor() is None


def test_what_a_launcher_adds_to_the_executor_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _launcher(monkeypatch)
    infra = Study(infra={"folder": tmp_path, "cluster": "slurm", "slurm_setup": ["echo set up"]}).infra
    found = infra._launcher_parameters()
    assert (found["job_name"], found["time"]) == ("launched", 3)
    assert found["additional_parameters"] == {"nice": 7, "requeue": True}  # the latter is ours
    assert found["setup"][-2:] == ["echo set up", "export EXCA_TEST_LAUNCHED=yes"]
    assert Study().infra._launcher_parameters() == {}


@pytest.mark.slurm
def test_what_a_launcher_adds_to_the_executor_holds_for_jobs(
    slurm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _launcher(monkeypatch)
    infra = {"folder": slurm_folder, "cluster": "slurm", "slurm_setup": ["export EXCA_TEST_OTHER=1"]}
    study = Study(infra=infra)
    assert study.run() == "yes"
    script = Path(study.infra.job().paths.submission_file).read_text("utf8")
    for line in (
        "--nice=7",
        "--job-name=launched",
        "--time=3",
        "export EXCA_TEST_OTHER=1",
        "export PYTHONPATH=",
    ):
        assert line in script
    assert "--comment=" in script
