"""A record holds what JSON has no form for: numbers beyond 64 bit, and text that is no UTF-8, as names of files."""

import json
import os
from pathlib import Path

import pydantic
import pytest

import exca


class Odd(pydantic.BaseModel):
    number: int = 0
    text: str = ""
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        if self.number < 0:
            raise FileNotFoundError(f"no file {os.fsdecode(bytes([0x80 - self.number]))}")
        return self.number % 7


@pytest.mark.parametrize("number", [2**63 - 1, 2**64, 2**200])
def test_a_number_of_any_size(tmp_path: Path, number: int) -> None:
    odd = Odd(number=number, infra=exca.TaskInfra(folder=tmp_path))
    assert odd.run() == number % 7
    folder = odd.infra.uid_folder()
    assert folder is not None
    assert str(json.loads((folder / "job.json").read_text())["config"]["number"]) == str(number)
    again = Odd(number=number, infra=exca.TaskInfra(folder=tmp_path, mode="read-only"))
    assert again.run() == number % 7


def test_an_error_about_a_file_whose_name_is_no_text(tmp_path: Path) -> None:
    for _ in range(2):  # computed, then read
        odd = Odd(number=-0x69, infra=exca.TaskInfra(folder=tmp_path))
        with pytest.raises(FileNotFoundError, match="no file \udce9"):
            odd.run()
        assert odd.infra.status() == "failed"
