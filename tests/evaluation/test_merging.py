"""Tallies of parts of the records, merged in any order, give the figures of one tally of all of them."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.evaluation.classification import Classification
from mlplatform.evaluation.embedding import Embedding
from mlplatform.evaluation.multi_label import MultiLabel
from mlplatform.evaluation.regression import Regression
from mlplatform.evaluation.sample import Sample
from mlplatform.pipelines.item_color.kind import ColorName

CLASSES = ("red", "green", "blue")
# What records are labelled with: the model does not know the last two.
LABELS = (*CLASSES, "vase", "cup")


def classes(random, records):
    scores = random.dirichlet(np.ones(3), records)
    scores[random.random(records) < 0.05] = np.nan
    return {"probabilities": scores}, [(LABELS[n].encode(),) for n in random.integers(0, 5, records)]


def two_classes(random, records):
    return {"probabilities": random.random(records)}, [(int(n),) for n in random.integers(0, 2, records)]


def best_classes(random, records):
    order = np.argsort(random.random((records, 4)), axis=1)[:, :3]
    names = np.array([name.encode() for name in LABELS[:4]], object)[order]
    scores = -np.sort(-random.random((records, 3)), axis=1)
    outputs = {"classes": names, "scores": scores}
    return outputs, [(LABELS[n].encode(),) for n in random.integers(0, 5, records)]


def colours(random, records):
    outputs, truths = classes(random, records)
    rules = np.array([CLASSES[n].encode() for n in random.integers(0, 3, records)], object)
    return {**outputs, "rules": rules}, [(CLASSES[len(truth[0]) % 3].encode(),) for truth in truths]


def labels(random, records):
    truths = [tuple(LABELS[n].encode() for n in {*random.integers(0, 5, 2)}) for _ in range(records)]
    return {"probabilities": random.random((records, 3))}, truths


def numbers(random, records):
    return {"predictions": random.normal(1e6, 3, records)}, [
        (float(n),) for n in random.normal(1e6, 3, records)
    ]


def vectors(random, records):
    return {"embedding": random.normal(size=(records, 4))}, [
        (int(n),) for n in random.integers(0, 3, records)
    ]


KINDS = {
    "classes": (Classification(), CLASSES, classes),
    "two classes": (Classification(), (), two_classes),
    "best classes": (Classification(), (), best_classes),
    "colours": (ColorName(), CLASSES, colours),
    "labels": (MultiLabel(), CLASSES, labels),
    "numbers": (Regression(), (), numbers),
    "vectors": (Embedding(), (), vectors),
}


@pytest.mark.parametrize("which", KINDS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5), data=st.data())
def test_merged_parts_are_the_whole(which, seed, sizes, data):
    kind, names, made = KINDS[which]
    outputs, truths = made(np.random.default_rng(seed), sum(sizes) + 1)
    whole, parts = kind.tally(names), []
    begin = 0
    for size in (*sizes, 1):  # the last one, so that there is a record
        rows = slice(begin, begin + size)
        part = {name: array[rows] for name, array in outputs.items()}
        parts.append(kind.tally(names))
        if size:
            whole.add(part, truths[rows])
            parts[-1].add(part, truths[rows])
        begin += size
    merged = kind.tally(names)
    for part in data.draw(st.permutations(parts)):
        merged.merge(pickle.loads(pickle.dumps(part)))  # as it comes from a worker
    assert close(facts(merged), facts(whole))


def facts(tally):
    """What a tally found, without the order in which it met the classes."""
    figures = {
        name: (f.as_json(), f.naive, sorted((p.words, p.value) for p in f.parts or ()))
        for name, f in tally.figures().items()
    }
    return {
        "figures": figures,
        "details": dict(tally.details()),
        "notes": [*tally.notes()],
        "faults": [*tally.faults()],
        "sections": [section.title for section in tally.sections()],
    }


def close(one, other):
    """Equal, numbers up to the rounding of sums."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-9, abs=1e-9, nan_ok=True)
    return one == other


def test_a_sample_of_parts_is_one_of_all_in_any_order():
    parts = []
    for begin in (0, 1000, 2000):
        part = Sample(50)
        for row in range(begin, begin + 1000, 100):
            part.add([*range(row, row + 100)])
        parts.append(part)
    found = []
    for order in ((0, 1, 2), (2, 0, 1)):
        merged = Sample(50)
        for number in order:
            merged.merge(parts[number])
        found.append(merged.rows)
    assert found[0] == found[1]
    assert len(found[0]) == 50
    assert {row // 1000 for row in found[0]} == {0, 1, 2}
