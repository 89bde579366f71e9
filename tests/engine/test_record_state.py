"""What `status` finds in the first bytes of a record is what the whole record holds, damaged or not."""

import os
from pathlib import Path

import pydantic
import pytest

import exca
from exca.engine import record


class Half(pydantic.BaseModel):
    x: float = 1.0
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> float:
        if self.x < 0:
            raise ValueError("negative")
        return self.x / 2


def half(folder: Path, x: float = 3.0) -> Half:
    return Half(x=x, infra=exca.TaskInfra(folder=folder))


def computed_in(folder: Path) -> Path:
    half(folder).run()
    found = half(folder).infra.uid_folder()
    assert found is not None
    return found


def test_a_result_is_seen_at_once(tmp_path: Path) -> None:
    assert half(tmp_path).infra.status() == "not submitted"
    folder = computed_in(tmp_path)
    assert record.is_completed(folder)
    assert half(tmp_path).infra.status() == "completed"


def test_an_error_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="negative"):
        half(tmp_path, -1.0).run()
    folder = half(tmp_path, -1.0).infra.uid_folder()
    assert folder is not None
    assert not record.is_completed(folder)
    assert half(tmp_path, -1.0).infra.status() == "failed"


def test_any_other_byte_is_damage(tmp_path: Path) -> None:
    folder = computed_in(tmp_path)
    file = folder / "job.json"
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x01]) + whole[place + 1 :])
        assert not record.is_completed(folder), place
        file.write_bytes(whole[:place])
        assert not record.is_completed(folder), place
    file.write_bytes(whole + b"\n")
    assert not record.is_completed(folder)
    assert half(tmp_path).infra.status() == "not submitted"  # set aside
    file.write_bytes(whole)
    assert half(tmp_path).infra.status() == "completed"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs rights of POSIX")
def test_what_everybody_may_write_does_not_count(tmp_path: Path) -> None:
    folder = computed_in(tmp_path)
    (folder / "job.json").chmod(0o666)
    assert half(tmp_path).infra.status() == "not submitted"


def test_a_job_of_an_earlier_release_is_looked_at(tmp_path: Path) -> None:
    folder = computed_in(tmp_path)
    (folder / "job.pkl").write_bytes(b"")
    assert not record.is_completed(folder)
