"""Refusals: each has a code that is documented, and a switch that makes it a warning, also in jobs."""

import os
import pickle
import warnings
from pathlib import Path

import pydantic
import pytest

import exca
from exca import settings
from exca.errors import InfraError, RefusalWarning

DOCS = Path(__file__).parents[1] / "docs" / "guarantees.md"
CODE = "async-method"


class Parent(pydantic.BaseModel):
    """A class that a refusal is about."""


class Child(Parent):
    """One that is derived from it."""


@pytest.fixture(autouse=True)
def _nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(settings.VARIABLE, "")  # so that what a test sets is undone
    monkeypatch.delenv(settings.VARIABLE)
    monkeypatch.setattr(settings, "_warned", set())


@pytest.mark.parametrize("code", sorted(settings.REFUSALS))
def test_each_code_is_documented(code: str) -> None:
    assert f"| `{code}` |" in DOCS.read_text(encoding="utf-8")


def test_no_other_code_is_documented() -> None:
    table = DOCS.read_text(encoding="utf-8").partition("## What is refused")[2].partition("\n## ")[0]
    codes = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(codes) == sorted(settings.REFUSALS)


def test_a_refusal_is_an_error_that_says_how_to_allow_it() -> None:
    with pytest.raises(InfraError) as caught:
        settings.complain(CODE, InfraError("It is async."), Child)
    error = caught.value
    assert error.code == CODE
    assert str(error) == (
        "It is async.\n[async-method] This is a warning with EXCA_ALLOW=async-method in the environment or after "
        "exca.settings.allow('async-method'), or for one class by "
        f"exca.settings.allow('async-method', '{__name__}.Child')."
    )
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, str(copy)) == (CODE, str(error))


@pytest.mark.parametrize("cls", [None, Parent, Child, f"{__name__}.Parent"])
@pytest.mark.parametrize("code", [CODE, "all"])
def test_what_is_allowed_is_a_warning_once(code: str, cls: type | str | None) -> None:
    exca.settings.allow(code, cls)
    exca.settings.allow(code, cls)

    def twice() -> None:
        for _ in range(2):
            settings.complain(CODE, InfraError("It is async."), Child)

    with pytest.warns(
        RefusalWarning, match=r"It is async\. \[async-method: allowed by EXCA_ALLOW\]"
    ) as caught:
        twice()
    assert [getattr(w.message, "code", None) for w in caught] == [CODE]
    exca.settings.refuse(code, cls)
    assert settings.VARIABLE not in os.environ
    with pytest.raises(InfraError):
        settings.complain(CODE, InfraError("It is async."), Child)


def test_one_class_is_allowed_alone() -> None:
    exca.settings.allow(CODE, Child)
    exca.settings.allow("infra-kind", Parent)
    assert os.environ["EXCA_ALLOW"] == f"{CODE}:{__name__}.Child,infra-kind:{__name__}.Parent"
    assert exca.settings.is_allowed(CODE, Child)
    assert not exca.settings.is_allowed(CODE, Parent)
    assert not exca.settings.is_allowed("infra-in-container", Child)
    assert exca.settings.is_allowed("infra-kind", Child)
    exca.settings.refuse(CODE, Child)
    assert os.environ["EXCA_ALLOW"] == f"infra-kind:{__name__}.Parent"


def test_an_unknown_code_is_an_error_and_in_the_environment_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        ValueError, match="no refusal has the code 'asynchronous': give 'all' or one of async-method"
    ):
        exca.settings.allow("asynchronous")
    monkeypatch.setenv("EXCA_ALLOW", f"gone, {CODE}")
    with pytest.warns(RefusalWarning, match="EXCA_ALLOW allows 'gone', which is no refusal of this release"):
        assert exca.settings.is_allowed(CODE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert exca.settings.is_allowed(CODE)
