"""Conditions of tasks: the part of CEL that TFX writes."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

# Texts stay as they are; outside of them, CEL's operators become Python's.
_TOKENS = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|&&|\|\||!(?!=)")
_PYTHON = {"&&": " and ", "||": " or ", "!": " not "}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class ConditionError(ValueError):
    """A condition cannot be evaluated."""


def evaluate(condition: str, executor_input: Mapping[str, Any]) -> bool:
    """Return whether a condition holds.

    Args:
        condition: Such as `inputs.artifacts['_a.out'].artifacts[0].metadata['ok'] == 1.0`.
        executor_input: What the names in it refer to.

    Raises:
        ConditionError: It is not CEL that TFX writes, names what is not there, or compares different types.
    """
    text = _TOKENS.sub(lambda found: _PYTHON.get(found[0], found[0]), condition)
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ConditionError(f"Syntax error: {condition}") from error
    value = _value(tree.body, executor_input)
    if not isinstance(value, bool):
        raise ConditionError(f"the condition {condition} is {value!r}, not a truth value")
    return value


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=str() | bool() as value):
            return value
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id="true" | "false" as name):
            return name == "true"
        case ast.Name(id=name):
            return _member(names, name)
        case ast.Attribute(value=of, attr=name):
            return _member(_value(of, names), name)
        case ast.Subscript(value=of, slice=key):
            return _member(_value(of, names), _value(key, names))
        case ast.UnaryOp(op=ast.Not(), operand=of):
            return not _truth(_value(of, names))
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_truth(_value(each, names)) for each in values)
        case ast.BoolOp(op=ast.Or(), values=values):
            return any(_truth(_value(each, names)) for each in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _of_one_type(operator.add, _value(left, names), _value(right, names))
        case ast.Compare(left=left, ops=[kind], comparators=[right]) if type(kind) in _COMPARISONS:
            return _of_one_type(_COMPARISONS[type(kind)], _value(left, names), _value(right, names))
    raise ConditionError(f"{ast.unparse(node)} is not supported")


def _member(of: Any, key: Any) -> Any:
    try:
        found = of[int(key) if isinstance(of, list) else key]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ConditionError(f"no such key: {key}") from error
    return float(found) if isinstance(found, int) and not isinstance(found, bool) else found


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConditionError(f"no such overload: {value!r} is not a truth value")
    return value


def _of_one_type(function: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    if type(left) is not type(right):
        raise ConditionError(f"no such overload: {left!r} and {right!r} are of different types")
    return function(left, right)
