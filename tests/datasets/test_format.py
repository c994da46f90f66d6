"""The files are what the reference says: read here with the standard library and BLAKE3."""

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from blake3 import blake3

from mlplatform.cli.datasets import datasets
from mlplatform.datasets import DatasetStore
from mlplatform.datasets.format import digest
from mlplatform.datasets.format.digest import split_digest
from mlplatform.datasets.format.hashing import Ids

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def test_a_reader_made_from_the_document_reads_a_version(
    tmp_path: Path, write_examples: Callable[..., Path], store: DatasetStore
) -> None:
    records = {"train": [b"one", b"two", b"two", b""], "eval": [b"three"]}
    store.commit("d", write_examples(tmp_path / "a", {split: [found] for split, found in records.items()}))
    folder = Path(store.url) / "d"
    text = (folder / "versions" / "v1.json").read_text()
    manifest = json.loads(text)
    seal = manifest.pop("sha256")
    assert hashlib.sha256(json.dumps(manifest, indent=1, ensure_ascii=False).encode()).hexdigest() == seal

    ids_of, payloads_of = {}, {}
    for pack in manifest["packs"]:
        data = (folder / "packs" / f"{pack['name']}.index").read_bytes()
        magic, version, is_gzip, zero, n = struct.unpack_from("<8sHHIQ", data)
        assert (magic, version, is_gzip, zero, n) == (b"MLPKIDX\0", 1, 0, 0, pack["records"])
        file_sha256 = data[24:56]
        ids = [data[56 + 16 * row : 72 + 16 * row] for row in range(n)]
        sizes = struct.unpack_from(f"<{n}I", data, 56 + 16 * n)
        assert data[-4:] == struct.pack("<I", zlib.crc32(data[:-4]))
        assert hashlib.sha256(data).hexdigest() == pack["index_sha256"]
        name = hashlib.sha256(b"".join(ids) + struct.pack(f"<{n}I", *sizes) + file_sha256).hexdigest()[:32]
        assert name == pack["name"]
        frames, at, payloads = (folder / "packs" / f"{name}.tfrecord").read_bytes(), 0, []
        for size in sizes:
            payloads.append(frames[at + 12 : at + 12 + size])
            at += size + 16
        assert at == len(frames)
        assert ids == [blake3(payload).digest(16) for payload in payloads]
        ids_of[name], payloads_of[name] = ids, payloads

    data = (folder / "bitmaps" / manifest["bitmaps"]).read_bytes()
    assert data[:8] == b"MLPLIVE1"
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    found: dict[str, list[tuple[bytes, bytes]]] = {}
    at = 8
    while at < len(data) - 32:
        name_bytes, place, bits_bytes, repeats_bytes = struct.unpack_from("<HIQQ", data, at)
        at += 22
        split = data[at : at + name_bytes].decode()
        at += name_bytes
        bits = zlib.decompress(data[at : at + bits_bytes])
        at += bits_bytes
        pairs = zlib.decompress(data[at : at + repeats_bytes]) if repeats_bytes else b""
        at += repeats_bytes
        copies = dict(struct.iter_unpack("<II", pairs))
        pack = manifest["packs"][place]["name"]
        for row, both in enumerate(zip(ids_of[pack], payloads_of[pack], strict=True)):
            if bits[row // 8] >> (7 - row % 8) & 1:
                found.setdefault(split, []).extend([both] * copies.get(row, 1))
    assert sorted(found.pop("\0held-out")) == sorted(found["eval"])
    assert {split: sorted(payload for _, payload in both) for split, both in found.items()} == {
        split: sorted(payloads) for split, payloads in records.items()
    }

    total = hashlib.sha256(b"mlplatform dataset version 1\n")
    for split in sorted(found):
        ids = sorted(record for record, _ in found[split])
        buckets = [
            b"".join(one for one in ids if int.from_bytes(one[:2], "big") >> 4 == b) for b in range(4096)
        ]
        digest = hashlib.sha256(b"".join(hashlib.sha256(bucket).digest() for bucket in buckets)).digest()
        assert manifest["splits"][split]["digest"] == digest.hex()
        total.update(struct.pack("<I", len(split)) + split.encode() + struct.pack("<Q", len(ids)) + digest)
    assert total.hexdigest() == manifest["digest"]


def test_every_command_and_option_is_documented() -> None:
    text = (DOCS / "dataset-commands.md").read_text()
    shared = {"--store", "--root", "--json"}
    for name, command in datasets.commands.items():
        assert f"`{name}" in text
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not shared & set(parameter.opts):
                names = [*parameter.opts, *parameter.secondary_opts]
                assert any(f"{option} " in text or f"{option}`" in text for option in names), (name, names)


def test_the_digest_does_not_depend_on_the_order_of_the_ids() -> None:
    ids = Ids(*np.random.default_rng(1).integers(0, 2**64, (2, 5000), np.uint64))
    assert split_digest(ids[::-1]) == split_digest(ids)
    assert split_digest(Ids.none()) == digest.join_buckets([hashlib.sha256().digest()] * 4096)
