"""Models whose fields may hold any subclass: the class is named by a key in the dict."""

import functools
import gc
import inspect
import itertools
import typing as tp
import weakref

import pydantic
import pydantic_core
from pydantic_core import core_schema

from ..errors import DiscriminatorError

# ---------------------------------------------------------------- the classes of a hierarchy, by name

# every class is numbered when it is defined: a table made before the last one is out of date
_numbers: tp.Final = itertools.count(1)
_last = [0]
_Table = dict[str, list[weakref.ref[type]]]
_tables: weakref.WeakKeyDictionary[type, tuple[int, _Table]] = weakref.WeakKeyDictionary()


class AmbiguousNameError(LookupError):
    """Several classes of one hierarchy bear the name."""


def note_definition(cls: type) -> None:
    """Make a new class known."""
    number = next(_numbers)
    type.__setattr__(cls, "_exca_definition", number)
    _last[0] = number


def choices(base: type) -> list[str]:
    """The names that can be chosen for a class: its own and those of all that derive from it, if concrete."""
    return sorted({cls.__name__ for cls in _family(base) if not inspect.isabstract(cls)})


def by_name(base: type) -> dict[str, type]:
    """A class and all that derive from it, by name; of several with one name the last definition."""
    found = [(name, ref()) for name, refs in _table(base).items() for ref in refs]
    return {name: cls for name, cls in found if cls is not None}


def find(base: type, name: object) -> type | None:
    """The class of a name among a class and all that derive from it; AmbiguousNameError if there are several.

    A name with the module before it, as ``my_package.steps.Scale``, is one of that module alone. Of several definitions
    in one place (a notebook's cell run again) the last one counts.
    """
    if not isinstance(name, str):
        return None
    found = _named(base, name)
    if len(found) > 1:
        found.clear()
        gc.collect()  # a class made inside a function outlives it until then
        found = _named(base, name)
    if len(found) > 1:
        places = " and ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in found)
        raise AmbiguousNameError(f"several classes bear the name {name!r}: {places}")
    return found[0] if found else None


def is_found(base: type, kind: type) -> bool:
    """Whether the name of a class leads to it."""
    try:
        return find(base, kind.__name__) is kind
    except AmbiguousNameError:
        return False


def _named(base: type, name: str) -> list[type]:
    """The last definition of each place."""
    by_place: dict[tuple[str, str], type] = {}
    table = _table(base)
    known = table.get(name, ())
    whole = not known and "." in name  # with its module; parametrised classes may have dots in their names
    for ref in table.get(name.rpartition(".")[2], ()) if whole else known:
        cls = ref()
        if cls is not None and (not whole or name == f"{cls.__module__}.{cls.__qualname__}"):
            by_place[cls.__module__, cls.__qualname__] = cls
    return list(by_place.values())


def _table(base: type) -> _Table:
    count, table = _tables.get(base, (-1, {}))
    if count != _last[0]:
        count, table = _last[0], {}
        for cls in _family(base):
            table.setdefault(cls.__name__, []).append(weakref.ref(cls))
        _tables[base] = count, table
    return table


def _family(base: type) -> list[type]:
    """A class and all that derive from it, in the order of definition."""
    family = {base}
    waiting = [base]
    while waiting:
        kinds: list[type] = waiting.pop().__subclasses__()
        for cls in kinds:
            if cls not in family:
                family.add(cls)
                waiting.append(cls)
    return sorted(family, key=lambda cls: cls.__dict__.get("_exca_definition", 0))


# ---------------------------------------------------------------- validation and serialization

_Read = tp.Callable[[tp.Any], tp.Any]

_OURS: tp.Final = "exca_discriminated"
_FLAGS: tp.Final = (
    *("include", "exclude", "context", "by_alias", "exclude_unset", "exclude_defaults", "exclude_none"),
    *("exclude_computed_fields", "round_trip", "serialize_as_any"),
)


class _Fields(dict[str, tp.Any]):
    """Fields of a model whose class is settled."""


