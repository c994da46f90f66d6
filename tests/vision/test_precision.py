"""bfloat16: only where the CPU has it, only within the block, and only where the features agree."""

from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlplatform.vision import features
from mlplatform.vision.features import compute_features
from mlplatform.vision.precision import bfloat16, computes_bfloat16
from mlplatform.vision.small_cnn import small_cnn

OPTION = "auto_mixed_precision_onednn_bfloat16"
LABELS = ["blue", "green", "red"]


@pytest.mark.parametrize(
    ("flags", "has_it"),
    [("fpu avx2 avx512f avx512_bf16", True), ("fpu amx_bf16 amx_tile", True), ("fpu avx2 avx512f", False)],
)
def test_the_cpu_must_have_instructions_for_it(tmp_path: Path, flags: str, has_it: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    assert computes_bfloat16(tmp_path / "cpuinfo") == has_it
    assert not computes_bfloat16(tmp_path / "missing")


def test_the_setting_ends_with_the_block() -> None:
    def failing() -> None:
        with bfloat16():
            assert tf.config.optimizer.get_experimental_options()[OPTION]
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        failing()
    assert not tf.config.optimizer.get_experimental_options()[OPTION]


def compute(network: keras.Model, file: str, folder: Path, *, in_bfloat16: bool) -> np.ndarray:
    store = compute_features(
        network,
        [file],
        LABELS,
        folder,
        photos=6,
        mirrored=True,
        description="compute",
        in_bfloat16=in_bfloat16,
    )
    ((values, _),) = store.batches(10, seed=None)
    return values


def test_features_in_bfloat16_point_where_those_in_float32_do(colours: ModuleType, tmp_path: Path) -> None:
    file = colours.write(tmp_path / "a.gz", colours.examples(2))
    network = small_cnn(32)
    exact = compute(network, file, tmp_path / "exact", in_bfloat16=False)
    rough = compute(network, file, tmp_path / "rough", in_bfloat16=True)
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(rough, axis=1)
    assert (np.sum(exact * rough, axis=1) / lengths >= features.BFLOAT16_AGREEMENT).all()
    assert not tf.config.optimizer.get_experimental_options()[OPTION]


def test_where_they_do_not_float32_is_computed(
    colours: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = colours.write(tmp_path / "a.gz", colours.examples(2))
    network = small_cnn(32)
    exact = compute(network, file, tmp_path / "exact", in_bfloat16=False)
    monkeypatch.setattr(features, "BFLOAT16_AGREEMENT", 1.1)  # more than any cosine is
    found = compute(network, file, tmp_path / "found", in_bfloat16=True)
    np.testing.assert_array_equal(found, exact)
    assert "bfloat16 changes the features too much" in caplog.text
