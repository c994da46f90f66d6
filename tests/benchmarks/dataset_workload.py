"""Deterministic dataset-versioning workload: TFX-like `Examples` in three runs.

Writes OUT/v1, OUT/v2 and OUT/v3, each a folder of splits
(`Split-train/data_tfrecord-00000-of-00010[.gz]`) of tf.Example records, and
OUT/truth.json with the exact answer a versioner must give:

  v1            N records
  v1 -> v2      --append % new ids, --remove % ids gone, --change % ids whose
                content differs (photos: even picks get a new label, odd
                picks new bytes; rows: every value is drawn again)
  v2 -> v3      the same content, order and shard boundaries different

Every version is shuffled over all shards and the shards have uneven sizes, as
a Beam runner leaves them.  Record content is a function of (seed, id, revision)
only, so any size streams in bounded memory (one shard at a time).

Profiles:  photos  incompressible bytes around --bytes (5-50 KB is realistic),
                   a label, an id
           rows    tabular, about 300 bytes: id, 7 floats, 4 ints, 3 strings; one
                   float is absent in most rows, so lengths vary

Traps on request (all off by default):
  --duplicates P     P % of the ids occur twice, byte-identical, in each version
  --scramble v2,v3   map entries of each tf.Example in a random order in the
                     named version(s): same content, other bytes.  This is
                     what stock TFX ExampleGen does to CSV on every run
  --gzip             .gz shards          --splits train:0.8,eval:0.2

Needs NumPy and google-crc32c.
  python tests/benchmarks/dataset_workload.py --profile rows --records 2000000 --out DIR
"""

import argparse
import gzip
import json
import struct
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c


