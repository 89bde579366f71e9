"""The list of tasks that wait for room: what is said of those that cannot be sent from here."""

import base64
import logging
import pickle
from pathlib import Path

import pytest

from exca.engine import unsent
from task_models import Double, given


def test_tasks_that_cannot_be_read_here_wait_on(caplog: pytest.LogCaptureFixture) -> None:
    batch = {"tasks": ["one", "two"], "pickle": "nonsense", "max_workers": 1}
    with caplog.at_level(logging.WARNING, "exca"):
        assert [unsent._send_batch(batch) for _ in range(2)] == [["one", "two"]] * 2
    [said] = caplog.messages
    assert said.startswith("2 task(s) that wait for room can't be read here, and wait on: ")


def test_tasks_that_are_refused_for_good_leave_the_list(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> list[str]:
        raise RuntimeError("no such account")

    monkeypatch.setattr(unsent, "_submit", [refuse])
    infra = Double(infra=given({"folder": tmp_path})).infra
    content = base64.b64encode(pickle.dumps((infra, []))).decode()
    assert unsent._send_batch({"tasks": ["one"], "pickle": content, "max_workers": 1}) == []
    assert caplog.messages == ["1 task(s) that waited for room can't be submitted any more: no such account"]
