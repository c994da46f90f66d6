"""Conditions of tasks, as far as the Common Expression Language has to be known to refuse broken ones.

The server takes any text as a condition and fails when the run is there, so the syntax is looked at here: it
is that of Python with other words for three operators.
"""

import ast
import re
from collections.abc import Set

_TOKEN = re.compile(
    r"\s+|(?P<text>'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\")|(?P<op>&&|\|\||==|!=|<=|>=|[<>!+\-*/%().,\[\]])"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
)
_PYTHON = {"&&": " and ", "||": " or ", "!": "~", "true": "True", "false": "False", "null": "None"}
_ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Invert, ast.USub, ast.Compare, ast.Eq,
    ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div,
    ast.Mod, ast.Attribute, ast.Subscript, ast.Call, ast.Name, ast.Load, ast.Constant,
)  # fmt: skip


def inputs_of(condition: str) -> Set[tuple[str, str]]:
    """Return the inputs that a condition reads: `artifacts` or `parameterValues`, and the name.

    Raises:
        ValueError: It is not an expression, or reads something else than inputs.
    """
    try:
        tree = ast.parse(_as_python(condition), mode="eval")
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError("it is not an expression") from None
    found: set[tuple[str, str]] = set()
    for part in ast.walk(tree):
        if not isinstance(part, _ALLOWED):
            raise ValueError("it is not an expression")
        if isinstance(part, ast.Name) and part.id != "inputs":
            raise ValueError(f"it reads {part.id!r}; a condition can read inputs alone")
        if isinstance(part, ast.Subscript) and isinstance(part.value, ast.Attribute):
            of, key = part.value, part.slice
            if isinstance(of.value, ast.Name) and isinstance(key, ast.Constant):
                found.add((of.attr, str(key.value)))
    return found


def _as_python(condition: str) -> str:
    words, place = [], 0
    while place < len(condition):
        token = _TOKEN.match(condition, place)
        if token is None:
            raise ValueError(f"{condition[place]!r} is not expected in it")
        words.append(_PYTHON.get(token.group(), token.group()))
        place = token.end()
    return "".join(words).strip()
