"""Which records a model was trained on, so that its gate sees when it is judged by the same ones."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRAINED_ON_FILE = "trained_on.npy"
_KEPT = 200_000  # digests: 1.6 MB
_BATCH = 4096
Digests = NDArray[np.uint64]


@dataclass(frozen=True)
class TrainedOn:
    """Digests of the records of a training: all, or of many those with the smallest digests.

    Attributes:
        digests: uint64, sorted, different from each other.
        bound: Digests up to it are all there.
        repeated: Share of the training records that are there more than once, 0.0 to 1.0.
    """

    digests: Digests
    bound: int
    repeated: float

    def found(self, records: Sequence[bytes]) -> tuple[int, int]:
        """Return how many of some records were trained on, and how many of them can be compared."""
        digests = _digests(records)
        comparable = digests[digests <= self.bound]
        return int(np.isin(comparable, self.digests).sum()), len(comparable)


def write_trained_on(run_dir: Path, files: Sequence[str]) -> None:
    """Write `trained_on.npy`: the records of a training.

    Args:
        run_dir: What a training leaves beside its model.
        files: TFRecord files that it was trained on.
    """
    kept, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    bound = np.iinfo(np.uint64).max
    for batch in record_batches(files):
        digests, new = np.unique(_digests(batch), return_counts=True)
        kept, places = np.unique(np.concatenate([kept, digests]), return_inverse=True)
        counts = np.bincount(places, np.concatenate([counts, new]), len(kept)).astype(np.int64)
        if len(kept) > _KEPT:
            kept, counts = kept[:_KEPT], counts[:_KEPT]
            bound = int(kept[-1])
    facts = np.zeros(len(kept), [("digest", np.uint64), ("count", np.int64), ("bound", np.uint64)])
    facts["digest"], facts["count"], facts["bound"] = kept, counts, bound
    np.save(run_dir / TRAINED_ON_FILE, facts)


def read_trained_on(run_dir: Path | None) -> TrainedOn | None:
    """Return what a training was trained on; None where it left nothing of this form."""
    file = run_dir / TRAINED_ON_FILE if run_dir else None
    if file is None or not file.is_file():
        return None
    try:
        facts: Any = np.load(file, allow_pickle=False)
        digests, counts = facts["digest"], facts["count"]
        if not len(digests):
            return None
        repeated = float(counts[counts > 1].sum() / counts.sum())
        return TrainedOn(digests, int(facts["bound"][0]), repeated)
    except (ValueError, IndexError, EOFError):  # another program's file
        return None


def record_batches(files: Sequence[str]) -> Iterable[list[bytes]]:
    """Yield the serialized records of TFRecord files."""
    # Here, as composing a pipeline needs no TensorFlow.
    from mlplatform.vision.examples import read_records

    for batch in read_records(files).batch(_BATCH).as_numpy_iterator():
        yield list(batch)


def _digests(records: Sequence[bytes]) -> Digests:
    joined = b"".join(hashlib.blake2b(record, digest_size=8).digest() for record in records)
    return np.frombuffer(joined, "<u8").astype(np.uint64)
