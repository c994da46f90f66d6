"""PyArrow that runs no code of the files it reads: the one way by which this library imports it.

Before version 14, PyArrow unpickles extension types that a Parquet or Arrow file declares, which runs
whatever its author wrote (CVE-2023-47248). The hotfix package forbids that from its import on, so it has to
be imported before the first file is read; ruff refuses `import pyarrow` elsewhere.
"""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow_hotfix  # noqa: F401 - where PyArrow has the fix of its own, this does nothing

__all__ = ["pa", "pc", "pq"]
