"""The page of a dataset diff: counts per split and class, pictures of items that came, went and changed."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.progress import Task, track
from mlplatform.reports.page import picture, write_page
from mlplatform.reports.thumbnails import thumbnail

if TYPE_CHECKING:
    from mlplatform.datasets import DatasetStore
    from mlplatform.datasets.diff import VersionDiff

MOST_ITEMS = 24  # shown per kind
MOST_LABELS = 60
_PICTURE_SIDE = 240  # pixels; larger images are made smaller, so that the page stays small
_IMAGE_FEATURES = ("image/encoded", "image_raw", "image")
_HIDDEN = ("image/height", "image/width", "image/format")
_TONES = {"added": "good", "removed": "bad", "changed": "warn", "moved": "warn", "ambiguous": "warn"}
_TITLES = {
    "changed": ("Changed items", "The same key with other content: before, then after."),
    "added": ("Added items", "New in this version."),
    "removed": ("Removed items", "No longer in this version."),
    "moved": ("Moved items", "The same record in another split."),
    "ambiguous": (
        "Ambiguous items",
        "Several records with one key came or went: they are not paired by guess.",
    ),
}


def write_dataset_diff(path: Path, store: "DatasetStore", found: "VersionDiff") -> Path:
    """Write a self-contained page.

    Args:
        path: The HTML file.
        store: The store that the versions are in.
        found: What changed.
    """
    return write_page(path, "dataset_diff.html", **diff_context(store, found))


def diff_context(store: "DatasetStore", found: "VersionDiff") -> dict[str, Any]:
    """Return what a template needs to show a difference, pictures included.

    Args:
        store: The store that the versions are in.
        found: What changed.
    """
    rows = [(text, _with_net(row)) for text, row in found.by_label.items()]
    rows.sort(key=lambda item: (-item[1]["total"], item[0]))
    largest = max((row["total"] for _, row in rows), default=1) or 1
    for _, row in rows:
        row["share"] = round(100 * row["total"] / largest)
    counts = {kind: found.count(kind) for kind in _TONES}
    return {
        "dataset": found.new.dataset,
        "old": found.old,
        "new": found.new,
        "key": found.key,
        "label": found.label,
        "counts": {**counts, "unchanged": found.unchanged},
        "tones": _TONES,
        "by_split": found.by_split,
        "split_columns": ("added", "removed", "changed", "ambiguous", "moved_in", "moved_out", "unchanged"),
        "by_label": rows[:MOST_LABELS],
        "label_columns": ("added", "removed", "changed", "relabelled_in", "relabelled_out"),
        "labels_left_out": max(0, len(rows) - MOST_LABELS),
        "sections": [_section(kind, store, found) for kind in _TITLES if counts[kind]],
    }


def _with_net(row: dict[str, int]) -> dict[str, int]:
    net = row["added"] - row["removed"] + row["relabelled_in"] - row["relabelled_out"]
    return {**row, "net": net, "total": row["added"] + row["removed"] + row["changed"]}


def _section(kind: str, store: "DatasetStore", found: "VersionDiff") -> dict[str, Any]:
    title, lead = _TITLES[kind]
    chosen = found.sample(kind, MOST_ITEMS)
    places = [place for item in chosen for place in (item.before, item.after) if place is not None]
    with track(f"draw {kind} items", len(places), "records") as bar:
        sides = iter([_side(payload, found, bar) for payload in store.payloads(found, places)])
    total = found.count(kind)
    shown = f" {len(chosen)} of {total:,} are shown, spread over the classes." if len(chosen) < total else ""
    return {
        "title": title,
        "lead": lead + shown,
        "cards": [
            {
                "key": ", ".join(item.key),
                "sides": [
                    {**next(sides), "caption": f"{label or '(no class)'} · {place.split}"}
                    for place, label in ((item.before, item.label_before), (item.after, item.label_after))
                    if place is not None
                ],
            }
            for item in chosen
        ],
    }


def _side(payload: bytes, found: "VersionDiff", bar: Task) -> dict[str, Any]:
    bar.advance()
    return record_card(payload, {*found.key, found.label})


def record_card(payload: bytes, hidden: Collection[str] = ()) -> dict[str, Any]:
    """Return a record as a card shows it: `picture`, a data URI or None, and `features`, names and texts.

    Args:
        payload: The serialized tf.Example.
        hidden: Features that are shown elsewhere.
    """
    from mlplatform.datasets.format.features import record_features, show

    features = record_features(payload)
    image = next((features[name] for name in _IMAGE_FEATURES if name in features), None)
    drawn = _drawn(image) if image is not None else None
    hidden = {*_HIDDEN, *hidden, *(_IMAGE_FEATURES if drawn else ())}
    texts = [(name, show(value)) for name, value in sorted(features.items()) if name not in hidden]
    return {
        "picture": drawn,
        "features": [(name, text if len(text) < 60 else text[:57] + "...") for name, text in texts[:12]],
    }


def _drawn(feature: bytes) -> str | None:
    """Return an image feature as a small JPEG; None where it is not an image."""
    from mlplatform.datasets.format.features import decode

    values = decode(feature)
    if not values or not isinstance(values[0], bytes):
        return None
    small = thumbnail(values[0], _PICTURE_SIDE)
    return picture(small) if small else None
