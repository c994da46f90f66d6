"""Is an index good enough to serve? Absolutely, and beside the one that serves now."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from mlplatform.config import Config
from mlplatform.search.index import SearchIndex
from mlplatform.search.recall import DEPTH

_OVERLAP_QUERIES = 200


class IndexLimits(Config):
    """What an index must reach."""

    # One-sided 95 % lower bound of the share of the exact nearest ten that is found, over held-out photos.
    recall_at_10: float = Field(default=0.98, ge=0, le=1)
    # The same for each class with at least 50 held-out photos, and under filters.
    recall_at_10_of_each: float = Field(default=0.95, ge=0, le=1)
    # CPU of a query, as a share of an exact search's in the same process; not asked of exact indexes.
    cpu_of_exact: float = Field(default=0.5, gt=0)
    # CPU of a query.
    cpu_p50_ms: float = Field(default=50.0, gt=0)
    # Mean average precision of classes among the nearest ten.
    class_map_at_10: float = Field(default=0.0, ge=0, le=1)
    # By how much the number of items may fall below that of the index that serves.
    max_items_drop: float = Field(default=0.2, ge=0, le=1)
    # Share of the serving index's nearest ten that must still be found, of the items that are in both; asked
    # where the embedding is the same.
    min_overlap: float = Field(default=0.9, ge=0, le=1)
    # Share of the records that may be rejected.
    max_reject_fraction: float = Field(default=0.05, ge=0, le=1)


def judge_index(index: SearchIndex, limits: IndexLimits, baseline: SearchIndex | None = None) -> list[str]:
    """Return why an index may not serve, a sentence each; none where it may.

    Args:
        index: The index, opened from disk.
        limits: What it must reach.
        baseline: The index that serves now.
    """
    manifest, report = index.manifest, index.manifest.report
    counts = manifest.counts
    reasons = []
    left = counts.indexed + counts.duplicates + counts.rejected + counts.removed
    if counts.records != left:
        reasons.append(f"{counts.records} records went in, and {left} are accounted for")
    if counts.rejected > limits.max_reject_fraction * counts.records:
        reasons.append(
            f"{counts.rejected} of {counts.records} records were rejected, more than "
            f"{100 * limits.max_reject_fraction:g} %"
        )
    reasons += _of_recall(manifest.kind, report, limits)
    if baseline is not None:
        reasons += _beside(index, baseline, limits)
    return reasons


def _of_recall(kind: str, report: Mapping[str, Any], limits: IndexLimits) -> list[str]:
    if not report.get("queries"):
        return [] if kind == "exact" else ["its recall was not measured"]
    reasons = []
    if not report["recall_at_10_low"] >= limits.recall_at_10:
        reasons.append(
            f"recall at 10 is {report['recall_at_10']:.4f}, at least {report['recall_at_10_low']:.4f} "
            f"(95 %) over {report['queries']} queries, below {limits.recall_at_10}"
        )
    for what in ("by_label", "filtered"):
        worst = min(report[what].items(), key=lambda item: item[1]["low"], default=None)
        if worst is not None and not worst[1]["recall_at_10"] >= limits.recall_at_10_of_each:
            reasons.append(
                f"recall at 10 of {worst[0]} is {worst[1]['recall_at_10']:.4f}, "
                f"below {limits.recall_at_10_of_each}"
            )
    if report["cpu_p50_ms"] > limits.cpu_p50_ms:
        reasons.append(f"a query takes {report['cpu_p50_ms']:.2f} ms of CPU, more than {limits.cpu_p50_ms:g}")
    if kind != "exact" and (report["cpu_of_exact"] or 0.0) > limits.cpu_of_exact:
        reasons.append(
            f"a query takes {report['cpu_of_exact']:.2f} of an exact search's CPU, "
            f"more than {limits.cpu_of_exact:g}"
        )
    figure = report.get("class_map_at_10")
    if limits.class_map_at_10 and (figure is None or figure < limits.class_map_at_10):
        found = "not measured" if figure is None else f"{figure:.4f}"
        reasons.append(f"class MAP at 10 is {found}, below {limits.class_map_at_10}")
    return reasons


def _beside(index: SearchIndex, baseline: SearchIndex, limits: IndexLimits) -> list[str]:
    reasons = []
    before, now = baseline.manifest.entries, index.manifest.entries
    if now < (1 - limits.max_items_drop) * before:
        reasons.append(
            f"it holds {now} items, and the index that serves {before}: a drop of more than "
            f"{100 * limits.max_items_drop:g} %"
        )
    if index.manifest.fingerprint == baseline.manifest.fingerprint:
        overlap = _overlap(index, baseline)
        if overlap is not None and overlap < limits.min_overlap:
            reasons.append(
                f"of what the index that serves finds, and both hold, it finds {100 * overlap:.1f} %, "
                f"less than {100 * limits.min_overlap:g} %"
            )
    return reasons


def _overlap(index: SearchIndex, baseline: SearchIndex) -> float | None:
    """Return the share of the baseline's nearest ten that are among the new index's, of items in both.

    New items between them push none out: as many more are looked at as there are new ones among them.
    """
    count = baseline.manifest.entries
    places = np.unique(np.linspace(0, count - 1, min(count, _OVERLAP_QUERIES), dtype=int))
    shares = []
    for place in places.tolist():
        item_id = baseline.ids[place]
        if not index.ids.entries(item_id):
            continue
        query = baseline.vector(item_id)
        wanted = [i for i in baseline.search(query, DEPTH).item_ids if index.ids.entries(i)]
        found = [i for i in index.search(query, 4 * DEPTH).item_ids if baseline.ids.entries(i)][: len(wanted)]
        if wanted:
            shares.append(len({*wanted} & {*found}) / len(wanted))
    return float(np.mean(shares)) if shares else None
