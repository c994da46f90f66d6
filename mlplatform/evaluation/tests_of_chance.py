"""Exact tests of counts: whether chance explains them, also where many are tested at once."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_TERMS = 60  # of a Poisson tail above its mean: they fall at least as quickly as a geometric series


def binomial_tails(hits: npt.ArrayLike, records: npt.ArrayLike, share: float) -> Floats:
    """Return the probabilities of at most `hits` of `records`, each of which hits with probability `share`.

    Args:
        hits: int [n], 0 to `records`.
        records: int [n].
        share: 0 to 1.

    Returns:
        float64 [n], 0 to 1.
    """
    counts, totals = np.asarray(hits, np.int64), np.asarray(records, np.int64)
    if share <= 0:
        return np.ones(len(counts))
    if share >= 1:
        return (counts >= totals).astype(np.float64)
    logs = _log_factorials(int(totals.max(initial=0)))
    win, lose = math.log(share), math.log1p(-share)
    found = np.empty(len(counts))
    for place, (most, total) in enumerate(zip(counts.tolist(), totals.tolist(), strict=True)):
        k = np.arange(most + 1)
        terms = logs[total] - logs[k] - logs[total - k] + k * win + (total - k) * lose
        found[place] = min(float(np.exp(terms).sum()), 1.0)
    return found


def fisher_tails(hits: npt.ArrayLike, other_hits: npt.ArrayLike, records: npt.ArrayLike) -> Floats:
    """Return the p-values of Fisher's exact test that one model hits less often than another.

    Args:
        hits: int [n]: records that the model hits.
        other_hits: int [n]: records that the other one hits.
        records: int [n]: records that each of the two was asked about.

    Returns:
        float64 [n]: the probability of `hits` or fewer where both hit equally often.
    """
    totals = np.asarray(records, np.int64)
    logs = _log_factorials(2 * int(totals.max(initial=0)))
    found = np.empty(len(totals))
    rows = zip(np.asarray(hits).tolist(), np.asarray(other_hits).tolist(), totals.tolist(), strict=True)
    for place, (one, other, total) in enumerate(rows):
        together = one + other
        k = np.arange(max(together - total, 0), one + 1)
        ways = 2 * logs[total] - logs[k] - logs[total - k] - logs[together - k] - logs[total - together + k]
        all_ways = logs[2 * total] - logs[together] - logs[2 * total - together]
        found[place] = min(float(np.exp(ways - all_ways).sum()), 1.0)
    return found


def log_hypergeometric_tail(both: int, one: int, other: int, records: int) -> float:
    """Return the natural logarithm of the probability that so few records have two properties at once.

    Args:
        both: Records that have both.
        one: Those that have the first, 0 to `records`.
        other: Those that have the second, 0 to `records`.
        records: All of them.

    Returns:
        At most 0: of `both` or fewer, where the two properties have nothing to do with each other.
    """
    logs = _log_factorials(records)
    k = np.arange(max(one + other - records, 0), both + 1)
    ways = logs[one] - logs[k] - logs[one - k] + logs[records - one] - logs[other - k]
    ways -= logs[records - one - other + k] + logs[records] - logs[other] - logs[records - other]
    return min(float(np.logaddexp.reduce(ways)), 0.0)


def poisson_tails(counts: npt.ArrayLike, means: npt.ArrayLike) -> Floats:
    """Return the natural logarithms of the probabilities of `counts` or more where `means` are expected.

    Args:
        counts: int [n], 0 or more.
        means: float [n], above 0.

    Returns:
        float64 [n], at most 0; 0 where no more was counted than expected.
    """
    k, mean = np.asarray(counts, np.int64), np.maximum(np.asarray(means, np.float64), 1e-12)
    logs = _log_factorials(int(k.max(initial=0)))
    first = k * np.log(mean) - mean - logs[k]
    # The terms after the first, as shares of it.
    steps = mean[:, None] / (k[:, None] + np.arange(1, _TERMS + 1))
    more = np.cumprod(np.minimum(steps, 1.0), axis=1).sum(axis=1)
    return np.asarray(np.where(k > mean, np.minimum(first + np.log1p(more), 0.0), 0.0))


def fisher_combined(one: npt.ArrayLike, other: npt.ArrayLike) -> Floats:
    """Return the logarithms of the joint p-values of two independent tests each, by Fisher's method.

    Args:
        one: float [n]: natural logarithms of the p-values of the first test, at most 0.
        other: float [n]: those of the second.

    Returns:
        float64 [n], at most 0. Source: twice the sum is chi-squared with four degrees of freedom.
    """
    total = np.asarray(one, np.float64) + np.asarray(other, np.float64)
    return np.asarray(total + np.log1p(-total))


def holm(p_values: npt.ArrayLike, error_rate: float) -> npt.NDArray[np.bool_]:
    """Return which of several tests reject, by Holm's method: any wrong one with at most `error_rate`."""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    passes = values[order] <= error_rate / (len(values) - np.arange(len(values)))
    found = np.zeros(len(values), np.bool_)
    found[order[np.cumprod(passes).astype(np.bool_)]] = True
    return found


def benjamini_hochberg(log_p_values: npt.ArrayLike, tests: int, rate: float) -> npt.NDArray[np.bool_]:
    """Return which tests reject, by Benjamini and Hochberg: at most the share `rate` of them is wrong.

    Args:
        log_p_values: float [n]: natural logarithms of the p-values of those that may reject.
        tests: How many tests there are altogether, n or more; the others have p-values of 1.
        rate: The false discovery rate, above 0 to 1.
    """
    values = np.asarray(log_p_values, np.float64)
    order = np.argsort(values, kind="stable")
    limits = np.log(rate * np.arange(1, len(values) + 1)) - math.log(max(tests, 1))
    below = np.flatnonzero(values[order] <= limits)
    found = np.zeros(len(values), np.bool_)
    if below.size:
        found[order[: below[-1] + 1]] = True
    return found


def _log_factorials(most: int) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
