"""The kind of answer of a search model: a vector that finds the item's class, and the very item again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mlplatform.evaluation.embedding import Embedding, VectorTally
from mlplatform.evaluation.kind import Array, Figure, Metric, Outputs, Scored, Truths
from mlplatform.evaluation.statistics import share
from mlplatform.reports.sections import Section, Table
from mlplatform.vision.alterations import ALTERATIONS, altered

_ALTERED = "altered"
_PHOTOS = 96  # photos that are altered, each in all ways
_IMAGE, _EMBEDDING = "image/encoded", "embedding"


class ItemEmbedding(Embedding):
    """A vector per photo, as `Embedding` measures it, and `same_item`.

    `same_item` is the share of altered photos (cropped, mirrored, re-lit, framed, compressed) whose nearest
    photo, among all of the evaluation splits, is the one that was altered. A model can have one of the two
    and not the other: a classifier's scores find the class and forget the item.
    """

    metrics: Mapping[str, Metric] = {
        **Embedding.metrics,
        "same_item": Metric("the same item found", "an altered photo finds the original first"),
    }

    def tally(self, names: Sequence[str], *, output: str | None = None, min_support: int = 20) -> "ItemTally":
        """Return an empty tally."""
        del names, min_support
        return ItemTally(output)

    def more_outputs(
        self, examples: Sequence[Any], answer: Callable[[Sequence[Any]], Mapping[str, Array]], place: int
    ) -> Outputs:
        """Ask about altered photos.

        Args:
            examples: Records of a batch.
            answer: Asks the model.
            place: Place of the first record among all: the first photos are altered, the others are not.

        Returns:
            `altered`, float32 [batch, alterations, d]; NaN where a photo was not altered.
        """
        rows: list[Array] = []
        for number, example in enumerate(examples):
            photo = example.features.feature[_IMAGE].bytes_list.value
            if place + number >= _PHOTOS or not photo:
                break
            copies = []
            for encoded in altered(photo[0]):
                copy = type(example)()
                copy.features.feature[_IMAGE].bytes_list.value.append(encoded)
                copies.append(copy)
            rows.append(np.asarray(answer(copies)[_EMBEDDING], np.float32))
        if not rows:
            return {}
        filled = np.full((len(examples), *rows[0].shape), np.nan, np.float32)
        filled[: len(rows)] = rows
        return {_ALTERED: filled}


class ItemTally(VectorTally):
    """Measures vectors, and those of altered photos."""

    def __init__(self, output: str | None) -> None:
        super().__init__(output or _EMBEDDING)
        self._altered: list[tuple[Array, Array]] = []  # the record's vector [d], [alterations, d]

    def add(self, outputs: Outputs, truths: Truths) -> Scored:
        """Measure a batch."""
        scored = super().add(outputs, truths)
        if _ALTERED in outputs and np.isfinite(scored.error).all():
            self._altered += [
                (outputs[_EMBEDDING][row], found)
                for row, found in enumerate(outputs[_ALTERED])
                if np.isfinite(found).all()
            ]
        return scored

    def merge(self, other: VectorTally) -> None:
        """Add another tally."""
        super().merge(other)
        if isinstance(other, ItemTally):
            self._altered += other._altered

    def _found(self) -> Array:
        """Return whether each altered photo finds its original, bool [photos, alterations]."""
        units = self.vectors
        found = np.zeros((len(self._altered), len(ALTERATIONS)), np.bool_)
        for number, (original, vectors) in enumerate(self._altered):
            lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            scores = (vectors / lengths) @ units.T
            own = (vectors / lengths) @ (original / max(float(np.linalg.norm(original)), 1e-12))
            # A photo that lies twice among the records is found where the copy is.
            found[number] = scores.max(axis=1) <= own + 1e-6
        return found

    def figures(self) -> Mapping[str, Figure]:
        """Return the metrics."""
        figures = dict(super().figures())
        if self._altered:
            found = self._found()
            figures["same_item"] = share(int(found.sum()), found.size)
        return figures

    def sections(self) -> Sequence[Section]:
        """Return what was found by alteration."""
        if not self._altered:
            return super().sections()
        shares = self._found().mean(axis=0)
        rows = [[name, f"{100 * value:.1f} %"] for name, value in zip(ALTERATIONS, shares, strict=True)]
        note = f"{len(self._altered)} photos, each altered in all ways, among {len(self.vectors)}."
        table = Table(
            "Altered photos that find the original first", ["Alteration", "Found#"], rows, note=note
        )
        return [table, *super().sections()]
