"""Reading PyTorch weights: real ones, and files that only look like them."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from mlplatform.vision.efficientnet_lite import pretrained_file
from mlplatform.vision.torch_weights import NotTorchWeightsError, read_torch_weights

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def test_the_installed_weights_are_all_read() -> None:
    weights = read_torch_weights(pretrained_file())

    assert len(weights) == 296
    assert weights["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert weights["_fc.weight"].shape == (1000, 1280)
    assert weights["_bn0.num_batches_tracked"].dtype == np.int64
    assert all(np.isfinite(array).all() for array in weights.values())
    # ImageNet weights are no noise: batch variances are positive, and the classifier's rows differ.
    assert (weights["_bn1.running_var"] > 0).all()
    assert weights["_fc.weight"].std(axis=0).min() > 0.01


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("harmed"),))  # type: ignore[return-value]


def test_a_file_that_wants_to_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "weights.pth"
    file.write_bytes(b"".join(pickle.dumps(part) for part in (MAGIC, PROTOCOL, {}, Harmful())))

    with pytest.raises(NotTorchWeightsError, match="which no mapping of tensors needs"):
        read_torch_weights(file)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("content", [b"", b"no pickle at all", pickle.dumps(7)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(content)

    with pytest.raises(NotTorchWeightsError, match=r"weights\.pth is not a PyTorch weights file"):
        read_torch_weights(file)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(pretrained_file().read_bytes()[:1_000_000])

    with pytest.raises(NotTorchWeightsError):
        read_torch_weights(file)
