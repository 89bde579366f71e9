"""Secrets in configurations: their uid is that of a mask, which is said once, and a mask is never computed with."""

import logging
import re
import typing as tp
import warnings
from pathlib import Path

import pydantic
import pytest

import exca
from exca import steps
from exca.errors import MaskedSecretError

SECRET = "correct-horse-battery"


class Login(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    user: str = "me"
    password: pydantic.SecretStr = pydantic.SecretStr("")


class Hidden(Login):
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("password",)


class Fetch(pydantic.BaseModel):
    """Leaves its secrets out of its uid."""

    url: str = "here"
    token: pydantic.SecretStr = pydantic.SecretStr("")
    login: Hidden = Hidden()
    infra: exca.TaskInfra = exca.TaskInfra()
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("token",)

    @infra.apply
    def run(self) -> int:
        return len(self.token.get_secret_value()) + len(self.login.password.get_secret_value())


def test_the_uid_is_that_of_the_mask_as_recorded_with_the_published_release() -> None:
    class Recorded(pydantic.BaseModel):
        a: pydantic.SecretStr = pydantic.SecretStr("dflt")
        b: pydantic.SecretBytes | None = None
        c: list[pydantic.SecretStr] = []
        e: tp.Any = None
        f: Login = Login()
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply
        def run(self) -> int:
            return 1

    cases: dict[str, dict[str, tp.Any]] = {
        "default": {"a": "dflt"},
        "a=-175e8260": {"a": "x"},
        "a=-dc93a45a": {"a": ""},
        "b=-dea30b4a": {"b": b"q"},
        "c=(,)-8dabb7c8": {"c": ["a", "b"]},
        "e=-ab0d1078": {"e": pydantic.SecretStr("z")},
    }
    with warnings.catch_warnings(action="ignore"):
        uids = {uid: Recorded(**fields).infra.uid().split("/")[-1] for uid, fields in cases.items()}
    assert uids == {uid: uid for uid in cases}


def test_a_class_whose_uid_covers_a_secret_warns_once_per_field() -> None:
    class Covering(pydantic.BaseModel):
        token: pydantic.SecretStr
        login: Login = Login()
        more: list[Login] = []
        anything: tp.Any = None
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply
        def run(self) -> int:
            return 1

    told: dict[str, tp.Any] = {"login": {"password": "b"}, "more": [{"password": "c"}, {"password": "d"}]}
    with pytest.warns(UserWarning, match="two different secrets share a result") as caught:
        Covering(
            token=pydantic.SecretStr(SECRET), **told, anything={"k": pydantic.SecretBytes(b"d")}
        ).infra.uid()
    places = [re.findall(r"the secret '([\w.]+)'", str(warning.message)) for warning in caught]
    assert places == [["token"], ["login.password"], ["more.0.password"], ["anything.k"]]
    assert f"{__name__}.test_a_class" in str(caught[0].message)
    assert SECRET not in str(caught[0].message)
    Covering(token=pydantic.SecretStr("other")).infra.uid()  # a warning would be an error


def test_a_secret_that_is_left_out_or_at_its_default_warns_of_nothing() -> None:
    class LeftOut(pydantic.BaseModel):
        token: pydantic.SecretStr = pydantic.SecretStr("a")
        login: Login = Login()
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply(exclude_from_cache_uid=("login.password",))
        def run(self) -> int:
            return 1

    assert (
        LeftOut(login=Login(user="you", password=pydantic.SecretStr("b")))
        .infra.uid()
        .endswith("login.user=you-f03ac520")
    )
    Fetch(token=pydantic.SecretStr("a"), login=Hidden(password=pydantic.SecretStr("b"))).infra.uid()


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_mask_from_a_configuration_file_is_never_computed_with(tmp_path: Path) -> None:
    infra = {"folder": tmp_path}
    task = Fetch.model_validate({"token": SECRET, "login": {"password": "four"}, "infra": infra})
    assert task.run() == len(SECRET) + 4
    assert SECRET.encode() not in written(tmp_path)
    folder = task.infra.uid_folder()
    assert folder is not None
    rebuilt = Fetch(**exca.ConfDict.from_yaml(folder / "config.yaml"))
    assert rebuilt.run() == len(SECRET) + 4  # the result is there, nothing is computed
    assert [other.run() for other in task.infra.iter_cached()] == [len(SECRET) + 4]
    rebuilt.infra.clear_job()
    again = Fetch(**exca.ConfDict.from_yaml(folder / "config.yaml")) if folder.exists() else rebuilt
    with pytest.raises(
        MaskedSecretError, match=r"Fetch cannot be computed: 'token' holds '\*{10}'.*clone_obj"
    ):
        again.run()
    half = again.infra.clone_obj({"token": SECRET})
    with pytest.raises(MaskedSecretError, match=r"'login\.password' holds"):
        half.infra.job()
    assert half.infra.clone_obj({"login.password": "four"}).run() == len(SECRET) + 4
    assert half.infra.uid() == task.infra.uid()


class Masked(pydantic.BaseModel):
    token: pydantic.SecretBytes | None = None
    infra: exca.MapInfra = exca.MapInfra()
    submit: exca.SubmitInfra = exca.SubmitInfra()
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("token",)

    @infra.apply(item_uid=str)
    def lengths(self, items: tp.Sequence[str]) -> tp.Iterator[int]:
        yield from map(len, items)

    @submit.apply
    def one(self, item: str) -> int:
        return len(item)


class Reader(steps.Step):
    token: pydantic.SecretStr = pydantic.SecretStr("")

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return [*super()._exclude_from_cls_uid(), "token"]

    def _run(self, x: str) -> int:
        return len(x)


def test_maps_calls_and_steps_refuse_a_mask_as_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    masked = Masked.model_validate({"token": b"**********", "infra": {"folder": tmp_path}})
    with pytest.raises(MaskedSecretError, match="'token'"):
        masked.lengths(["a"])
    with pytest.raises(MaskedSecretError, match="'token'"):
        masked.one("a")
    given = masked.infra.clone_obj(token=SECRET)
    assert list(given.lengths(["ab"])) == [2]
    assert list(masked.infra.clone_obj().lengths(["ab"])) == [2]  # nothing to compute
    infra = {"backend": "Cached", "folder": tmp_path / "steps"}
    with pytest.raises(MaskedSecretError, match="'token'"):
        steps.Chain(steps=[Reader(token=pydantic.SecretStr("**********")), Reader()], infra=infra).run("abc")
    assert Reader(token=pydantic.SecretStr(SECRET), infra=infra).run("abc") == 3
    assert Reader(token=pydantic.SecretStr("**********"), infra=infra).run("abc") == 3
    assert SECRET not in caplog.text
    assert SECRET.encode() not in written(tmp_path)
