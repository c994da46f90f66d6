"""The table of behaviours names tests that exist."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_test_of_the_table_exists() -> None:
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", (HERE / "README.md").read_text("utf-8"))
    assert len(named) > 50
    defined = {
        (file.name, node.name)
        for file in HERE.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    assert set(named) - defined == set()
