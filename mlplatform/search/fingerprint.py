"""Which embedding a model computes, as a digest of everything that decides it."""

import hashlib
import os
from pathlib import Path

SIGNATURE, INPUT, OUTPUT = "embed_image_bytes", "image_bytes", "embedding"
INDEX_FOLDER = Path("assets.extra") / "index"

_BLOCK = 1 << 20


def embedding_fingerprint(model_dir: Path) -> str:
    """Return the sha256, in hexadecimal, of a SavedModel's graph, weights and assets, and of what is asked.

    Preprocessing, projection and normalisation are in the graph, so they count. What lies in `assets.extra`
    (warm-up requests, an index) does not.
    """
    digest = hashlib.sha256(f"{SIGNATURE}:{OUTPUT}".encode())
    parts = [model_dir / "saved_model.pb"]
    for folder in ("variables", "assets"):
        parts += sorted(path for path in (model_dir / folder).rglob("*") if path.is_file())
    for path in parts:
        name = os.fsencode(path.relative_to(model_dir).as_posix())
        digest.update(len(name).to_bytes(8, "little") + name + path.stat().st_size.to_bytes(8, "little"))
        digest.update(file_digest(path).encode())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
