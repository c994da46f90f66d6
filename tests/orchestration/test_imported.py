"""Code counts as a process imported it."""

import subprocess
import sys

PROGRAM = """
import sys
from mlplatform.fingerprints import imported
from mlplatform.fingerprints import code_closure
from mlplatform.fingerprints.digests import file_digest
imported.record_imports()
imported.record_imports()
sys.path.insert(0, {folder!r})
import mine
file = mine.__file__
first = file_digest(file)
assert imported.imported_files()[file] == first
assert code_closure.closure_of(["mine"]).edited == ()
open(file, "w").write("VALUE = 2")
assert imported.imported_files()[file] == first
assert imported.is_edited(file, file_digest(file))
assert code_closure.closure_of(["mine"]).edited == (file,)
assert not imported.is_edited("/not/imported.py", "some digest")
with imported.importing(file):
    open(file, "w").write("VALUE = 3")
assert imported.imported_files()[file] == ""
assert imported.is_edited(file, file_digest(file))
assert not any("site-packages" in name for name in imported.imported_files())
"""


def test_an_edit_after_the_import_is_known(tmp_path):
    (tmp_path / "mine.py").write_text("VALUE = 1")
    program = PROGRAM.format(folder=str(tmp_path.resolve()))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
