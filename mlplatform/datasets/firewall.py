"""The split firewall: an item that was held out for evaluation never enters training in a later version."""

from collections.abc import Callable, Sequence

import numpy as np

from mlplatform.datasets.errors import LookAlikeFirewallError, SplitFirewallError
from mlplatform.datasets.format.features import decode, feature_values, show
from mlplatform.datasets.format.live import HELD_OUT, Bools, Live, Rows, union
from mlplatform.datasets.format.manifest import Declared, PackFacts
from mlplatform.datasets.format.pack import read_index
from mlplatform.datasets.format.pack_records import read_batches
from mlplatform.datasets.format.tfrecord import Int64s, UInt64s
from mlplatform.datasets.keys import key_hashes
from mlplatform.datasets.line import Line

_NAMED = 10  # records that an error names
_PHOTO = "image/encoded"

Found = dict[str, Int64s]  # pack name -> rows


def held_out_rows(before: Live, live: Live, training_splits: Sequence[str]) -> Live:
    """Return the records that any version up to this one held out of training, under `HELD_OUT`.

    Args:
        before: Rows of the version before.
        live: Rows of the version to be.
        training_splits: Splits of the version to be that are trained on.
    """
    masks: dict[str, list[Bools]] = {}
    was_out = [(pack, rows) for (split, pack), rows in before.items() if split == HELD_OUT]
    is_out = [(pack, rows) for (split, pack), rows in live.items() if split not in training_splits]
    for pack, rows in [*was_out, *is_out]:
        masks.setdefault(pack, []).append(rows.is_live)
    return {(HELD_OUT, pack): Rows(union(found, found[0].size)) for pack, found in masks.items()}


def check_by_content(
    line: Line, packs: Sequence[PackFacts], before: Live, live: Live, declared: Declared
) -> None:
    """Check that no record that was held out in an earlier version enters training.

    A record enters training where it is in a training split now and was not in one of the version before.

    Args:
        line: The versions so far.
        packs: Packs that `live` is of.
        before: Rows of the version before.
        live: Rows of the version to be.
        declared: Training splits, and the key to name records by, of the version to be.

    Raises:
        SplitFirewallError: Some do; names them.
    """
    held_out, _, entering = _masks(line, before, live, declared)
    found = {
        pack: np.flatnonzero(mask & held_out[pack]) for pack, mask in entering.items() if pack in held_out
    }
    _require_none(line, packs, found, declared.key)


def check_by_key(
    line: Line, packs: Sequence[PackFacts], before: Live, live: Live, declared: Declared
) -> None:
    """Check that no item that was held out in an earlier version enters training.

    An item enters training where its key is in a training split now and was not in one of the version before.

    Args:
        line: The versions so far.
        packs: Known packs and then new ones, all written.
        before: Rows of the version before.
        live: Rows of the version to be.
        declared: Training splits and key of the version to be.

    Raises:
        SplitFirewallError: Some do; names them.
    """
    held_out, trained, entering = _masks(line, before, live, declared)
    if declared.key and held_out:
        by_pack = {pack.name: pack for pack in packs}
        found = _by_key(line, by_pack, trained, entering, held_out, declared.key)
        _require_none(line, packs, found, declared.key)


def check_by_look(
    line: Line, packs: Sequence[PackFacts], before: Live, live: Live, declared: Declared
) -> None:
    """Check that no photo is trained on that looks like one which is held out, here or in an earlier version.

    All photos of the version are read and decoded, in this process.

    Args:
        line: The versions so far.
        packs: Known packs and then new ones, all written.
        before: Rows of the version before.
        live: Rows of the version to be.
        declared: Training splits and key of the version to be.

    Raises:
        LookAlikeFirewallError: Some are; names them.
    """
    from mlplatform.datasets.duplicates import alike, photo_hash  # Pillow, for this check alone

    by_pack = {pack.name: pack for pack in packs}
    trained = _training(live, declared.training_splits)
    held_out = {
        pack: rows.is_live & ~trained.get(pack, np.zeros(rows.is_live.size, np.bool_))
        for (_, pack), rows in held_out_rows(before, live, declared.training_splits).items()
    }
    places: list[tuple[str, int, bool]] = []  # pack, row, whether it is trained on
    hashes: list[bytes] = []
    for masks, is_trained in ((trained, True), (held_out, False)):
        for pack, mask in masks.items():
            for batch in read_batches(line.storage, line.dataset, by_pack[pack], np.flatnonzero(mask)):
                photos = feature_values(batch.buffer, batch.starts, batch.ends, [_PHOTO])
                for row, value in zip(batch.rows.tolist(), photos, strict=True):
                    content = decode(value[0])[0] if value else b""
                    found = photo_hash(content) if isinstance(content, bytes) else None
                    if found is not None:
                        places.append((pack, row, is_trained))
                        hashes.append(found)
    guilty: dict[str, list[int]] = {}
    for group in alike(hashes):
        if len({places[place][2] for place in group}) > 1:
            for pack, row, is_trained in (places[place] for place in group):
                if is_trained:
                    guilty.setdefault(pack, []).append(row)
    if guilty:
        rows = {pack: np.array(sorted(some), np.int64) for pack, some in guilty.items()}
        names = _names(line, by_pack, rows, declared.key)
        raise LookAlikeFirewallError(line.dataset, names, sum(map(len, guilty.values())))


