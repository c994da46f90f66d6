"""The model to compare with is the newest one that servers see."""

from pathlib import Path

from mlplatform.components.model_validator.baseline import pushed_model
from mlplatform.registry import ModelStore


def saved_model(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "saved_model.pb").write_text(content)
    return folder


def test_the_newest_version_that_is_not_withdrawn(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    assert pushed_model(tmp_path / "models", "colours") is None

    store.push(saved_model(tmp_path / "a", "a"), "colours")
    store.push(saved_model(tmp_path / "b", "b"), "colours")
    assert pushed_model(tmp_path / "models", "colours") == tmp_path / "models" / "colours" / "2"

    store.rollback("colours")
    assert pushed_model(tmp_path / "models", "colours") == tmp_path / "models" / "colours" / "1"
    assert pushed_model(tmp_path / "models", "others") is None
