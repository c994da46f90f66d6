"""Modules that run when they are first used."""

import importlib
import inspect
import subprocess
import sys

import pytest

from mlplatform.orchestration.local.processes import deferred

TFX = """
import sys
from mlplatform.orchestration.local.processes.deferred import defer_imports
defer_imports()
from tfx import v1 as tfx
assert "google.cloud.aiplatform" not in sys.modules
assert tfx.extensions.google_cloud_ai_platform.Trainer.__module__.startswith("tfx.extensions.google_cloud")
from tfx.v1.extensions.google_cloud_ai_platform import experimental
assert "google.cloud.aiplatform" in sys.modules
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write the source of a module that is deferred, and import it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(deferred, "DEFERRED", frozenset({"later"}))

    def write(source):
        monkeypatch.delitem(sys.modules, "later", raising=False)
        (tmp_path / "later.py").write_text(source)
        deferred.defer_imports()
        return importlib.import_module("later")

    yield write
    sys.modules.pop("later", None)


def test_it_runs_when_it_is_used_and_only_once(module, capsys):
    later = module("print('runs')\nanswer = 42\ndef give(): return answer")
    inspect.getmodule(pytest.fixture)  # looks through all modules
    assert later.__file__.endswith("later.py")
    assert not hasattr(later, "__wrapped__")
    assert capsys.readouterr().out == ""
    assert later.answer == 42
    assert later.give() == 42
    assert importlib.import_module("later") is later
    assert capsys.readouterr().out == "runs\n"
    with pytest.raises(AttributeError, match="module 'later' has no attribute 'question'"):
        later.question  # noqa: B018
    assert capsys.readouterr().out == ""


def test_it_may_import_itself_while_it_runs(module):
    assert module("import later\nhas_answer = hasattr(later, 'answer')\nanswer = 42").has_answer is False


def test_what_it_raises_is_raised_where_it_is_used(module):
    later = module("raise RuntimeError('no credentials')")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no credentials"):
            later.answer  # noqa: B018


def test_what_is_not_there_is_not_found(module, tmp_path):
    module("")
    (tmp_path / "later.py").unlink()
    del sys.modules["later"]
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError, match="later"):
        importlib.import_module("later")


@pytest.mark.e2e
def test_tfx_is_imported_without_the_client_of_ai_platform_and_has_it_all_the_same():
    done = subprocess.run([sys.executable, "-c", TFX], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
