"""Short nights: one fault of each kind while trainings run. `make night` runs the long one, `make long` these."""

from pathlib import Path

import dask_night
import overnight
import pytest


@pytest.mark.long
@pytest.mark.slurm
@pytest.mark.timeout(600)
def test_a_short_night(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    short = ["--trainings=40", "--rounds=1", "--length=1.5", "--pause=1", "--minutes=8"]
    ended = overnight.main([str(tmp_path / "night"), *short])
    said = capfd.readouterr().out
    assert "wrong: 0" in said, said
    assert ended == 0


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_short_night_on_dask(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = dask_night.main([str(tmp_path / "night")])
    said = capfd.readouterr().out
    assert "wrong: 0" in said, said
    assert ended == 0