def frame(data):
    """One TFRecord frame: length, masked crc, data, masked crc."""
    n = struct.pack("<Q", len(data))
    a, b = crc32c(n), crc32c(data)
    a = (((a >> 15) | (a << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    b = (((b >> 15) | (b << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    return b"".join((n, struct.pack("<I", a), data, struct.pack("<I", b)))


# ------------------------------------------------------- counter-based random

_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_G = np.uint64(0x9E3779B97F4A7C15)


def mix(x):
    """splitmix64 finaliser over a uint64 array (wraps on purpose)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * _M1
        x = (x ^ (x >> np.uint64(27))) * _M2
    return x ^ (x >> np.uint64(31))


def stream(seed, ids, rev, words, salt=0):
    """uint64[len(ids), words], a function of (seed, id, rev, salt) alone."""
    ids = np.asarray(ids, np.uint64)
    rev = np.asarray(rev, np.uint64)
    with np.errstate(over="ignore"):
        key = mix(mix(ids * _G + np.uint64(seed)) + rev * _G + np.uint64(salt))
        return mix(key[:, None] + np.arange(1, words + 1, dtype=np.uint64) * _G)


# ------------------------------------------------------------ tf.Example wire


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def ld(tag, body):
    return bytes((tag,)) + varint(len(body)) + body


def f_bytes(v):
    return ld(0x0A, ld(0x0A, v))


def f_float(v):
    return ld(0x12, ld(0x0A, v))  # packed little-endian float32


def f_int(v):
    return ld(0x1A, ld(0x0A, varint(v)))


def entry(key, feature):
    return ld(0x0A, ld(0x0A, key) + ld(0x12, feature))


def example(entries, order=None):
    if order is not None:
        entries = [entries[i] for i in order]
    return ld(0x0A, b"".join(entries))


# ------------------------------------------------------------------- profiles


class Photos:
    def __init__(self, a):
        self.seed, self.mean, self.block = a.seed, a.bytes or 10240, 256

    def records(self, ids, revs, kinds, scramble):
        """ids in the order wanted; kinds 0 unchanged, 1 label, 2 payload."""
        head = stream(self.seed, ids, revs * (kinds == 1), 2, salt=1)
        prev = revs * (kinds == 2)
        sizes = stream(self.seed, ids, prev, 1, salt=2)[:, 0]
        lo, hi = self.mean // 2, self.mean + self.mean // 2
        sizes = (lo + sizes % np.uint64(max(1, hi - lo + 1))).astype(np.int64)
        data = stream(self.seed, ids, prev, int(sizes.max()) // 8 + 1, salt=3)
        data = data.view(np.uint8).reshape(len(ids), -1)
        orders = _orders(self.seed, ids, 3, scramble) if scramble else None
        for j in range(len(ids)):
            label = int(head[j, 0] % np.uint64(100))
            if kinds[j] == 1 and revs[j]:  # a relabelling that is never a no-op
                old = int(stream(self.seed, ids[j : j + 1], np.zeros(1), 1, 1)[0, 0] % np.uint64(100))
                label = (old + 1 + label % 98) % 100
            e = [
                entry(b"id", f_bytes(b"item-%010d" % ids[j])),
                entry(b"image/encoded", f_bytes(data[j, : sizes[j]].tobytes())),
                entry(b"label", f_int(label)),
            ]
            yield example(e, orders[j] if scramble else None)


class Rows:
    FLOATS = (b"amount", b"balance", b"discount", b"price", b"rate", b"score", b"weight")
    INTS = (b"age", b"clicks", b"hour", b"label")
    STRS = (
        (b"city", [b"amsterdam", b"bergen", b"cork", b"dresden", b"essen"]),
        (b"device", [b"desktop", b"phone", b"tablet"]),
        (b"segment", [b"new", b"returning", b"lapsed", b"vip"]),
    )

    def __init__(self, a):
        self.seed, self.block = a.seed, 8192
        slots = [(b"id", "id", None, None)]
        slots += [(k, "f", i, ld(0x0A, k) + b"\x12\x08\x12\x06\x0a\x04") for i, k in enumerate(self.FLOATS)]
        slots += [(k, "i", i, [entry(k, f_int(v)) for v in range(10000)]) for i, k in enumerate(self.INTS)]
        slots += [(k, "s", i, [entry(k, f_bytes(v)) for v in vs]) for i, (k, vs) in enumerate(self.STRS)]
        self.slots = sorted(slots, key=lambda s: s[0])

    def records(self, ids, revs, kinds, scramble):
        w = stream(self.seed, ids, revs, 4 + 4 + 3 + 1, salt=5)
        fl = w[:, :4].copy().view(np.uint32).astype(np.float64)
        raw = (fl / 2**32 * 1e3).astype("<f4").tobytes()
        gone = (w[:, 11] % np.uint64(8)).tolist()
        cols = []
        for _key, kind, i, t in self.slots:
            if kind == "id":
                col = [entry(b"id", f_bytes(b"row-%010d" % v)) for v in ids.tolist()]
            elif kind == "f":  # one float absent in most rows
                h = bytes((0x0A, len(t) + 4)) + t
                places = range(4 * i, len(raw), 32)
                col = [b"" if g == i else h + raw[o : o + 4] for g, o in zip(gone, places, strict=False)]
            else:
                at = 4 + i if kind == "i" else 8 + i
                col = [t[v] for v in (w[:, at] % np.uint64(len(t))).tolist()]
            cols.append(col)
        if scramble:
            orders = _orders(self.seed, ids, len(cols), scramble)
            for order, e in zip(orders, zip(*cols, strict=False), strict=False):
                yield example(e, order)
        else:
            for e in zip(*cols, strict=False):
                body = b"".join(e)
                yield b"\x0a" + varint(len(body)) + body


def _orders(seed, ids, n, version):
    """One permutation of n map entries per record, another in each version."""
    w = stream(seed, ids, np.full(len(ids), version), n, salt=9)
    return np.argsort(w, axis=1).tolist()


# ------------------------------------------------------------------- versions


def plan(a):
    """ids, revision and kind of change per version, plus the truth."""
    n = a.records
    perm = np.random.Generator(np.random.PCG64([a.seed, 1])).permutation(n)
    r, c = int(n * a.remove / 100), int(n * a.change / 100)
    removed, changed = np.sort(perm[:r]), np.sort(perm[r : r + c])
    added = np.arange(n, n + int(n * a.append / 100))
    v1 = np.arange(n)
    keep = np.ones(n, bool)
    keep[removed] = False
    v2 = np.concatenate([v1[keep], added])
    return v1, v2, {"added": added, "removed": removed, "changed": changed}


@contextmanager
def open_shard(path):
    """Open a shard for writing; one whose name ends in .gz is compressed, the same bytes every time."""
    with open(path, "wb", 1 << 20) as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", 1, raw, mtime=0) as f:
                yield f
        else:
            yield raw


def write_version(a, profile, root, ids, changed, number):
    """Shuffle ids over splits and shards, then write one shard at a time."""
    rng = np.random.Generator(np.random.PCG64([a.seed, 2, number]))
    if a.duplicates:
        d = stream(a.seed, ids, np.zeros(len(ids)), 1, salt=11)[:, 0]
        ids = np.concatenate([ids, ids[d % np.uint64(10000) < a.duplicates * 100]])
    split_at = np.cumsum([w for _, w in a.split_list])
    u = (stream(a.seed, ids, np.zeros(len(ids)), 1, salt=12)[:, 0] >> np.uint64(11)).astype(
        np.float64
    ) / 2**53
    which = np.minimum(np.searchsorted(split_at, u * split_at[-1], "right"), len(split_at) - 1)
    total = {"records": 0, "bytes": 0, "shards": 0}
    scramble = number * (f"v{number}" in a.scramble)
    for s, (name, _) in enumerate(a.split_list):
        mine = rng.permutation(ids[which == s])
        folder = Path(root) / f"v{number}" / f"Split-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        cuts = np.sort(rng.integers(0, len(mine) + 1, 4 * a.shards))[2::4]
        cuts = np.concatenate([[0], cuts[: a.shards - 1], [len(mine)]])
        for k in range(a.shards):
            part = mine[cuts[k] : cuts[k + 1]]
            pos = np.searchsorted(changed, part)
            hit = np.zeros(len(part), bool)
            if len(changed):
                hit = changed[np.minimum(pos, len(changed) - 1)] == part
            rev = hit.astype(np.int64)
            kind = np.where(hit, 1 + pos % 2, 0)
            path = folder / (f"data_tfrecord-{k:05d}-of-{a.shards:05d}" + (".gz" if a.gzip else ""))
            with open_shard(path) as f:
                for b in range(0, len(part), profile.block):
                    e = slice(b, b + profile.block)
                    for rec in profile.records(part[e], rev[e], kind[e], scramble):
                        f.write(frame(rec))
            total["shards"] += 1
            total["records"] += len(part)
            total["bytes"] += path.stat().st_size
    return total


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--profile", choices=["photos", "rows"], required=True)
    p.add_argument("--records", type=int, required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--bytes", type=int, default=0, help="photos: mean payload size")
    p.add_argument("--shards", type=int, default=10, help="per split")
    p.add_argument("--splits", default="train:1")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--append", type=float, default=1.0, help="percent")
    p.add_argument("--remove", type=float, default=0.5, help="percent")
    p.add_argument("--change", type=float, default=0.5, help="percent")
    p.add_argument("--duplicates", type=float, default=0.0, help="percent")
    p.add_argument("--scramble", default="", help="versions, e.g. v3 or v2,v3")
    p.add_argument("--gzip", action="store_true")
    p.add_argument("--versions", default="1,2,3")
    a = p.parse_args()
    a.split_list = [(s.split(":")[0], float(s.split(":")[1])) for s in a.splits.split(",")]
    a.scramble = a.scramble.split(",")
    profile = {"photos": Photos, "rows": Rows}[a.profile](a)
    v1, v2, truth = plan(a)
    none = np.zeros(0, np.int64)
    info = {
        "profile": a.profile,
        "seed": a.seed,
        "splits": a.splits,
        "duplicates_percent": a.duplicates,
        "scramble": a.scramble,
        "counts": {k: len(v) for k, v in truth.items()},
        "versions": {},
    }
    for number in map(int, a.versions.split(",")):
        ids, ch = (v1, none) if number == 1 else (v2, truth["changed"])
        t = time.perf_counter()
        info["versions"][f"v{number}"] = write_version(a, profile, a.out, ids, ch, number)
        print(f"v{number} {info['versions'][f'v{number}']} {time.perf_counter() - t:.1f} s", flush=True)
    prefix = {"photos": "item-", "rows": "row-"}[a.profile]
    info["id_format"] = prefix + "%010d"
    info["v1_to_v2"] = {k: v.tolist() for k, v in truth.items()}
    with open(Path(a.out) / "truth.json", "w") as f:
        json.dump(info, f)


if __name__ == "__main__":
    main()