def _validator(cls: type["DiscriminatedModel"]) -> core_schema.WithInfoWrapValidatorFunction:
    """The function that reads what is given for a field of the class."""

    def pick(value: tp.Any, handler: tp.Any, info: tp.Any) -> tp.Any:
        if type(value) is _Fields:
            return handler(value)
        if not isinstance(value, cls):
            value = cls._exca_coerce(value)
        key = cls._exca_discriminator_key
        if isinstance(value, str):
            value = {key: value}
        if not isinstance(value, dict):
            return handler(value)
        if key not in value:
            return _without_key(cls, _Fields(value), handler)
        fields = _Fields(value)
        picked = _picked(cls, fields.pop(key))
        if picked is cls:
            return handler(fields)
        return picked.__pydantic_validator__.validate_python(fields, context=info.context)

    def read(value: tp.Any, handler: tp.Any, info: tp.Any) -> tp.Any:
        # a wrap validator may define the class that is named, or name another one: it comes before the choice
        if type(value) is _Fields or isinstance(value, cls):
            return pick(value, handler, info)

        inner: _Read = functools.partial(pick, handler=handler, info=info)
        for validator, takes_info in wrapping:
            inner = _wrapped(validator, inner, info if takes_info else None)
        return inner(value)

    wrapping = _wrap_validators(cls)
    chosen = read if wrapping else pick
    chosen.__name__ = cls.__name__  # it is part of the path in errors about unions
    return chosen


def _wrap_validators(cls: type["DiscriminatedModel"]) -> list[tuple[tp.Callable[..., tp.Any], bool]]:
    """The validators with ``mode="wrap"`` of a class, the outermost last, and whether each takes an info."""
    validators = cls.__pydantic_decorators__.model_validators.values()
    functions = [validator.func for validator in validators if validator.info.mode == "wrap"]
    return [(function, len(inspect.signature(function).parameters) > 2) for function in functions]


def _wrapped(validator: tp.Callable[..., tp.Any], inner: _Read, info: tp.Any) -> _Read:
    if info is None:
        return lambda value: validator(value, inner)
    return lambda value: validator(value, inner, info)


def _serializer(cls: type["DiscriminatedModel"]) -> core_schema.WrapSerializerFunction:
    """The function that writes the values of a field of the class."""

    def write(value: tp.Any, handler: tp.Any, info: tp.Any) -> tp.Any:
        kind = type(value)
        if isinstance(value, DiscriminatedModel) and (kind is not cls or not info.serialize_as_any):
            # below such a model each value is written by its own type, as it always was
            flags = {name: getattr(info, name) for name in _FLAGS if hasattr(info, name)}
            flags["serialize_as_any"] = True
            return kind.__pydantic_serializer__.to_python(value, mode=info.mode, **flags)
        dump = handler(value)
        return {kind._exca_discriminator_key: kind.__name__, **dump} if isinstance(dump, dict) else dump

    return write


def _found(cls: type["DiscriminatedModel"], name: object) -> "type[DiscriminatedModel] | None":
    try:
        return tp.cast("type[DiscriminatedModel] | None", find(cls, name))
    except AmbiguousNameError:
        return None  # the validator raises


def _picked(cls: type["DiscriminatedModel"], name: object) -> type["DiscriminatedModel"]:
    try:
        picked = find(cls, name)
    except AmbiguousNameError as error:
        raise _refused(
            "ambiguous_class",
            f"{error}; write one of these whole names, rename one of them, or give an object in place of a dict",
        ) from None
    if picked is None:
        raise _refused("unknown_class", f"{name!r} is not a kind of {cls.__name__}; {_known(cls)}")
    if inspect.isabstract(picked):
        raise _refused("abstract_class", f"{name!r} is abstract; {_known(cls)}")
    return tp.cast("type[DiscriminatedModel]", picked)


def _without_key(cls: type["DiscriminatedModel"], fields: _Fields, handler: tp.Any) -> tp.Any:
    """Read a dict without key as the class itself; the error names what might have been meant."""
    hint = ""
    if cls.__subclasses__():
        hint = f"no {cls._exca_discriminator_key!r} is given, which names the class; {_known(cls)}"
    if inspect.isabstract(cls):
        raise _refused(
            "missing_class",
            hint
            or f"{cls.__name__} is abstract, and no class derives from it: define one, or import its module",
        )
    try:
        return handler(fields)
    except pydantic.ValidationError as error:
        if not hint:
            raise
        lines: list[pydantic_core.InitErrorDetails] = [
            {"type": _refused(each["type"], each["msg"]), "loc": each["loc"], "input": each["input"]}
            for each in error.errors(include_url=False)
        ]
        lines.append({"type": _refused("missing_class", hint), "input": dict(fields)})
        raise pydantic.ValidationError.from_exception_data(error.title, lines) from None


