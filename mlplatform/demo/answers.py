"""What a version's answer says, in a form that a page can show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlplatform.evaluation.outputs import sigmoid, softmax
from mlplatform.serving.tensors import Array

TOP = 5
_MOST_SHOWN = 4000  # values of an output that a page shows
_SCORES = ("probabilities", "scores", "logits", "logistic")
_NAMES = ("classes", "class_names")
_NUMBERS = ("predictions", "outputs", "output", "prediction")
_ITEM_IDS, _PALETTE, _SHARES = "item_ids", "palette_rgb", "palette_share"


@dataclass(frozen=True)
class ScoredName:
    """A class, or an item, with its score."""

    name: str
    score: float


@dataclass(frozen=True)
class PaletteColor:
    """A colour, sRGB 0 to 255, and the share of the item that has it."""

    red: int
    green: int
    blue: int
    share: float


@dataclass(frozen=True)
class ModelAnswer:
    """What a version answers about one record.

    Attributes:
        classes: Its best classes, the best first; none where it does not answer with classes.
        number: The number that it answers; None where it does not answer with one.
        items: The nearest items, the nearest first; none where it does not search.
        palette: Colours; none where it answers none.
        outputs: All outputs by name, as JSON holds them.
    """

    classes: tuple[ScoredName, ...] = ()
    number: float | None = None
    items: tuple[ScoredName, ...] = ()
    palette: tuple[PaletteColor, ...] = ()
    outputs: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "classes": [vars(one) for one in self.classes],
            "number": self.number,
            "items": [vars(one) for one in self.items],
            "palette": [vars(one) for one in self.palette],
            "outputs": self.outputs,
        }

    @property
    def in_words(self) -> str:
        """The answer in a few words; empty where none fit."""
        if self.classes:
            return self.classes[0].name
        if self.number is not None:
            return f"{self.number:.6g}"
        return self.items[0].name if self.items else ""


def read_answer(outputs: Mapping[str, Array], labels: Sequence[str], kind: str = "") -> ModelAnswer:
    """Read the answer about one record.

    Outputs are found by name and shape, as ModelValidator finds them.

    Args:
        outputs: Arrays by output; the first dimension of each is the batch, of which there is one.
        labels: The model's class names, in the order of its scores; empty where it carries none.
        kind: What its gate judged it as (`classification`, `regression`, ...); empty where that is not known.
    """
    shown = {name: _json(array) for name, array in sorted(outputs.items())}
    if any(array.ndim and len(array) != 1 for array in outputs.values()):
        return ModelAnswer(outputs=shown)  # of several records
    rows = {name: array.reshape(-1) for name, array in outputs.items()}
    if _ITEM_IDS in rows and "scores" in rows and len(rows[_ITEM_IDS]) == len(rows["scores"]):
        pairs = zip(rows[_ITEM_IDS].tolist(), rows["scores"].tolist(), strict=True)
        items = tuple(ScoredName(_text(name), float(score)) for name, score in pairs if name)
        return ModelAnswer(items=items, outputs=shown)
    classes = () if kind in ("regression", "embedding") else _classes(rows, labels, kind)
    number = None if classes or kind == "embedding" else _number(rows)
    return ModelAnswer(classes, number, palette=_palette(outputs), outputs=shown)


def _classes(rows: Mapping[str, Array], labels: Sequence[str], kind: str) -> tuple[ScoredName, ...]:
    named = next((name for name in _NAMES if name in rows and rows[name].dtype == np.object_), None)
    scores = rows.get("scores")
    if named and scores is not None and len(rows[named]) == len(scores) and "probabilities" not in rows:
        pairs = zip(rows[named].tolist(), scores.tolist(), strict=True)
        found = [ScoredName(_text(name), float(score)) for name, score in pairs]
        return tuple(sorted(found, key=lambda one: -one.score)[:TOP])
    name = next((n for n in _SCORES if n in rows and _is_number(rows[n])), None)
    if name is None and kind in ("classification", "multi_label"):
        floats = [n for n, row in rows.items() if row.dtype.kind == "f"]
        name = floats[0] if len(floats) == 1 else None
    if name is None:
        return ()
    values = rows[name].astype(np.float64)
    if len(values) == 1 and (kind == "classification" or len(labels) == 2):
        values = sigmoid(values) if name in ("logits", "logistic") and not _is_share(values) else values
        values = np.array([1 - values[0], values[0]])
    elif name == "logits":
        values = sigmoid(values) if kind == "multi_label" else softmax(values)
    if len(values) < 2 or (labels and len(labels) != len(values)) or not np.isfinite(values).all():
        return ()
    names = labels or [str(place) for place in range(len(values))]
    best = np.argsort(-values, kind="stable")[:TOP]
    return tuple(ScoredName(names[place], float(values[place])) for place in best.tolist())


def _is_share(values: Array) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def _number(rows: Mapping[str, Array]) -> float | None:
    name = next((n for n in _NUMBERS if n in rows and _is_number(rows[n])), None)
    if name is None:
        numbers = [n for n, row in rows.items() if _is_number(row)]
        name = numbers[0] if len(numbers) == 1 else None
    if name is None or rows[name].size != 1 or not np.isfinite(rows[name].astype(np.float64)).all():
        return None
    return float(rows[name][0])


def _palette(outputs: Mapping[str, Array]) -> tuple[PaletteColor, ...]:
    if _PALETTE not in outputs or _SHARES not in outputs:
        return ()
    colours, shares = outputs[_PALETTE].reshape(-1), outputs[_SHARES].reshape(-1)
    if len(colours) != 3 * len(shares) or not (np.isfinite(colours).all() and np.isfinite(shares).all()):
        return ()
    rounded = np.clip(np.round(colours), 0, 255).astype(int).reshape(-1, 3).tolist()
    pairs = zip(rounded, shares.tolist(), strict=True)
    return tuple(PaletteColor(red, green, blue, share) for (red, green, blue), share in pairs if share > 0)


def _is_number(array: Array) -> bool:
    return array.dtype.kind in "fiu"


def _json(array: Array) -> Any:
    if array.size > _MOST_SHOWN:
        return f"{array.size:,} values, shape {list(array.shape)}"
    if array.dtype == np.object_:
        flat: Any = np.empty(array.size, np.object_)
        flat[:] = [_text(value) for value in array.reshape(-1).tolist()]
        return flat.reshape(array.shape).tolist()
    if array.dtype.kind == "c":
        return [str(value) for value in array.reshape(-1).tolist()]
    return array.astype(np.float64).tolist() if array.dtype.itemsize < 4 else array.tolist()


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
