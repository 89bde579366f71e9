"""Helpers of earlier releases that published packages still call: what they say."""

import os
from pathlib import Path

import pytest

import elsewhere
import people
from exca import ConfDict
from exca.kept import cachedict, earlier_uids, folders, infras


def test_a_renamed_folder_replaces_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = ConfDict({"x": 12})
    earlier, now = tmp_path / earlier_uids.config_uid(config), tmp_path / config.to_uid()
    for folder in (earlier, now):
        folder.mkdir()
        config.to_yaml(folder / "uid.yaml")
    with pytest.warns(DeprecationWarning, match="update_uids"):
        earlier_uids.update_uids(tmp_path, dryrun=False)
    assert caplog.messages == [f"Not renaming {earlier}: {now} is there already"]
    assert {earlier, now} == set(tmp_path.iterdir())


def test_who_may_not_share_a_file_is_told(commons: people.Commons) -> None:
    code = """
import os, warnings
from pathlib import Path
from exca.kept import folders
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    folders.setup_shared_folder(Path(os.environ["SHARED"]))
print(*(warning.message for warning in told), sep="\\n")
"""
    shared = commons.shared
    commons.run(people.ALICE, "import os, pathlib; pathlib.Path(os.environ['SHARED'], 'hers').touch(0o644)")
    said = commons.run(people.BOB, code).splitlines()
    assert f"1 of the files under {shared} belong to other users, who have to share them" in said


def test_a_umask_that_hides_files_from_the_group_is_told(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with pytest.warns(UserWarning, match=r"may not be writable for the group: run 'umask 002' first"):
            folders.setup_shared_folder(tmp_path)
    finally:
        os.umask(before)


def test_a_recording_step_fails_where_it_is_told_to() -> None:
    """In another interpreter, since other tests have steps of the same name."""
    code = """
from exca.kept.recording_steps import Add
step = Add(fail_on={2.0})
print(step.run(1))
try:
    step.run(2)
except ValueError as error:
    print(error)
print(step.calls)
"""
    assert elsewhere.printed(code).splitlines() == ["3.0", "Triggered an error", "[1, 2]"]


def test_a_computation_in_the_form_of_a_job_keeps_its_error(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise LookupError("not there")

    job = infras.LocalJob(fails)
    assert caplog.messages == ["fails failed: LookupError('not there')"]
    with pytest.raises(LookupError, match="not there"):
        job.result()


def test_only_a_tensor_can_be_a_view_of_one() -> None:
    pytest.importorskip("torch")
    with pytest.raises(TypeError, match="is_torch_view takes a tensor, not int"):
        cachedict.is_torch_view(3)
