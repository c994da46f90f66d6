"""An embedder and its items as one SavedModel in plain TensorFlow, for servers that know no index."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mlplatform.errors import UsageError
from mlplatform.search.export import rows_of
from mlplatform.search.fingerprint import INPUT, OUTPUT, SIGNATURE
from mlplatform.search.index import SearchIndex
from mlplatform.search.live import Live
from mlplatform.serving.search import ITEM_IDS, SCORES, SEARCH_IMAGE_BYTES

MOST_ITEMS = 200_000


class TooManyItemsError(UsageError):
    """An index has more items than are compared one by one."""

    def __init__(self, items: int) -> None:
        super().__init__(items)
        self.items = items

    def __str__(self) -> str:
        return (
            f"the index has {self.items:,} items, and a SavedModel that compares with all of them is made of "
            f"{MOST_ITEMS:,} at most. Export Parquet, and take an engine."
        )


def export_searching_model(model_dir: Path, index: SearchIndex, live: Live, target: Path) -> int:
    """Write a SavedModel that answers `search_image_bytes` by itself, so that stock TensorFlow Serving does.

    It has the embedder's signatures, too. There are no filters, and an item with several photos may be listed
    several times.

    Args:
        model_dir: The embedder.
        index: Its index.
        live: What was added and removed since it was built.
        target: The SavedModel; appears in one step and must not exist.

    Returns:
        The number of rows, one per photo of an item.

    Raises:
        TooManyItemsError: There are more items than that makes sense for.
    """
    if index.manifest.entries > MOST_ITEMS:
        raise TooManyItemsError(index.manifest.entries)
    rows = list(rows_of(index, live))
    module = tf.Module()
    module.embedder = tf.saved_model.load(str(model_dir))
    vectors = np.stack([row["vector"] for row in rows]).T
    module.vectors = tf.Variable(vectors, trainable=False)
    module.item_ids = tf.Variable([row["item_id"] for row in rows], trainable=False)
    embed, count = module.embedder.signatures[SIGNATURE], min(index.manifest.results, len(rows))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=INPUT)])
    def search_image_bytes(image_bytes: Any) -> dict[str, Any]:
        found = tf.linalg.matmul(embed(image_bytes=image_bytes)[OUTPUT], module.vectors)
        scores, places = tf.math.top_k(found, count)
        return {SCORES: scores, ITEM_IDS: tf.gather(module.item_ids, places)}

    signatures = {**module.embedder.signatures, SEARCH_IMAGE_BYTES: search_image_bytes}
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        tf.saved_model.save(module, f"{scratch}/model", signatures=signatures)
        Path(scratch, "model").rename(target)
    return len(rows)