def _known(cls: type["DiscriminatedModel"]) -> str:
    return f"available for {cls._exca_discriminator_key!r}: {', '.join(choices(cls)) or 'none yet'}"


def _refused(kind: str, message: str) -> pydantic_core.PydanticCustomError:
    # the message is a template, into which braces would be read as names
    return pydantic_core.PydanticCustomError(
        tp.cast(tp.Any, kind), "{exca_message}", {"exca_message": message}
    )


class DiscriminatedModel(pydantic.BaseModel):
    """A model in whose place any subclass may be given, chosen by name.

    A field annotated with a class that derives from this one takes an object of that class or of any class
    deriving from it, or a dict with the name of the class under the key "type" (or just that name, for the defaults).
    Dumps of such objects begin with the key. Without key, a dict is read as the annotated class itself.

    Another key is chosen for a whole hierarchy with `class Base(DiscriminatedModel, discriminator_key="name")`.

    Examples
    --------
    >>> class Step(DiscriminatedModel): ...
    >>> class Add(Step):
    ...     value: int = 1
    >>> class Pipeline(pydantic.BaseModel):
    ...     steps: list[Step] = []
    >>> Pipeline(steps=[{"type": "Add", "value": 2}])
    Pipeline(steps=[Add(value=2)])
    """

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")

    _exca_discriminator_key: tp.ClassVar[str] = "type"

    if not tp.TYPE_CHECKING:  # type checkers see the fields of each class as parameters

        def __new__(cls, *args: tp.Any, **fields: tp.Any) -> tp.Any:
            """Makes an object of the class that the key names, if it is given."""
            if fields:
                name = fields.get(cls._exca_discriminator_key)
                if name is not None and name != cls.__name__:
                    picked = _found(cls, name)
                    if picked is None and _wrap_validators(cls):  # they may define it, or name another
                        return cls.__pydantic_validator__.validate_python(fields)
                    return super().__new__(picked or cls)
            return super().__new__(cls)

        def __init__(self, /, **fields: tp.Any) -> None:
            cls = type(self)
            if fields.get(cls._exca_discriminator_key, cls.__name__) == cls.__name__:
                fields.pop(cls._exca_discriminator_key, None)
                fields = _Fields(fields)
            self.__pydantic_validator__.validate_python(fields, self_instance=self)

        # pydantic calls only constructors of its users' own
        __init__.__pydantic_base_init__ = True

    def __init_subclass__(cls, discriminator_key: str | None = None, **kwargs: tp.Any) -> None:
        super().__init_subclass__(**kwargs)
        if discriminator_key is not None:
            cls._exca_discriminator_key = discriminator_key
        note_definition(cls)

    @classmethod
    def __pydantic_init_subclass__(cls, discriminator_key: str | None = None, **kwargs: tp.Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        key = cls._exca_discriminator_key
        for name, field in cls.__pydantic_fields__.items():
            if key in (name, field.alias):
                raise DiscriminatorError(
                    f"{cls.__module__}.{cls.__qualname__} has a field {name!r}, but {key!r} is the key that names the "
                    "class in configurations: rename the field, or choose another key for the hierarchy with "
                    f'`class {cls.__name__}(..., discriminator_key="name")`.'
                )

    @classmethod
    def _get_discriminated_subclasses(cls) -> "dict[str, type[DiscriminatedModel]]":
        """The classes that can be named for this one, abstract ones too, by name (kept for dependants)."""
        return tp.cast("dict[str, type[DiscriminatedModel]]", by_name(cls))

    @classmethod
    def _exca_coerce(cls, value: tp.Any) -> tp.Any:
        """Hook: converts what was given for a field of this class, before a class is chosen by its key.

        Parameters
        ----------
        value: anything but an object of the class

        Returns
        -------
        An object of the class, a dict with or without key, the name of a class, or the value as it came.
        """
        return value

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: tp.Any, handler: pydantic.GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        schema = handler(source)
        if (schema.get("metadata") or {}).get(_OURS) is not None:
            return schema  # pydantic reuses the schema of a class for the fields that hold it
        written = core_schema.wrap_serializer_function_ser_schema(
            _serializer(cls), info_arg=True, schema=schema
        )
        # of the inner schema: a serializer of a field takes the place of that of the outer one
        inner = tp.cast(core_schema.CoreSchema, {**schema, "serialization": written})
        return core_schema.with_info_wrap_validator_function(_validator(cls), inner, metadata={_OURS: True})
