"""The pages about datasets: all of them, one, a version, a difference, and one record."""

from dataclasses import asdict
from typing import Any

from mlplatform.datasets.format.manifest import Manifest
from mlplatform.errors import MlplatformError
from mlplatform.reports.dataset_diff_page import diff_context, record_card
from mlplatform.ui.site import BadQueryError, Data, PageNotFoundError, Request, Site

_CLASSES_SHOWN = 60
_MOST_COUNTED = 200_000  # records of a version whose classes are counted for a page
_VERSIONS_COUNTED = 8
_VERSIONS_SHOWN = 200


def datasets(site: Site, request: Request) -> Data:
    """All datasets, each with its newest version."""
    del request
    rows, damaged = [], []
    for name in site.datasets.names():
        try:
            rows.append({"dataset": name, **_row(site.datasets.show(name))})
        except MlplatformError as error:
            damaged.append({"dataset": name, "problem": str(error)})
    return {"datasets": rows, "damaged": damaged}


def dataset(site: Site, request: Request) -> Data:
    """One dataset: its versions, the classes of the newest ones, tags, verdicts and who used it."""
    name = site.dataset(request)
    versions = site.datasets.log(name)
    tags = {tag: manifest.version for tag, manifest in site.datasets.tags(name).items()}
    counted = [m for m in versions[:_VERSIONS_COUNTED] if m.records <= _MOST_COUNTED and m.label]
    classes = {m.version: site.datasets.class_counts(name, m.version) for m in reversed(counted)}
    return {
        "dataset": name,
        "versions": [
            _row(manifest) | {"tags": sorted(t for t, v in tags.items() if v == manifest.version)}
            for manifest in versions[:_VERSIONS_SHOWN]
        ],
        "left_out": max(0, len(versions) - _VERSIONS_SHOWN),
        "label": versions[0].label,
        "classes": _by_class(classes),
        "class_versions": list(classes),
        "class_splits": {v: {s: sum(c.values()) for s, c in by.items()} for v, by in classes.items()},
        "uses": [asdict(use) for use in reversed(site.datasets.uses(name))][:100],
    }


def version(site: Site, request: Request) -> Data:
    """One version: splits, classes by split, where it came from, and what was made from it."""
    name, manifest = _manifest(site, request)
    counts = site.datasets.class_counts(name, manifest.version) if manifest.records <= _MOST_COUNTED else {}
    uses = [asdict(use) for use in site.datasets.uses(name) if use.version == manifest.version]
    node = f"dataset:{name}@{manifest.version}"
    used_by = [edge.target for edge in site.graph().edges_of(node) if edge.source == node]
    before = f"v{manifest.number - 1}" if manifest.number > 1 else ""
    return {
        "dataset": name,
        **_row(manifest),
        "before": before,
        "key": manifest.key,
        "label": manifest.label,
        "training_splits": manifest.training_splits,
        "erased": site.datasets.erased(name, manifest.version),
        "classes": _by_class(counts),
        "split_names": list(manifest.splits),
        "uses": uses,
        "runs": sorted({each.partition(":")[2] for each in used_by if each.startswith("run:")}),
        "models": sorted({each.partition(":")[2] for each in used_by if each.startswith("model:")}),
    }


def difference(site: Site, request: Request) -> Data:
    """What changed between two versions: counts by split and class, and the items with their photos."""
    name = site.dataset(request)
    versions = {manifest.version for manifest in site.datasets.log(name)}
    for which in ("old", "new"):
        if request.get(which) not in versions:
            raise BadQueryError(which, request.get(which), f"a version of {name}, such as v1")
    found = site.datasets.diff(name, request.get("old"), request.get("new"))
    data = diff_context(site.datasets, found)
    return data | {
        "old": _row(found.old),
        "new": _row(found.new),
        "key": list(found.key),
        "versions": sorted(versions, key=lambda v: int(v[1:])),
    }


def record(site: Site, request: Request) -> Data:
    """One item: its records with photos, versions and splits, and the models that saw it."""
    name, key = site.dataset(request), request.get("key")[:1000]
    data: Data = {"dataset": name, "key": key, "records": [], "copies": [], "made": [], "erased": []}
    if not key:
        return data | {"found_in": [], "key_features": site.datasets.show(name).key}
    found = site.datasets.blame(name, key)
    cards = [record_card(payload) for payload in site.datasets.blamed_payloads(name, found)]
    graph = site.graph()
    made: dict[str, dict[str, Any]] = {}
    for version in found.versions:
        part = graph.around(f"dataset:{name}@{version}", "down")
        for node in part.nodes.values():
            if node.kind in ("run", "model"):
                made.setdefault(node.id, {**node.as_json(), "versions": []})["versions"].append(version)
    return data | {
        "key_features": list(found.key),
        "found_in": list(found.found_in),
        "records": [{**asdict(one), "card": card} for one, card in zip(found.records, cards, strict=True)],
        "copies": [asdict(copy) for copy in found.copies],
        "uses": [asdict(use) for use in found.uses],
        "made": sorted(made.values(), key=lambda each: (each["kind"] != "model", each["id"])),
        "erased": [{"at": one.at, "why": one.why} for one in found.erased],
    }


def _manifest(site: Site, request: Request) -> tuple[str, Manifest]:
    name, wanted = site.dataset(request), request.names["version"]
    for manifest in site.datasets.log(name):
        if manifest.version == wanted:
            return name, manifest
    tagged = site.datasets.tags(name).get(wanted)
    if tagged is None:
        raise PageNotFoundError(f"version {wanted[:80]!r} of dataset {name}")
    return name, tagged


def _row(manifest: Manifest) -> dict[str, Any]:
    return {
        "version": manifest.version,
        "digest": manifest.digest,
        "created_at": manifest.created_at,
        "created_by": manifest.created_by,
        "message": manifest.message,
        "source": manifest.source,
        "records": manifest.records,
        "splits": {name: split.records for name, split in manifest.splits.items()},
        "added": manifest.added,
        "removed": manifest.removed,
        "stored_bytes": manifest.stored_bytes,
    }


def _by_class(counts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row per class, the largest first, with its count in each column of `counts`.

    Args:
        counts: By column, the records of each class, or of each split and class.
    """
    columns = {}
    for column, found in counts.items():
        flat: dict[str, int] = {}
        for label, count in found.items():
            for name, number in count.items() if isinstance(count, dict) else ((label, count),):
                flat[name] = flat.get(name, 0) + number
        columns[column] = flat
    labels = {label for found in columns.values() for label in found}
    rows = {label: [found.get(label, 0) for found in columns.values()] for label in labels}
    ranked = sorted(rows, key=lambda label: (-max(rows[label]), label))
    return [{"label": label, "counts": rows[label]} for label in ranked[:_CLASSES_SHOWN]]
