"""Figures with their intervals, and histograms of scores that metrics of rankings are computed from."""

import math

import numpy as np

from mlplatform.evaluation.kind import Array, Figure

_Z = 1.959964  # two-sided 95 %
SCORE_BINS = 2048
_LARGEST_LOGIT = 16.0  # odds of 9 million to 1: beyond it scores share a bin


def share(hits: int, records: int) -> Figure:
    """Return the share `hits / records` with Wilson's score interval; 0 of 0 is anything from 0 to 1."""
    if records == 0:
        return Figure(0.0, 0.0, 1.0)
    value, z2 = hits / records, _Z**2 / records
    centre = (value + z2 / 2) / (1 + z2)
    half = _Z * math.sqrt(value * (1 - value) / records + z2 / records / 4) / (1 + z2)
    return Figure(value, max(centre - half, 0.0), min(centre + half, 1.0))


def mean(total: float, squares: float, records: int) -> Figure:
    """Return a mean with its interval, from the sum of the values and of their squares (normal, by size)."""
    if records == 0:
        return Figure(math.nan)
    value = total / records
    deviation = math.sqrt(max(squares / records - value**2, 0.0))
    half = _Z * deviation / math.sqrt(records)
    return Figure(value, value - half, value + half)


def score_bin(probabilities: Array) -> Array:
    """Return the bin of each probability, int, 0 to `SCORE_BINS` - 1, the same order as the probabilities.

    Bins are equally wide in the log-odds, so that scores near 0 and 1 are resolved as finely as others.
    """
    inner = np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
    logits = np.clip(np.log(inner) - np.log1p(-inner), -_LARGEST_LOGIT, _LARGEST_LOGIT)
    scaled = (logits + _LARGEST_LOGIT) / (2 * _LARGEST_LOGIT) * SCORE_BINS
    return np.asarray(np.minimum(scaled.astype(np.int64), SCORE_BINS - 1))


def area_under_roc(positives: Array, negatives: Array) -> float:
    """Return the share of pairs (positive, negative) that are ordered rightly; ties count half.

    Args:
        positives: Positive records per score bin, lowest scores first.
        negatives: Negative records, likewise.

    Returns:
        0 to 1; NaN where one of the two is empty.
    """
    pairs = float(positives.sum()) * float(negatives.sum())
    if not pairs:
        return math.nan
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2.0)).sum() / pairs)


def average_precision(positives: Array, negatives: Array) -> Array:
    """Return the mean precision at each positive record, ranked by score; equal bins rank together.

    Args:
        positives: Positive records per score bin in the last dimension, lowest scores first.
        negatives: Negative records, likewise.

    Returns:
        float64, one per row; NaN where there is no positive record.
    """
    above = np.cumsum(positives[..., ::-1], axis=-1, dtype=np.float64)
    others = np.cumsum(negatives[..., ::-1], axis=-1, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = above / (above + others)
        gains = np.where(positives[..., ::-1] > 0, positives[..., ::-1] * precision, 0.0)
        return np.asarray(gains.sum(axis=-1) / positives.sum(axis=-1))
