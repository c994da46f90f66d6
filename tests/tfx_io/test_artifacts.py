"""Artifacts as folders of this machine: local ones as they are, those at URLs as copies for a time."""

import uuid
from pathlib import Path

import fsspec
import pytest
from tfx import types
from tfx.types import standard_artifacts

from mlplatform.tfx_io.artifacts import fetched, on_this_machine, published


@pytest.fixture
def url() -> str:
    return f"memory://artifacts-{uuid.uuid4().hex}/model"


def write(folder: Path) -> None:
    (folder / "variables").mkdir()
    (folder / "variables" / "index").write_bytes(b"weights")
    (folder / "saved_model.pb").write_bytes(b"graph")


def read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WRITTEN = {"variables/index": b"weights", "saved_model.pb": b"graph"}


def artifact(uri: str) -> types.Artifact:
    made = standard_artifacts.Model()
    made.uri = uri
    return made


def test_what_was_published_at_a_url_is_fetched_whole(url: str) -> None:
    with published(url) as folder:
        write(folder)
    with fetched(url) as copy:
        assert read(copy) == WRITTEN
    assert not folder.exists()
    assert not copy.exists()


def test_a_local_folder_is_used_as_it_is(tmp_path: Path) -> None:
    place = tmp_path / "new" / "model"
    with published(str(place)) as folder:
        assert folder == place
        write(folder)
    with fetched(str(place)) as found:
        assert found == place
    assert read(place) == WRITTEN


def test_nothing_is_published_where_the_work_fails(url: str) -> None:
    def refuse() -> None:
        with published(url) as folder:
            write(folder)
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        refuse()
    assert not fsspec.filesystem("memory").exists(url)


def test_artifacts_have_local_uris_within_the_block_and_their_own_ones_after_it(
    url: str, tmp_path: Path
) -> None:
    with published(f"{url}-before") as folder:
        write(folder)
    before, after, local = artifact(f"{url}-before"), artifact(url), artifact(str(tmp_path))
    with on_this_machine({"model": [before], "again": [before]}, {"model": [after], "local": [local]}):
        assert read(Path(before.uri)) == WRITTEN
        assert local.uri == str(tmp_path)
        write(Path(after.uri))
        after.set_string_custom_property("graph", f"{after.uri}/saved_model.pb")
        after.set_string_custom_property("from", before.uri)
    assert (before.uri, after.uri) == (f"{url}-before", url)
    assert after.get_string_custom_property("graph") == f"{url}/saved_model.pb"
    assert after.get_string_custom_property("from") == f"{url}-before"
    with fetched(url) as copy:
        assert read(copy) == WRITTEN


def test_artifacts_have_their_own_uris_again_where_the_work_fails(url: str) -> None:
    output = artifact(url)
    with pytest.raises(ValueError, match="refused"), on_this_machine({}, {"model": [output]}):
        raise ValueError("refused")
    assert output.uri == url
    assert not fsspec.filesystem("memory").exists(url)
