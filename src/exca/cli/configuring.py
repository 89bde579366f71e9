"""From ``module:Class.method``, a file and overrides to objects, with errors that point to what was written."""

import dataclasses
import difflib
import importlib
import inspect
import os
import re
import sys
import typing as tp
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pydantic

from ..errors import OverrideError, TargetError
from ..infra.attribute import methods_with_infras
from .overrides import Override, Value, points

_TEXT_EXPECTED = ("string_type", "literal_error", "enum", "path_type", "date_from_datetime_parsing")


@dataclasses.dataclass(frozen=True)
class Target:
    """What is run: a method with an infra, of a class that is configured.

    Parameters
    ----------
    config: type
        the class
    infra: str
        name of the infra of the method
    method: str
        name of the method
    """

    config: type[pydantic.BaseModel]
    infra: str
    method: str

    @property
    def name(self) -> str:
        """As it is written on the command line."""
        return f"{self.config.__module__}:{self.config.__qualname__}.{self.method}"

    def call(self, obj: pydantic.BaseModel) -> tp.Any:
        """Call the method of an object."""
        return getattr(obj, self.method)()

    def infra_of(self, obj: pydantic.BaseModel) -> tp.Any:
        """The infra of the method, of an object."""
        return getattr(obj, self.infra)


def target(text: str) -> Target:
    """Import what is named: ``module:Class.method``, or ``module:Class`` where it has one method with an infra.

    Raises
    ------
    TargetError
        if it cannot be imported, or there is no such method
    """
    module_name, colon, path = text.partition(":")
    if not colon or not path:
        raise TargetError(
            f"{text!r} names nothing to run: write module:Class or module:Class.method, as in train:Train.loss"
        )
    found: tp.Any = _imported(module_name, text)
    parts = path.split(".")
    holder: tp.Any = None
    for k, part in enumerate(parts):
        if isinstance(found, type) and issubclass(found, pydantic.BaseModel) and k == len(parts) - 1:
            attributes = methods_with_infras(found)
            if part in attributes:
                holder = Target(found, attributes[part], part)
                break
        try:
            found = getattr(found, part)
        except AttributeError:
            near = difflib.get_close_matches(part, dir(found), 1)
            raise TargetError(
                f"{'.'.join([module_name, *parts[:k]])} has no {part!r}"
                + (f": did you mean {near[0]!r}?" if near else "")
            ) from None
    if holder is not None:
        return tp.cast(Target, holder)
    if not (isinstance(found, type) and issubclass(found, pydantic.BaseModel)):
        raise TargetError(
            f"{text!r} is a {type(found).__name__}: what can be run is a class with an infra, or its method"
        )
    methods = methods_with_infras(found)
    if len(methods) != 1:
        have = f"has several: {', '.join(methods)}" if methods else "has none"
        raise TargetError(
            f"{text!r} names no method, and the class {have}: write {text}.method for one with @infra.apply"
        )
    [(method, infra)] = methods.items()
    return Target(found, infra, method)


def _imported(name: str, text: str) -> tp.Any:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    if name.endswith(".py"):
        name = Path(name).with_suffix("").as_posix().replace("/", ".")
    try:
        return importlib.import_module(name)
    except ImportError as e:
        if e.name == name or (e.name and name.startswith(f"{e.name}.")):
            raise TargetError(
                f"there is no module {name!r} to import for {text!r}: it is looked for in {here} and on sys.path"
            ) from e
        raise TargetError(f"importing {name!r} for {text!r} failed: {type(e).__name__}: {e}") from e
    except Exception as e:  # of the user's module
        raise TargetError(f"importing {name!r} for {text!r} failed: {type(e).__name__}: {e}") from e


# ------------------------------------------------------------------------------------------------ configuration files


@dataclasses.dataclass
class File:
    """A configuration file: its content, and the line of each dotted name."""

    path: str
    content: dict[str, tp.Any]
    lines: dict[str, int]


