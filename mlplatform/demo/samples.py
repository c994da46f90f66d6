"""Held-out records of the data that a version was trained on, to ask it about and to show."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.format.features import decode, record_features, show
from mlplatform.demo.facts import ModelFacts
from mlplatform.demo.forms import IMAGE, in_words
from mlplatform.errors import MlplatformError

_KEYS = ("item_id", "id", "path")
_FEATURES_SHOWN = 12


@dataclass(frozen=True)
class HeldOutRecord:
    """A held-out record.

    Attributes:
        number: Its place among the samples, from 0.
        split: Its split.
        payload: The serialized tf.Example.
        truth_name: The feature that holds its truth; empty where none is known.
    """

    number: int
    split: str
    payload: bytes
    truth_name: str = ""

    @cached_property
    def features(self) -> Mapping[str, bytes]:
        """Its serialized features by name."""
        return record_features(self.payload)

    @property
    def truths(self) -> tuple[str, ...]:
        """The answers that are right, in words; none where that is not known."""
        return tuple(map(in_words, decode(self.features.get(self.truth_name, b""))))

    @property
    def truth(self) -> str:
        """Its truth, in words; empty where it has none."""
        return ", ".join(self.truths)

    @property
    def key(self) -> str:
        """What a person finds it by."""
        named = next((show(self.features[name]) for name in _KEYS if name in self.features), "")
        return named or f"record {self.number + 1}"

    @property
    def photo(self) -> bytes:
        """Its photo; empty where it has none."""
        values = decode(self.features.get(IMAGE, b""))
        return values[0] if values and isinstance(values[0], bytes) else b""

    @property
    def words(self) -> list[tuple[str, str]]:
        """Its other features in words."""
        names = [name for name in sorted(self.features) if not name.startswith("image/")]
        return [(name, show(self.features[name])) for name in names if name not in (self.truth_name, *_KEYS)][
            :_FEATURES_SHOWN
        ]


def held_out(facts: ModelFacts, count: int, seed: int = 1) -> list[HeldOutRecord]:
    """Return records that the version was not trained on, chosen by a seed; none where the data is not there.

    They are of the splits that it was evaluated on, where these are known.
    """
    if facts.data is None:
        return []
    evaluated = facts.evaluation.splits if facts.evaluation else ()
    splits = [split for split in evaluated if split in facts.data.splits]
    store = DatasetStore(facts.home.datasets)
    try:
        found = store.sample(facts.data.dataset, facts.data.version, count, splits=splits or None, seed=seed)
    except (MlplatformError, OSError):  # damaged, or deleted since
        return []
    return [HeldOutRecord(number, one.split, one.payload, facts.truth) for number, one in enumerate(found)]
