"""A pipeline whose ML Metadata is a SQLite file of the machine that runs it."""

from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration.pipeline import Pipeline


class SqlitePipeline(Pipeline):
    """Makes the folder of the SQLite file when a runner asks for the connection, as all that run locally do.

    TFX's own helper makes it when the pipeline is composed: also on a machine that only compiles it.

    Args:
        metadata_db: The file.
        arguments: As for TFX's `Pipeline`.
    """

    def __init__(self, *, metadata_db: Path, **arguments: Any) -> None:
        connection = metadata_store_pb2.ConnectionConfig()
        connection.sqlite.filename_uri = str(metadata_db)
        connection.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        super().__init__(metadata_connection_config=connection, **arguments)

    @property
    def metadata_connection_config(self) -> Any:
        """The connection, whose folder is there."""
        Path(self._connection.sqlite.filename_uri).parent.mkdir(parents=True, exist_ok=True)
        return self._connection

    @metadata_connection_config.setter
    def metadata_connection_config(self, connection: Any) -> None:
        self._connection = connection
