"""Versions that ask to be computed in bfloat16, as TensorFlow Serving's `--mixed_precision` does for all.

The SavedModel stays as it is; TensorFlow's oneDNN kernels compute its convolutions and matrix products in
bfloat16 where the CPU has instructions for it (AVX512_BF16, AMX). The model server measures both.
"""

from pathlib import Path

from mlplatform.serving.status import Code, StatusError

BFLOAT16, NO_MIXED_PRECISION = "bfloat16", "none"
MIXED_PRECISION_FILE = Path("assets.extra") / "mixed_precision"


def ask_for_bfloat16(model_dir: Path) -> Path:
    """Let a SavedModel ask for bfloat16; return the file that says so."""
    file = model_dir / MIXED_PRECISION_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{BFLOAT16}\n", "utf-8")
    return file


def asked_precision(model_dir: Path) -> str:
    """Return what a SavedModel asks for: `bfloat16` or `none`.

    Raises:
        StatusError: Its file says something else.
    """
    file = model_dir / MIXED_PRECISION_FILE
    if not file.is_file():
        return NO_MIXED_PRECISION
    said = file.read_bytes()[:100].decode("utf-8", "replace").strip()
    if said not in (BFLOAT16, NO_MIXED_PRECISION):
        text = f"{file} says {said!r}, not {BFLOAT16!r} or {NO_MIXED_PRECISION!r}"
        raise StatusError(Code.FAILED_PRECONDITION, text)
    return said
