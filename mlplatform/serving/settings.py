"""Settings of a model server: TensorFlow Serving's flags by their own names, and a few more."""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mlplatform.errors import UsageError
from mlplatform.machine import usable_threads


class SettingsError(UsageError):
    """Settings that do not fit together.

    Args:
        problem: What is wrong; names of settings are written as `<name>`.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.named("")

    def named(self, prefix: str) -> str:
        """Return the text with the settings' names after a prefix, such as the command line's."""
        return re.sub("<([a-z_]+)>", rf"{prefix}\1", self.problem)


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Settings of a model server; each is a flag of `mlplatform serve`, its help says what it does."""

    # Where it listens.
    host: str = _flag("127.0.0.1", "Address to listen on; 0.0.0.0 for every network.")
    port: int = _flag(8500, "gRPC port; 0 takes any free one, negative listens on none.")
    grpc_socket_path: str = _flag("", "Unix socket to listen on for gRPC as well.")
    rest_api_port: int = _flag(8501, "REST port; 0 takes any free one, negative turns REST off.")
    rest_api_num_threads: int = _flag(64, "Threads that answer REST requests.")
    rest_api_timeout_in_ms: int = _flag(30_000, "Milliseconds until a REST request is answered with 504.")
    rest_api_enable_cors_support: bool = _flag(False, "Let pages of other origins call the REST API.")
    rest_api_allowed_hosts: tuple[str, ...] = _flag(
        (),
        "Names that REST requests may give as Host, beside localhost and addresses (repeatable); * for any. "
        "Without one, any name is allowed unless the server listens on loopback.",
    )
    ssl_config_file: str = _flag("", "SSLConfig in text form: TLS for gRPC, with client_verify both ways.")

    # What it serves.
    root: str = _flag("", "Root, a folder or URL: without models named, everything pushed there is served.")
    model_name: str = _flag("default", "Name of the model at --model_base_path.")
    model_base_path: str = _flag(
        "", "Folder of the model's version folders, or the URL of a pushed model: ROOT/models/NAME."
    )
    model_config_file: str = _flag("", "ModelServerConfig in text form; then name and base path are ignored.")
    model_config_file_poll_wait_seconds: float = _flag(0.0, "Seconds between looks at that file; 0: once.")
    file_system_poll_wait_seconds: float = _flag(
        1.0, "Seconds between looks for new versions; 0: once, negative: never."
    )
    model_cache_dir: str = _flag(
        "", "Folder for models of a URL [default: below $XDG_CACHE_HOME, or ~/.cache, one per URL]."
    )
    model_cache_max_bytes: int = _flag(
        10 << 30, "Bytes of that folder; of the versions fetched, those not used for longest are removed."
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "A label may name a version that is not loaded."
    )
    max_num_load_retries: int = _flag(
        5, "How often a version that failed to load is tried again while its files stay as they are."
    )
    load_retry_interval_micros: int = _flag(60_000_000, "Microseconds between such tries.")
    saved_model_tags: str = _flag("serve", "Comma-separated tags of the graph to load.")
    enable_model_warmup: bool = _flag(True, "Run the recorded requests of a version before it serves.")
    num_request_iterations_for_warmup: int = _flag(1, "How many times each recorded request is run.")
    require_signature: bool = _flag(False, "Load only versions that the owner of the trusted key signed.")
    signature_public_key: str = _flag(
        "", "PEM file of the trusted key [default: $MLPLATFORM_PUBLIC_KEY, a path or the PEM text]."
    )
    prefer_tflite_model: bool = _flag(False, "Compute with TensorFlow Lite what a version carries so.")

    # How it computes.
    enable_batching: bool | None = _flag(
        None, "Requests that pile up share a run [default: where the rows of a batch are independent]."
    )
    batching_parameters_file: str = _flag("", "BatchingParameters in text form; turns batching on.")
    mixed_precision: str = _flag(
        "", "bfloat16: compute so where that costs less; none: never; empty: as each version asks."
    )
    tensorflow_session_parallelism: int = _flag(0, "Both of the next two at once.")
    tensorflow_intra_op_parallelism: int = _flag(0, "Threads within an op; 0: 1 on up to 4 cores.")
    tensorflow_inter_op_parallelism: int = _flag(0, "Threads between ops; 0: one per core.")

    # Its limits.
    grpc_max_threads: int = _flag(64, "Threads that answer gRPC requests.")
    grpc_timeout_in_ms: int = _flag(
        30_000, "Milliseconds that a gRPC request without a deadline of its own waits for a free core."
    )
    grpc_channel_arguments: str = _flag("", "Comma-separated key=value pairs for the gRPC server.")
    max_request_bytes: int = _flag(256 << 20, "Bytes of a request; larger ones are refused.")
    max_request_bytes_in_flight: int = _flag(
        1 << 30,
        "Bytes that requests may take in memory at the same time, inflated and parsed; more are refused.",
    )
    max_image_pixels: int = _flag(
        50_000_000, "Pixels of an encoded image in a request, width times height; larger ones are refused."
    )
    max_request_pixels: int = _flag(200_000_000, "Pixels of all encoded images in a request.")
    max_concurrent_requests: int = _flag(1000, "Requests at the same time; more are refused at once.")
    lame_duck_s: float = _flag(0.5, "Seconds between saying NOT_SERVING and closing the ports.")
    drain_s: float = _flag(15.0, "Seconds that requests in flight have to finish at a stop.")

    # What it tells.
    monitoring_config_file: str = _flag("", "MonitoringConfig in text form: turns the metrics page on.")
    request_log_dir: str = _flag("", "Folder for sampled requests and answers (TFRecord of PredictionLog).")
    request_log_sampling_rate: float = _flag(0.01, "Fraction of requests that are logged, 0 to 1.")
    request_log_max_bytes: int = _flag(1 << 30, "Bytes of all logs together; the oldest files go first.")
    request_log_never: tuple[str, ...] = _flag((), "Inputs, outputs or features never logged (repeatable).")

    def __post_init__(self) -> None:
        if self.model_config_file_poll_wait_seconds and not self.model_config_file:
            raise SettingsError("<model_config_file_poll_wait_seconds> needs <model_config_file>")
        for name, most in _AT_MOST.items():
            if getattr(self, name) > most:
                raise SettingsError(f"<{name}> {getattr(self, name)} is above {most}")
        if self.port > 0 and self.port == self.rest_api_port:
            raise SettingsError(
                f"<rest_api_port> cannot be same as <port> ({self.port}). Use a different port for REST."
            )
        if max(self.port, self.rest_api_port) < 0 and not self.grpc_socket_path:
            raise SettingsError(
                "<port> and <rest_api_port> are both negative and there is no <grpc_socket_path>: "
                "nobody could ask this server. Leave one of them on"
            )
        is_named = self.model_name != "default"
        if is_named and not self.model_base_path and not self.model_config_file:
            raise SettingsError(
                f"<model_name> {self.model_name} needs <model_base_path>: the folder it lies in"
            )
        for name in _ABOVE_ZERO:
            if getattr(self, name) <= 0:
                raise SettingsError(f"<{name}> {getattr(self, name)} is not above 0")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise SettingsError(f"<{name}> {getattr(self, name)} is negative")
        if self.mixed_precision not in ("", "bfloat16", "none"):
            raise SettingsError(f"<mixed_precision> {self.mixed_precision!r} is not bfloat16 or none")
        self.channel_arguments()
        if not 0 <= self.request_log_sampling_rate <= 1:
            raise SettingsError(
                f"<request_log_sampling_rate> {self.request_log_sampling_rate} is not within 0 and 1"
            )
        for name in _FILES:
            value = getattr(self, name)
            if value and not Path(value).is_file():
                raise SettingsError(f"<{name}> {value}: there is no such file")

    @property
    def serves_root(self) -> bool:
        """No models are named: everything pushed under the root folder is served."""
        return not (self.model_base_path or self.model_config_file)

    @property
    def is_batching(self) -> bool:
        """Requests may share a run."""
        return self.enable_batching is not False

    @property
    def intra_op_threads(self) -> int:
        """Threads within an op; 0 leaves it to TensorFlow."""
        asked = self.tensorflow_session_parallelism or self.tensorflow_intra_op_parallelism
        return asked or (1 if usable_threads() <= 4 else 0)

    @property
    def inter_op_threads(self) -> int:
        """Threads between ops."""
        asked = self.tensorflow_session_parallelism or self.tensorflow_inter_op_parallelism
        return asked or usable_threads()

    def channel_arguments(self) -> list[tuple[str, int | str]]:
        """Return options of the gRPC server; what `grpc_channel_arguments` says takes precedence.

        gRPC inflates a compressed message whole before it looks at its size, so it hands them over as they
        came: `compressed.inflated_message` inflates them within the limits.
        """
        options: dict[str, int | str] = {
            "grpc.max_receive_message_length": self.max_request_bytes,
            "grpc.max_send_message_length": -1,
            "grpc.so_reuseport": 0,
            "grpc.per_message_decompression": 0,
        }
        for pair in filter(None, self.grpc_channel_arguments.split(",")):
            key, equals, value = pair.partition("=")
            if not key or not equals:
                raise SettingsError(f"<grpc_channel_arguments>: {pair!r} is no key=value pair")
            options[key] = int(value) if value.lstrip("-").isdigit() else value
        return list(options.items())


_FILES = ("model_config_file", "batching_parameters_file", "monitoring_config_file", "ssl_config_file")
_ABOVE_ZERO = (
    "rest_api_num_threads",
    "rest_api_timeout_in_ms",
    "num_request_iterations_for_warmup",
    "grpc_max_threads",
    "grpc_timeout_in_ms",
    "max_request_bytes",
    "max_request_bytes_in_flight",
    "max_image_pixels",
    "max_request_pixels",
    "max_concurrent_requests",
    "request_log_max_bytes",
    "model_cache_max_bytes",
)
_AT_MOST = {"port": 65535, "rest_api_port": 65535, "max_request_bytes": (1 << 31) - 1}
_NOT_NEGATIVE = (
    "model_config_file_poll_wait_seconds",
    "max_num_load_retries",
    "load_retry_interval_micros",
    "tensorflow_session_parallelism",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
    "lame_duck_s",
    "drain_s",
)


def host_and_port(host: str, port: int) -> str:
    """Return an address as clients write it: an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def help_texts() -> dict[str, str]:
    """Return what each setting does, by name."""
    return {setting.name: setting.metadata["help"] for setting in fields(ServerSettings)}
