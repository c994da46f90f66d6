"""Which models a server serves: TensorFlow Serving's ModelServerConfig, checked."""

import logging
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from mlplatform.errors import UsageError
from mlplatform.serving.status import Code, StatusError, invalid_argument
from mlplatform.serving.version_folders import (
    AllVersions,
    LatestVersions,
    SpecificVersions,
    VersionPolicy,
)
from mlplatform.storage.urls import absolute, is_local

log = logging.getLogger(__name__)

LATEST = LatestVersions(1)
TENSORFLOW_PLATFORM = "tensorflow"
_SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
_DEPRECATED_TENSORFLOW_TYPE = 1  # model_type TENSORFLOW


class ModelConfigFileError(UsageError):
    """A model config file cannot be read or parsed."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(file, reason)
        self.file, self.reason = file, reason

    def __str__(self) -> str:
        return (
            f"Error parsing text-format tensorflow.serving.ModelServerConfig: {self.file}: {self.reason}. "
            'It holds: model_config_list { config { name: "m" base_path: "/models/m" '
            'model_platform: "tensorflow" } }'
        )


@dataclass(frozen=True)
class ModelConfig:
    """One model to serve.

    Attributes:
        name: Its name in requests.
        base_path: Folder of its version folders: an absolute path, or a URL that models are pushed to.
        policy: Which versions are served.
        labels: Names for versions, such as `stable`.
    """

    name: str
    base_path: Path | str
    policy: VersionPolicy = LATEST
    labels: Mapping[str, int] = field(default_factory=dict)


def read_config_file(file: Path) -> model_server_config_pb2.ModelServerConfig:
    """Parse a ModelServerConfig in text form.

    Raises:
        ModelConfigFileError: It cannot be read or is not such a text.
    """
    try:
        return text_format.Parse(file.read_text("utf-8"), model_server_config_pb2.ModelServerConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ModelConfigFileError(file, str(error)) from error


def checked_models(
    config: model_server_config_pb2.ModelServerConfig, served: Container[str] = ()
) -> dict[str, ModelConfig] | None:
    """Return the models of a config by name, or None where it is empty.

    Args:
        config: What was asked.
        served: Names of the models that are served already.

    Raises:
        StatusError: INVALID_ARGUMENT, with TensorFlow Serving's text.
    """
    kind = config.WhichOneof("config")
    if kind is None:
        return None
    if kind == "custom_model_config":
        raise invalid_argument("Missing custom_model_config_loader in ServerCore Options")
    models: dict[str, ModelConfig] = {}
    for entry in config.model_config_list.config:
        if not entry.name:
            raise invalid_argument(f"Illegal to list a model without a name: base_path {entry.base_path}")
        if entry.name in models:
            raise invalid_argument(f"Illegal to list model {entry.name} multiple times in config list")
        scheme = urlparse(entry.base_path).scheme
        if not scheme and not Path(entry.base_path).is_absolute():
            raise invalid_argument(
                f"Expected model {entry.name} to have an absolute path or URI; "
                f"got base_path()={entry.base_path}"
            )
        if scheme not in ("", "file", *_SCHEMES):
            raise StatusError(
                Code.UNIMPLEMENTED,
                f"base_path {entry.base_path} of model {entry.name}: this server reads local folders and "
                f"{', '.join(f'{known}://' for known in _SCHEMES)}; mount the storage, or serve it with "
                "TensorFlow Serving",
            )
        _check_platform(entry, served)
        if entry.HasField("logging_config"):
            log.warning("logging_config of model %s is not taken: set request_log_dir", entry.name)
        models[entry.name] = ModelConfig(
            name=entry.name,
            base_path=_place(entry.base_path),
            policy=_policy(entry),
            labels=dict(entry.version_labels),
        )
    return models


def _place(base_path: str) -> Path | str:
    place = absolute(base_path)
    return Path(place) if is_local(place) else place


def _check_platform(entry: model_server_config_pb2.ModelConfig, served: Container[str]) -> None:
    if entry.model_type and entry.model_platform:
        raise invalid_argument(
            "Illegal setting both ModelServerConfig::model_type (deprecated) "
            "and ModelServerConfig::model_platform."
        )
    if entry.model_type:
        if entry.model_type != _DEPRECATED_TENSORFLOW_TYPE:
            raise invalid_argument(f"ModelServerConfig::model_type choice {entry.model_type} not supported.")
        return
    if not entry.model_platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) "
            "nor ModelServerConfig::model_platform."
        )
    if entry.model_platform != TENSORFLOW_PLATFORM and entry.name in served:
        raise invalid_argument(
            f"Illegal to change a model's platform. For model {entry.name} platform was "
            f"{TENSORFLOW_PLATFORM} and new platform requested is {entry.model_platform}"
        )
    if entry.model_platform != TENSORFLOW_PLATFORM:
        raise invalid_argument(f"Model {entry.name} requests unsupported platform {entry.model_platform}")


def _policy(entry: model_server_config_pb2.ModelConfig) -> VersionPolicy:
    policy = entry.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return AllVersions()
    if kind == "specific":
        return SpecificVersions(tuple(policy.specific.versions))
    return LatestVersions(policy.latest.num_versions or 1 if kind == "latest" else 1)
