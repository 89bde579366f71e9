"""Filters over rows: ``rate > 5 and model.layers in [4, 8]``, read as Python reads it, and evaluated here."""

import ast
import operator
import typing as tp
import warnings
from collections.abc import Callable

from ..errors import FilterError
from .rows import Row

_COMPARISONS: dict[type[ast.cmpop], Callable[[tp.Any, tp.Any], tp.Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_CONSTANTS = {
    "true": True,
    "false": False,
    "null": None,
    "none": None,
    "inf": float("inf"),
    "nan": float("nan"),
}
_MOST = 10_000  # characters
_HELP = (
    "compare names of the configuration and _state, _seconds, _user... with values, joined by and, or, not: "
    "-w 'rate > 5 and model.layers in [4, 8]'"
)


class Filter:
    """A condition on rows.

    Parameters
    ----------
    text: str
        comparisons of dotted names with numbers, texts in quotes, lists, joined by ``and``, ``or``, ``not``. A
        comparison with a name that a row does not have is false.

    Raises
    ------
    FilterError
        if it cannot be read
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > _MOST:
            raise FilterError(f"the filter has {len(text)} characters, and more than {_MOST} are not read")
        try:
            with warnings.catch_warnings():  # of texts with a backslash
                warnings.simplefilter("ignore")
                tree = ast.parse(text.strip(), mode="eval")
            self._test = self._condition(tree.body)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
            at = f" at character {e.offset}" if isinstance(e, SyntaxError) and e.offset else ""
            raise FilterError(f"cannot read the filter {text!r}{at}: {getattr(e, 'msg', e)}. {_HELP}") from e

    def __call__(self, row: Row) -> bool:
        """Whether a row fulfils it."""
        return self._test(row)

    def _condition(self, node: ast.expr) -> Callable[[Row], bool]:
        match node:
            case ast.BoolOp(op=op, values=values):
                tests = [self._condition(value) for value in values]
                join = all if isinstance(op, ast.And) else any
                return lambda row: join(test(row) for test in tests)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                test = self._condition(operand)
                return lambda row: not test(row)
            case ast.Compare(left=left, ops=ops, comparators=others):
                sides = [self._value(side) for side in (left, *others)]
                for each in ops:
                    if type(each) not in _COMPARISONS:
                        raise ValueError(f"{type(each).__name__} is no comparison of values")
                compare = [_COMPARISONS[type(each)] for each in ops]
                return lambda row: _compared(row, sides, compare)
            case ast.Name() | ast.Attribute() | ast.Subscript() | ast.Constant():
                side = self._value(node)
                return lambda row: _true(row, side)
        raise ValueError(f"{ast.unparse(node)!r} is neither a comparison nor a name")

    def _value(self, node: ast.expr) -> Callable[[Row], tp.Any]:
        match node:
            case ast.Constant(value=value) if isinstance(value, (str, int, float, bool)) or value is None:
                return lambda row: value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return lambda row: -number
            case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
                parts = [self._value(element) for element in elements]
                return lambda row: [part(row) for part in parts]
            case ast.Name(id=name) if name in _CONSTANTS:
                constant = _CONSTANTS[name]
                return lambda row: constant
            case ast.Name() | ast.Attribute() | ast.Subscript():
                name = _dotted(node)
                return lambda row: row.value(name)
        raise ValueError(f"{ast.unparse(node)!r} is neither a name nor a value")


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{_dotted(value)}.{name}"
        case ast.Subscript(value=value, slice=ast.Constant(value=str() | int() as key)):
            return f"{_dotted(value)}.{key}"
    raise ValueError(f"{ast.unparse(node)!r} is no name")


def _compared(
    row: Row, sides: list[Callable[[Row], tp.Any]], compare: list[Callable[[tp.Any, tp.Any], tp.Any]]
) -> bool:
    try:
        values = [side(row) for side in sides]
        return all(test(a, b) for test, a, b in zip(compare, values, values[1:], strict=False))
    except (KeyError, TypeError):  # a name that is not there, or values that do not compare
        return False


def _true(row: Row, side: Callable[[Row], tp.Any]) -> bool:
    try:
        return bool(side(row))
    except KeyError:
        return False
