"""What making a pipeline read is heard, whoever read it."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, json
{before}
from mlplatform.orchestration.local.cache.sources import start_recording, stop_recording, pause_recording
from mlplatform.fingerprints.imported import record_imports
record_imports()
sys.path.insert(0, {folder!r})
start_recording()
{what}
found = stop_recording()
folder = {folder!r} + "/"
cut = lambda known: {{k.removeprefix(folder): bool(v) for k, v in known.items() if k.startswith(folder)}}
print(json.dumps([cut(found.files), cut(found.folders), list(found.neighbours), list(found.world)]))
"""


@pytest.fixture
def heard(tmp_path):
    """Return a function that runs Python and says which files, folders, neighbours and world it asked."""
    import json

    folder = tmp_path.resolve() / "f"
    (folder / "d").mkdir(parents=True)
    (folder / "a").write_text("content")
    (folder / "pack").mkdir()
    (folder / "pack/__init__.py").write_text("")
    (folder / "pack/settings.yaml").write_text("steps: 1")
    (folder / "mine.py").write_text("import os\nA = open(os.path.dirname(__file__) + '/a').read()")
    (folder / "asks.py").write_text("import subprocess\nsubprocess.run(['true'])")

    def run(what, before=""):
        program = PROGRAM.format(folder=str(folder), what=what.format(f=folder), before=before)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        files, folders, neighbours, world = json.loads(done.stdout.splitlines()[-1])
        return files, folders, [name.removeprefix(str(folder)) for name in neighbours], world

    return run


def test_files_and_listings(heard):
    what = "open('{f}/a'); os.listdir('{f}/d'); open('{f}/new', 'w'); open(os.fsencode('{f}/a')); open(0)"
    assert heard(what)[:2] == ({"a": True}, {"d": True})


def test_a_file_that_is_looked_for_and_not_there(heard):
    what = "try: open('{f}/no')\nexcept OSError: pass"
    assert heard(what)[0] == {"no": False}


def test_modules_what_they_read_and_what_lies_beside_them(heard):
    files, _, neighbours, _ = heard("import mine")
    assert files == {"mine.py": True, "a": True}
    assert neighbours == [""]


def test_data_of_a_package_that_is_read_through_its_loader(heard):
    what = "import pkgutil\npkgutil.get_data('pack', 'settings.yaml')"
    assert heard(what)[0] == {"pack/__init__.py": True, "pack/settings.yaml": True}


def test_nothing_is_heard_in_a_pause(heard):
    assert heard("pause_recording(); open('{f}/a')")[0] == {}


def test_tensorflow_reads_too(heard):
    what = "gfile = tf.io.gfile\ngfile.GFile('{f}/a').read(); gfile.exists('{f}/no'); gfile.glob('{f}/d/*')"
    files, folders, _, _ = heard(what, before="import tensorflow as tf")
    assert files.items() >= {"a": True, "no": False}.items()
    assert folders.items() >= {"no": False, "d": True}.items()  # and what else it asks about a file


@pytest.mark.parametrize(
    ("what", "world"),
    [
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
        ("os.system('true')", "os.system"),
        ("import sqlite3; sqlite3.connect(':memory:')", "sqlite3.connect"),
        (
            "import socket\ntry: socket.socket().connect(('127.0.0.1', 1))\nexcept OSError: pass",
            "socket.connect",
        ),
        ("import asks", "subprocess.Popen"),
    ],
)
def test_what_asks_the_world(heard, what, world):
    assert world in heard(what)[3]


def test_what_a_library_does_to_be_imported_is_not_asked_for(heard):
    assert heard("import tensorflow, apache_beam")[3] == []
