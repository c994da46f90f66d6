"""The errors of the local runner keep all their facts from one process to another."""

import importlib
import pickle
import sys
from pathlib import Path

import pytest

from mlplatform.demo.trip import ServerDidNotStartError
from mlplatform.orchestration.local.errors import InputsNotResolvedError, NodeFailedError, ParameterRoleError
from mlplatform.orchestration.local.processes.failures import describe_failure
from mlplatform.orchestration.local.records import RunNotFoundError


@pytest.mark.parametrize(
    "error",
    [
        RunNotFoundError("2026", "/runs", ["20260101", "20260102"], is_ambiguous=True),
        RunNotFoundError("2027", "/runs", ["20260101"]),
        ServerDidNotStartError(Path("/not/there.log"), None, "its last line"),
        InputsNotResolvedError("Show", "nothing", ["latest"]),
        NodeFailedError("Show", "cause", "/log", "run", 3, [("Other", "its cause", "/other.log")]),
        ParameterRoleError("a.B", "photos", "reads"),
    ],
)
def test_a_pickled_error_is_the_same(error):
    again = pickle.loads(pickle.dumps(error))
    assert (vars(again), str(again)) == (vars(error), str(error))


def test_an_exception_whose_text_cannot_be_made_is_described_all_the_same():
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    found = describe_failure(BrokenError())
    assert "its text could not be made: ZeroDivisionError" in found.message


def test_an_error_of_a_module_that_is_not_imported_is_not_imported_for_it(monkeypatch, tmp_path):
    (tmp_path / "takes_long.py").write_text("class SlowError(Exception):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    failure = describe_failure(importlib.import_module("takes_long").SlowError("too slow"))
    assert str(failure.exception()) == "too slow"
    monkeypatch.delitem(sys.modules, "takes_long")
    assert failure.exception() is None
    assert "takes_long" not in sys.modules
