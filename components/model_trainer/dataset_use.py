"""Note beside a dataset version what was made from it."""

import json
from pathlib import Path

from mlplatform.components.dataset_versioner.versioning import VERSION_FILE
from mlplatform.datasets import DatasetStore


def note_use(dataset_uri: str, kind: str, name: str, detail: str) -> None:
    """Let `mlplatform datasets blame` and `forget` name what was made; saying it again changes nothing.

    Args:
        dataset_uri: Folder of a DatasetVersion artifact.
        kind: `model` or `push`.
        name: Its name, such as `item_category@7`.
        detail: More, such as its path.
    """
    facts = json.loads((Path(dataset_uri) / VERSION_FILE).read_text("utf-8"))
    DatasetStore(facts["store"]).record_use(facts["dataset"], facts["version"], kind, name, detail)