def _masks(
    line: Line, before: Live, live: Live, declared: Declared
) -> tuple[dict[str, Bools], dict[str, Bools], dict[str, Bools]]:
    """Return what was held out, what was trained on, and what enters training: a mask per pack."""
    held_out = {
        pack: rows.is_live
        for (split, pack), rows in before.items()
        if split == HELD_OUT and rows.is_live.any()
    }
    trained = _training(before, line.latest.training_splits if line.latest else [])
    entering = _training(live, declared.training_splits)
    for pack, mask in trained.items():
        if pack in entering:
            entering[pack] = entering[pack] & ~mask
    return held_out, trained, entering


def _require_none(line: Line, packs: Sequence[PackFacts], found: Found, key: Sequence[str]) -> None:
    total = sum(rows.size for rows in found.values())
    if total:
        names = _names(line, {pack.name: pack for pack in packs}, found, key)
        raise SplitFirewallError(line.dataset, names, total)


def _training(live: Live, training_splits: Sequence[str]) -> dict[str, Bools]:
    masks: dict[str, list[Bools]] = {}
    for (split, pack), rows in live.items():
        if split in training_splits:
            masks.setdefault(pack, []).append(rows.is_live)
    return {pack: union(found, found[0].size) for pack, found in masks.items()}


def _by_key(
    line: Line,
    by_pack: dict[str, PackFacts],
    trained: dict[str, Bools],
    entering: dict[str, Bools],
    held_out: dict[str, Bools],
    key: Sequence[str],
) -> Found:
    """Return the entering records whose key was held out and not trained on."""
    coming = {pack: mask for pack, mask in entering.items() if mask.any()}
    if not coming:
        return {}

    def hashes(pack: str) -> UInt64s:  # a pack at a time: 8 bytes a record
        return key_hashes(line.storage, line.dataset, [by_pack[pack]], key)[pack]

    out = np.unique(np.concatenate([hashes(pack)[mask] for pack, mask in held_out.items()]))
    suspects: Found = {}
    wanted: list[UInt64s] = []
    for pack, mask in coming.items():
        of_pack = hashes(pack)
        rows = np.flatnonzero(mask & (of_pack != 0))
        rows = rows[np.isin(of_pack[rows], out)]
        if rows.size:
            suspects[pack] = rows
            wanted.append(of_pack[rows])
    if not suspects:
        return {}
    # Equal hashes are not yet equal keys: compare the keys themselves.
    were_out = _keys_of(line, by_pack, held_out, hashes, np.concatenate(wanted), key)
    were_trained = _keys_of(line, by_pack, trained, hashes, np.concatenate(wanted), key)
    found = {}
    for pack, rows in suspects.items():
        guilty = [
            row
            for batch in read_batches(line.storage, line.dataset, by_pack[pack], rows)
            for row, value in zip(
                batch.rows.tolist(), feature_values(batch.buffer, batch.starts, batch.ends, key), strict=True
            )
            if value is not None and value in were_out and value not in were_trained
        ]
        found[pack] = np.array(guilty, np.int64)
    return found


def _keys_of(
    line: Line,
    by_pack: dict[str, PackFacts],
    masks: dict[str, Bools],
    hashes: Callable[[str], UInt64s],
    wanted: UInt64s,
    key: Sequence[str],
) -> set[tuple[bytes, ...] | None]:
    keys: set[tuple[bytes, ...] | None] = set()
    for pack, mask in masks.items():
        rows = np.flatnonzero(mask & np.isin(hashes(pack), wanted))
        for batch in read_batches(line.storage, line.dataset, by_pack[pack], rows):
            keys.update(feature_values(batch.buffer, batch.starts, batch.ends, key))
    return keys


def _names(line: Line, by_pack: dict[str, PackFacts], found: Found, key: Sequence[str]) -> list[str]:
    names: list[str] = []
    for pack, rows in found.items():
        some = rows[: _NAMED - len(names)]
        ids = read_index(line.storage, line.dataset, by_pack[pack]).ids[some].names()
        shown = ids
        if key:
            shown = []
            for batch in read_batches(line.storage, line.dataset, by_pack[pack], some):
                values = feature_values(batch.buffer, batch.starts, batch.ends, key)
                for value in values:
                    text = ", ".join(
                        f"{name}={show(part)}"
                        for name, part in zip(key, value or [None] * len(key), strict=True)
                    )
                    shown.append(text)
            shown = [f"{text} (record {name})" for text, name in zip(shown, ids, strict=True)]
        else:
            shown = [f"record {name}" for name in ids]
        names += shown
        if len(names) >= _NAMED:
            break
    return names
