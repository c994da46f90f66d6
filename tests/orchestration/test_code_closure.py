"""Which of the user's files a node's code is made of."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from mlplatform.fingerprints import code_closure
from mlplatform.fingerprints.code_closure import closure_of, modules_named_in


@pytest.fixture
def code(tmp_path, monkeypatch):
    """Return a function that writes a source file below a folder on the import path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for function in (code_closure._top_level, code_closure._imports):
        function.cache_clear()

    def write(name, text=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()
        return path

    return write


def names(closure, folder):
    return {str(Path(file).relative_to(folder.resolve())) for file in closure.files}


@pytest.mark.parametrize(
    ("statement", "reached"),
    [
        ("import pack.inner", {"pack/__init__.py", "pack/inner.py"}),
        ("from pack import inner", {"pack/__init__.py", "pack/inner.py"}),
        ("from pack import *", {"pack/__init__.py", "pack/inner.py"}),
        ("import importlib\nimportlib.import_module('pack.inner')", {"pack/__init__.py", "pack/inner.py"}),
        ("__import__('pack.inner')", {"pack/__init__.py", "pack/inner.py"}),
        ("def f():\n    import plain", {"plain.py"}),
        ("try:\n    import plain\nexcept ImportError:\n    import not_there", {"plain.py"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import plain", set()),
        ("from typing import TYPE_CHECKING\nif not TYPE_CHECKING:\n    import plain", {"plain.py"}),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import plain",
            {"plain.py"},
        ),
        ("from space import one", {"space/one.py"}),
    ],
)
def test_what_an_import_reaches(code, tmp_path, statement, reached):
    code("pack/__init__.py", "__all__ = ['inner']")
    code("pack/inner.py")
    code("plain.py")
    code("space/one.py")
    code("start.py", statement)
    assert names(closure_of(["start"]), tmp_path) == {"start.py"} | reached


def test_relative_imports(code, tmp_path):
    code("pack/__init__.py")
    code("pack/a.py", "from . import b\nfrom .sub.c import d")
    code("pack/b.py")
    code("pack/sub/__init__.py")
    code("pack/sub/c.py", "import importlib\nimportlib.import_module('..e', __package__)")
    code("pack/e.py")
    found = names(closure_of(["pack.a"]), tmp_path)
    assert found == {f"pack/{name}.py" for name in ("__init__", "a", "b", "sub/__init__", "sub/c", "e")}


def test_a_package_beside_a_file_is_followed_to_the_module_that_is_imported(code, tmp_path):
    trainer = code("elsewhere/trainer.py", "from mine.sub import f\nimport beside")
    code("elsewhere/mine/__init__.py")
    code("elsewhere/mine/sub.py", "from . import more")
    code("elsewhere/mine/more.py")
    code("elsewhere/beside.py")
    found = names(closure_of([], [trainer]), tmp_path)
    assert found == {
        f"elsewhere/{n}.py" for n in ("trainer", "beside", "mine/__init__", "mine/sub", "mine/more")
    }


def test_a_namespace_in_two_folders(code, tmp_path, monkeypatch):
    code("one/space/a.py")
    code("two/space/b.py")
    for folder in ("one", "two"):
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    code("start.py", "import space.a, space.b")
    assert names(closure_of(["start"]), tmp_path) == {"start.py", "one/space/a.py", "two/space/b.py"}


def test_extension_modules_count(code, tmp_path):
    ending = code_closure._FILE_ENDINGS[-1]
    code("pack/__init__.py")
    code(f"pack/fast{ending}", "machine code")
    code("start.py", "from pack import fast")
    assert f"pack/fast{ending}" in names(closure_of(["start"]), tmp_path)


def test_the_script_itself(tmp_path):
    (tmp_path / "helper.py").write_text("")
    script = tmp_path / "script.py"
    script.write_text(
        "import helper\n"
        "from mlplatform.fingerprints.code_closure import closure_of\n"
        "found = closure_of(['__main__'])\n"
        "print(*found.files, found.missing)"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert str(script.resolve()) in done.stdout, done.stderr
    assert str((tmp_path / "helper.py").resolve()) in done.stdout


def test_code_that_is_nowhere_is_missing_and_a_text_that_names_nothing_is_not(code):
    assert closure_of(["made_in_the_air.module"]).missing == ("made_in_the_air.module",)
    assert closure_of([], named=["some.words"]).missing == ()


def test_libraries_are_told_by_version(code):
    code("start.py", "import numpy.linalg, json")
    closure = closure_of(["start"])
    import numpy

    assert closure.libraries["numpy"] == numpy.__version__
    assert not any("numpy" in file or "json" in file for file in closure.files)


def test_variables_that_are_read_by_name(code):
    code(
        "start.py",
        "import os\nfrom os import environ, getenv\n"
        "os.environ['A'], environ.get('B'), os.getenv('C'), getenv('D', ''), 'E' in os.environ, {}['F']\n"
        "environ['SET'] = 'x'\ndel environ['DELETED']\nenviron['ADDED_TO'] += 'x'",
    )
    assert closure_of(["start"]).variables == ("A", "ADDED_TO", "B", "C", "D", "E")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("model:build", ["model.build"]),
        ("a.b:c", ["a.b.c"]),
        ("a.b.c", ["a.b.c"]),
        ({"x": ["a.b", 1, "two words"]}, ["a.b"]),
        ("plain", []),
        ("trainer.py", []),
        ("https://a.b/c", []),
    ],
)
def test_import_paths_in_parameters(value, found):
    assert list(modules_named_in(value)) == found


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("import importlib\nimportlib.import_module('plain')", False),
        ("import importlib\nimportlib.import_module(NAME)", True),
        ("__import__(f'{NAME}.inner')", True),
        ("import deep", True),
        ("import mlplatform.orchestration.local.reference", False),  # imports what its caller names
    ],
)
def test_code_that_imports_by_computed_names_is_open(code, text, is_open):
    code("deep.py", "from importlib import import_module\ndef f(name):\n    import_module(name)")
    code("start.py", text)
    assert closure_of(["start"]).is_open == is_open
