"""The exported items in Milvus' own core: it finds what our index finds."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.search.export import export_items
from mlplatform.search.filters import parse_filter
from mlplatform.search.index import SearchIndex
from mlplatform.search.live import Live

pytestmark = pytest.mark.engines

TOOL = Path(__file__).parents[2] / "tools" / "milvus" / "import_items.py"
PYTHON = Path(os.environ.get("MILVUS", Path.home() / ".cache" / "mlplatform" / "milvus")) / "bin" / "python"

ASK = """
import json, sys
from pymilvus import MilvusClient
client, asked = MilvusClient(sys.argv[1]), json.load(sys.stdin)
answers, columns = [], ["item_id", "price"]
for one in asked:
    ((*hits,),) = client.search(
        "items", data=[one["vector"]], limit=10, filter=one["filter"], output_fields=columns
    )
    answers.append([[hit["entity"]["item_id"], hit["distance"], hit["entity"].get("price")] for hit in hits])
(counted,) = client.query("items", output_fields=["count(*)"])
print(json.dumps({"count": counted["count(*)"], "answers": answers}))
client.close()
"""


@pytest.fixture
def milvus() -> Path:
    """The Python of an environment with Milvus Lite."""
    if not PYTHON.is_file():
        pytest.skip(f"no Milvus: there is no {PYTHON}; run `sh tools/milvus/setup.sh DIR PYTHON`")
    return PYTHON


def test_milvus_finds_in_the_export_what_the_index_finds(
    samples: Any, make_index: Callable[..., SearchIndex], milvus: Path, tmp_path: Path
) -> None:
    index = make_index(samples.unit_vectors(3000))
    assert export_items(index, Live(0), tmp_path / "items.parquet", "parquet") == 3000
    database = str(tmp_path / "items.db")
    done = subprocess.run(
        [milvus, TOOL, tmp_path / "items.parquet", "--uri", database], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "3000 rows imported"
    queries = samples.unit_vectors(20, seed=9)
    forms = [("", None), ('label == "odd" and price <= 9000', '{"label": ["odd"], "price": [null, 9000]}')]
    asked = [{"vector": query.tolist(), "filter": theirs} for theirs, _ in forms for query in queries]
    done = subprocess.run(
        [milvus, "-c", ASK, database], input=json.dumps(asked), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["count"] == 3000
    wanted = [index.search(query, 10, parse_filter(ours or "")) for _, ours in forms for query in queries]
    for answer, ours in zip(found["answers"], wanted, strict=True):
        assert [item_id for item_id, _, _ in answer] == ours.item_ids
        np.testing.assert_allclose([score for _, score, _ in answer], ours.scores, atol=1e-5)
        assert [price for _, _, price in answer] == [index.attributes(i)["price"] for i in ours.item_ids]