def read_yaml(path: str) -> File:
    """Read a YAML file with the line of each name. Raises OverrideError where it is none, or repeats a name."""
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as e:
        raise OverrideError(f"cannot read {path}: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise OverrideError(f"{path} is no text in UTF-8: {e}") from e
    lines: dict[str, int] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _note_lines(node, "", lines, path)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise OverrideError(f"{path} cannot be read: {' '.join(str(e).split())}") from e
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise OverrideError(
            f"{path} holds a {type(content).__name__}: a configuration is a mapping of names to values"
        )
    return File(path, {str(k): v for k, v in content.items()}, lines)


def _note_lines(node: tp.Any, prefix: str, lines: dict[str, int], path: str) -> None:
    for k, child in enumerate(getattr(node, "value", None) or ()):
        if isinstance(child, tuple):
            name = f"{prefix}{child[0].value}"
            if name in lines:
                raise OverrideError(
                    f"{path}:{child[0].start_mark.line + 1}: {name!r} is given twice, in line {lines[name]} too"
                )
            lines[name] = child[0].start_mark.line + 1
            _note_lines(child[1], f"{name}.", lines, path)
        elif hasattr(child, "start_mark"):
            lines[f"{prefix}{k}"] = child.start_mark.line + 1
            _note_lines(child, f"{prefix}{k}.", lines, path)


# ---------------------------------------------------------------------------------------------------------- objects


@dataclasses.dataclass
class Configurator:
    """Makes objects of a class out of a file and of overrides.

    Parameters
    ----------
    config: type
        the class
    base: File, optional
        what overrides are applied to
    """

    config: type[pydantic.BaseModel]
    base: File | None = None

    def objects(self, overrides: Sequence[Override]) -> list[pydantic.BaseModel]:
        """The objects of all points of the overrides; all are valid before any is returned.

        Raises
        ------
        OverrideError
            if one of them is not, with the line or the argument that it comes from
        """
        return [self.object(point, overrides) for point in points(overrides)]

    def object(self, point: dict[str, Value], overrides: Sequence[Override] = ()) -> pydantic.BaseModel:
        """The object of one point."""
        from ..confdict import ConfDict

        config = ConfDict({} if self.base is None else self.base.content)
        for override in overrides:
            if override.removes:
                self._remove(config, override)
        given = {name: value.parsed for name, value in point.items()}
        _start_from_defaults(self.config, config, given)
        _set(config, given, overrides)
        for _ in range(len(point) + 1):
            try:
                return self.config.model_validate(_plain(config))
            except pydantic.ValidationError as e:
                texts = self._texts(e, point)
                if not texts:
                    raise OverrideError(self._told(e, point, overrides)) from e
                _set(config, texts, overrides)
                point = {
                    name: Value(texts.get(name, value.parsed), value.text) for name, value in point.items()
                }
        raise AssertionError("each turn takes the text of one more value")

    def _remove(self, config: tp.Any, override: Override) -> None:
        holder: tp.Any = config
        *above, last = override.name.split(".")
        for part in above:
            holder = holder.get(part) if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or last not in holder:
            model = model_at(self.config, above)
            known = [] if model is None or last in model.model_fields else list(model.model_fields)
            raise OverrideError(
                f"{override.argument!r} removes {override.name!r}, which the configuration does not set"
                + (near(last, known) if known else "")
            )
        del holder[last]

    def _texts(self, error: pydantic.ValidationError, point: dict[str, Value]) -> dict[str, str]:
        """Of values that read as numbers and the like where the field takes a text: their texts."""
        found = {}
        for each in error.errors(include_url=False, include_context=False):
            name = _longest(each["loc"], point)
            if name is not None and each["type"] in _TEXT_EXPECTED and point[name].parsed != point[name].text:
                found[name] = point[name].text
        return found

    def _told(
        self, error: pydantic.ValidationError, point: dict[str, Value], overrides: Sequence[Override]
    ) -> str:
        lines = []
        for each in error.errors(include_url=False):
            name = "".join(f"{part}." for part in each["loc"])[:-1]
            said = each["msg"].removeprefix("Value error, ")
            lines.append(
                f"{self._place(each['loc'], point, overrides)}{f'{name}: ' if name else ''}{said}{self._near(each)}"
            )
        lines = list(dict.fromkeys(lines))
        between = " " if len(lines) == 1 else "\n  "
        return f"{self.config.__qualname__} cannot be made:{between}" + between.join(lines)

    def _place(
        self, loc: tuple[int | str, ...], point: dict[str, Value], overrides: Sequence[Override]
    ) -> str:
        """Where that was written which is not valid: an argument, or a line of the file."""
        name = (
            _longest(loc, point) or next((n for n in point if n.startswith(f"{loc[0]}.")), None)
            if loc
            else None
        )
        if name is not None:
            argument = next((o.argument for o in overrides if o.name == name), name)
            return f"in {argument!r}: "
        line = None if self.base is None else _longest(loc, self.base.lines)
        return "" if self.base is None or line is None else f"{self.base.path}:{self.base.lines[line]}: "

    def _near(self, error: tp.Any) -> str:
        if error["type"] in ("union_tag_invalid", "literal_error", "enum"):
            given, context = error["input"], error.get("ctx", {})
            known = re.findall(
                r"'([^']*)'", f"{context.get('expected_tags', '')} {context.get('expected', '')}"
            )
            found = difflib.get_close_matches(str(context.get("tag", given)), known, 1)
            return f"; did you mean {found[0]!r}?" if found else ""
        if error["type"] != "extra_forbidden":
            return ""
        model = model_at(self.config, error["loc"][:-1])
        names = [] if model is None else list(model.model_fields)
        near = difflib.get_close_matches(str(error["loc"][-1]), names, 1)
        return (
            f"; did you mean {near[0]!r}?" if near else (f"; there are {', '.join(names)}" if names else "")
        )


def _start_from_defaults(model: type[pydantic.BaseModel], config: tp.Any, given: dict[str, tp.Any]) -> None:
    """Where fields of a sub-model are given that the configuration does not set at all, begin with its default.

    Not where what is given chooses another variant of a union.
    """
    for name in dict.fromkeys(name.partition(".")[0] for name in given if "." in name):
        field = model.model_fields.get(name)
        default = (
            None
            if field is None or name in config
            else field.get_default(call_default_factory=True, validated_data={})
        )
        if isinstance(default, pydantic.BaseModel):
            start = default.model_dump(mode="json", exclude_unset=False)
            own = getattr(type(default), "_exca_discriminator_key", None)  # of a hierarchy of classes
            discriminator = own if field is None or field.discriminator is None else field.discriminator
            chosen = given.get(f"{name}.{discriminator}", start.get(str(discriminator)))
            if discriminator is None or chosen == start.get(str(discriminator)):
                config.update({name: start})


def _set(config: tp.Any, given: dict[str, tp.Any], overrides: Sequence[Override]) -> None:
    for name, value in given.items():
        try:
            config.update({name: value})
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as e:
            argument = next((o.argument for o in overrides if o.name == name), name)
            raise OverrideError(f"in {argument!r}: {e.args[0] if e.args else e}") from e


def _plain(value: tp.Any) -> tp.Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def _longest(loc: tuple[int | str, ...], names: Iterable[str]) -> str | None:
    """The longest dotted name that leads to a place of a configuration, from which variants of unions are left out."""
    best = None
    for name in names:
        at = iter([str(part) for part in loc])
        if all(any(part == one for one in at) for part in name.split(".")) and (
            best is None or len(name) > len(best)
        ):
            best = name
    return best


def near(name: str, names: Iterable[str]) -> str:
    """What may have been meant by a name that is not there."""
    known = list(names)
    found = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {found[0]!r}?" if found else f"; there are {', '.join(known)}"


def model_at(model: type[pydantic.BaseModel], loc: Sequence[int | str]) -> type[pydantic.BaseModel] | None:
    """The model at a place of a configuration, where it is one for all values; variants of unions are named in it."""
    models = [model]
    for part in map(str, loc):
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        variants = [m for m in models if _is_variant(m, part)]
        if fields:
            models = list(dict.fromkeys(m for field in fields for m in _models_in(field.annotation)))
        elif variants:
            models = variants
        elif not part.isdecimal():  # else an element of a list
            return None
    return models[0] if len(models) == 1 else None


def _is_variant(model: type[pydantic.BaseModel], name: str) -> bool:
    """Whether pydantic names a variant of a union so: by the value that chooses it, or by its class."""
    chosen = (value for field in model.model_fields.values() for value in tp.get_args(field.annotation))
    return name in chosen or re.search(rf"\b{re.escape(model.__name__)}\b", name) is not None


def _models_in(annotation: tp.Any) -> Iterator[type[pydantic.BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for part in tp.get_args(annotation):
        yield from _models_in(part)
