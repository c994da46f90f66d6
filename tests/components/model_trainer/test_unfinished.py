"""Unfinished trainings at a URL: what was saved is found by the next machine."""

import hashlib
import uuid
from pathlib import Path

import fsspec
import pytest

from mlplatform.components.model_trainer.unfinished import unfinished
from mlplatform.storage.errors import BadPathError


@pytest.fixture
def url() -> str:
    return f"memory://work-{uuid.uuid4().hex}"


def kept(url: str) -> list[str]:
    return sorted(
        path.removeprefix(url.removeprefix("memory:/")) for path in fsspec.filesystem("memory").find(url)
    )


def resumed(url: str) -> dict[str, bytes]:
    """Return what a third machine would begin with, by name."""
    with unfinished(url, "key") as work:
        found = [path for path in work.folder.rglob("*") if path.is_file()]
        return {path.relative_to(work.folder).as_posix(): path.read_bytes() for path in found}


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
        assert resumed(url) == {"checkpoint-2/last.npz": b"checkpoint-2", "checkpoint-2/progress.json": b"{}"}
        assert len([path for path in kept(url) if path.startswith("/key/files/")]) == 2
        work.remove()
    assert kept(url) == []


class TestTwoMachines:
    """Two at one training, which nothing prevents at a URL."""

    def test_neither_resumes_from_a_mixture(self, url: str) -> None:
        with unfinished(url, "key") as one, unfinished(url, "key") as two:
            for number, work in enumerate((one, two, one, two)):
                (work.folder / "weights").write_bytes(b"%d" % number)
                (work.folder / "progress").write_bytes(b"%d" % number)
                work.save()
                assert resumed(url) == dict.fromkeys(("progress", "weights"), b"%d" % number)

    def test_one_that_is_at_it_still_keeps_its_progress_when_the_other_is_done(self, url: str) -> None:
        with unfinished(url, "key") as one, unfinished(url, "key") as two:
            checkpoint(one.folder, "checkpoint-1")
            one.save()
            two.remove()
            assert resumed(url) == {}
            one.save()
            assert sorted(resumed(url)) == ["checkpoint-1/last.npz", "checkpoint-1/progress.json"]
            one.remove()
        assert kept(url) == []

    def test_one_that_resumed_leaves_the_one_that_is_at_it_still_alone(self, url: str) -> None:
        with unfinished(url, "key") as one:
            checkpoint(one.folder, "checkpoint-1")
            one.save()
            with unfinished(url, "key") as two:
                checkpoint(two.folder, "checkpoint-2")
                (two.folder / "checkpoint-1" / "last.npz").unlink()
                two.save()
            one.save()
            assert sorted(resumed(url)) == ["checkpoint-1/last.npz", "checkpoint-1/progress.json"]

    @pytest.mark.parametrize("harm", ["another content", "gone"])
    def test_what_is_not_whole_is_not_resumed_from(self, url: str, harm: str) -> None:
        with unfinished(url, "key") as one, unfinished(url, "key") as two:
            for work, name in ((one, "checkpoint-1"), (two, "checkpoint-2")):
                checkpoint(work.folder, name)
                work.save()
            files, digest = fsspec.filesystem("memory"), hashlib.sha256(b"checkpoint-2").hexdigest()
            if harm == "gone":
                files.rm_file(f"{url}/key/files/{digest}")
            else:
                files.pipe_file(f"{url}/key/files/{digest}", b"checkpoint-3")
            assert resumed(url)["checkpoint-1/last.npz"] == b"checkpoint-1"
            assert "checkpoint-2/last.npz" not in resumed(url)

    def test_names_that_others_wrote_cannot_lead_out_of_the_folder(self, url: str) -> None:
        fsspec.filesystem("memory").pipe_file(
            f"{url}/key/kept/x.json", b'{"at": 1, "files": {"../../evil": "00"}}'
        )
        with pytest.raises(BadPathError), unfinished(url, "key"):
            pass


def test_a_local_folder_is_kept_as_it_is(tmp_path: Path) -> None:
    with unfinished(str(tmp_path), "key") as work:
        assert work.folder == tmp_path / "key"
        work.save()
    assert work.folder.is_dir()
