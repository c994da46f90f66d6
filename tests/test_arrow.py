"""A Parquet file that others made runs no code, whichever part of the library reads it first."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

READ = """
import sys
from mlplatform.components.image_example_gen.errors import ListingError
from mlplatform.components.image_example_gen.listing import read_listing
try:
    print(len(list(read_listing(sys.argv[1]))), "rows")
except ListingError as error:
    print(error)
"""


class _Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.file),)


def malicious(marker: Path) -> pa.Table:
    """A listing whose column `path` declares an extension type: a pickle that old PyArrow loads."""
    extension = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(_Touch(marker)),
    }
    schema = pa.schema([pa.field("path", pa.string(), metadata=extension), pa.field("label", pa.string())])
    return pa.Table.from_arrays([pa.array(["a.jpg"]), pa.array(["hat"])], schema=schema)


def test_a_parquet_listing_runs_no_code(tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    parquet.write_table(malicious(marker), tmp_path / "listing.parquet")
    # A process of its own: Beam, once loaded, applies the fix as well.
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "listing.parquet")], capture_output=True, text=True
    )
    assert not marker.exists()
    assert done.returncode == 0, done.stderr
    assert (
        "cannot be read as Parquet" in done.stdout or done.stdout == "1 rows\n"
    )  # before and from PyArrow 14
