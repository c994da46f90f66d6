"""Unfinished trainings at a URL: what was saved is found by the next machine."""

import uuid
from pathlib import Path

import fsspec
import pytest

from mlplatform.components.model_trainer.unfinished import unfinished


@pytest.fixture
def url() -> str:
    return f"memory://work-{uuid.uuid4().hex}"


def kept(url: str) -> list[str]:
    return sorted(
        path.removeprefix(url.removeprefix("memory:/")) for path in fsspec.filesystem("memory").find(url)
    )


def checkpoint(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    (folder / name / "last.npz").write_bytes(name.encode())
    (folder / name / "progress.json").write_bytes(b"{}")


def killed(url: str) -> None:
    """Train until the second checkpoint is being written."""
    with unfinished(url, "key") as work:
        checkpoint(work.folder, "checkpoint-1")
        work.save()
        checkpoint(work.folder, "checkpoint-2")
        raise KeyboardInterrupt


def test_another_machine_resumes_from_what_was_saved(url: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        killed(url)
    with unfinished(url, "key") as work:
        assert [path.name for path in work.folder.iterdir()] == ["checkpoint-1"]
        assert (work.folder / "checkpoint-1" / "last.npz").read_bytes() == b"checkpoint-1"


def test_what_is_gone_is_gone_at_the_url_too(url: str) -> None:
    with unfinished(url, "key") as work:
        checkpoint(work.folder, "checkpoint-1")
        work.save()
        checkpoint(work.folder, "checkpoint-2")
        for name in ("last.npz", "progress.json"):
            (work.folder / "checkpoint-1" / name).unlink()
        work.save()
        assert kept(url) == ["/key/checkpoint-2/last.npz", "/key/checkpoint-2/progress.json"]
        work.remove()
    assert kept(url) == []


def test_a_local_folder_is_kept_as_it_is(tmp_path: Path) -> None:
    with unfinished(str(tmp_path), "key") as work:
        assert work.folder == tmp_path / "key"
        work.save()
    assert work.folder.is_dir()
