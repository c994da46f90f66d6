"""Fixtures of the local runner's tests: tiny pipelines, what they did."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PIPELINES = Path(__file__).parent / "pipelines"


@pytest.fixture(scope="session", autouse=True)
def _steps_can_be_imported() -> Iterator[None]:
    """Let this process, and the runner's, import the components in `pipelines/`."""
    sys.path.insert(0, str(PIPELINES))
    yield
    sys.path.remove(str(PIPELINES))


@pytest.fixture(scope="session")
def pipelines() -> Path:
    return PIPELINES


@pytest.fixture
def trace(tmp_path):
    """The folder that the components write to."""
    folder = tmp_path / "trace"
    folder.mkdir()
    return folder


@pytest.fixture
def calls(trace):
    """Return what the components did since the last call."""

    def read() -> list[str]:
        file = trace / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    return read


@pytest.fixture
def pipeline(tmp_path):
    """Return a function that makes a pipeline of components, with its own root and database."""
    from tfx.orchestration import metadata
    from tfx.orchestration.pipeline import Pipeline

    def make(*components, name="tiny", enable_cache=True, database=None, beam_pipeline_args=None):
        return Pipeline(
            pipeline_name=name,
            pipeline_root=str(tmp_path / "artifacts"),
            components=list(components),
            enable_cache=enable_cache,
            beam_pipeline_args=beam_pipeline_args,
            metadata_connection_config=database
            or metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite")),
        )

    return make


@pytest.fixture
def store(tmp_path):
    """Return a function that opens the pipeline's ML Metadata."""
    import ml_metadata
    from ml_metadata.proto import metadata_store_pb2

    def open_store():
        config = metadata_store_pb2.ConnectionConfig()
        config.sqlite.filename_uri = str(tmp_path / "metadata.sqlite")
        return ml_metadata.MetadataStore(config)

    return open_store
