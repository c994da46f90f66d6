"""TensorFlow Serving's configuration files in text form: batching, monitoring and TLS.

`tensorflow-serving-api` does not carry these messages, so they are described here, by name, number and type.
"""

import logging
import os
import re
import ssl
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf import wrappers_pb2 as wrappers_pb2  # its descriptors are what the messages refer to

from mlplatform.errors import UsageError
from mlplatform.serving.scheduling import BatchingParameters
from mlplatform.serving.wire import message_class

log = logging.getLogger(__name__)

DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"

_PACKAGE = "mlplatform.serving.text_config"
_NOT_TAKEN = ("pad_variable_length_inputs", "enable_large_batch_splitting", "max_execution_batch_size")
_PEM = re.compile("-----BEGIN ([A-Z0-9 ]+)-----")
_PEM_KINDS = {"server_key": "PRIVATE KEY", "server_cert": "CERTIFICATE", "custom_ca": "CERTIFICATE"}
_Field = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, dict[str, Any]] = {
    "BatchingParameters": {
        "max_batch_size": ".google.protobuf.Int64Value",
        "batch_timeout_micros": ".google.protobuf.Int64Value",
        "max_enqueued_batches": ".google.protobuf.Int64Value",
        "num_batch_threads": ".google.protobuf.Int64Value",
        "thread_pool_name": ".google.protobuf.StringValue",
        "allowed_batch_sizes": [_Field.TYPE_INT64],
        "pad_variable_length_inputs": _Field.TYPE_BOOL,
        "enable_large_batch_splitting": ".google.protobuf.BoolValue",
        "max_execution_batch_size": ".google.protobuf.Int64Value",
    },
    "PrometheusConfig": {"enable": _Field.TYPE_BOOL, "path": _Field.TYPE_STRING},
    "MonitoringConfig": {"prometheus_config": f".{_PACKAGE}.PrometheusConfig"},
    "SSLConfig": {
        "server_key": _Field.TYPE_STRING,
        "server_cert": _Field.TYPE_STRING,
        "custom_ca": _Field.TYPE_STRING,
        "client_verify": _Field.TYPE_BOOL,
    },
}


class ConfigFileError(UsageError):
    """A configuration file cannot be read, or does not hold what it should."""

    def __init__(self, file: Path, message: str, reason: str) -> None:
        super().__init__(file, message, reason)
        self.file, self.message, self.reason = file, message, reason

    def __str__(self) -> str:
        return f"{self.file} is not a {self.message} in text form: {self.reason}"


def read_batching_parameters(file: Path, defaults: BatchingParameters) -> BatchingParameters:
    """Read a BatchingParameters file; what it does not say stays as in `defaults`.

    Raises:
        ConfigFileError: It cannot be read, or its values do not fit together.
    """
    found = _read(file, "BatchingParameters")

    def value(name: str, default: int) -> int:
        return int(getattr(found, name).value) if found.HasField(name) else default

    for name in ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"):
        least = 0 if name == "batch_timeout_micros" else 1
        if found.HasField(name) and value(name, least) < least:
            raise ConfigFileError(file, "BatchingParameters", f"{name} {value(name, 0)} is below {least}")
    max_batch_size = value("max_batch_size", defaults.max_batch_size)
    sizes = tuple(found.allowed_batch_sizes)
    if sizes and (list(sizes) != sorted(set(sizes)) or sizes[-1] != max_batch_size):
        reason = (
            f"allowed_batch_sizes {list(sizes)} must increase, and end with max_batch_size {max_batch_size}"
        )
        raise ConfigFileError(file, "BatchingParameters", reason)
    for field, _ in found.ListFields():
        if field.name in _NOT_TAKEN:
            log.warning("%s: %s is read and has no effect on this server", file, field.name)
    batches = value("max_enqueued_batches", 0)
    return BatchingParameters(
        max_batch_size=max_batch_size,
        batch_timeout_micros=value("batch_timeout_micros", defaults.batch_timeout_micros),
        num_batch_threads=value("num_batch_threads", defaults.num_batch_threads),
        max_queued=batches * max_batch_size if batches else defaults.max_queued,
        allowed_batch_sizes=sizes,
    )


def read_metrics_path(file: Path) -> str | None:
    """Return the path of the metrics page that a MonitoringConfig file turns on, or None.

    Raises:
        ConfigFileError: It cannot be read.
    """
    prometheus = _read(file, "MonitoringConfig").prometheus_config
    return (prometheus.path or DEFAULT_METRICS_PATH) if prometheus.enable else None


def read_ssl_config(file: Path) -> Any:
    """Return the SSLConfig in a file: PEM texts of key and certificates.

    Raises:
        ConfigFileError: It cannot be read, or its key and certificates are missing, broken or of different
            pairs.
    """
    config = _read(file, "SSLConfig")
    if not config.server_key or not config.server_cert:
        raise ConfigFileError(file, "SSLConfig", "server_key and server_cert (PEM texts) are both needed")
    if config.client_verify and not config.custom_ca:
        reason = "client_verify needs custom_ca: the authority that signs the clients' certificates"
        raise ConfigFileError(file, "SSLConfig", reason)
    for name, kind in _PEM_KINDS.items():
        text = getattr(config, name)
        if text and f"{kind}-----" not in text:
            found = ", ".join(sorted(set(_PEM.findall(text)))) or "no PEM text"
            reason = f"{name} holds no {kind.lower()} but: {found.lower()}"
            if name != "custom_ca" and found != "no PEM text":
                reason += "; are server_key and server_cert swapped?"
            raise ConfigFileError(file, "SSLConfig", reason)
    what = "server_key and server_cert"
    try:
        _check_pair(config.server_key, config.server_cert)
        if config.custom_ca:
            what = "custom_ca"
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=config.custom_ca)
    except ssl.SSLError as error:
        reason = f"{what}: {error}"
        raise ConfigFileError(file, "SSLConfig", reason) from error
    return config


def _check_pair(key: str, certificate: str) -> None:
    """Have OpenSSL read a key and its certificate, which it takes from files only: from one in memory."""
    descriptor = os.memfd_create("tls")
    try:
        os.write(descriptor, f"{key}\n{certificate}".encode())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    finally:
        os.close(descriptor)


def _read(file: Path, message: str) -> Any:
    try:
        return text_format.Parse(file.read_text("utf-8"), _classes()[message]())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ConfigFileError(file, message, str(error)) from error


@cache
def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="mlplatform/serving/text_config.proto", package=_PACKAGE, syntax="proto3"
    )
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field_name, kind) in enumerate(fields.items(), start=1):
            field = message.field.add(name=field_name, number=number, label=_Field.LABEL_OPTIONAL)
            if isinstance(kind, list):
                field.label, kind = _Field.LABEL_REPEATED, kind[0]
            if isinstance(kind, str):
                field.type, field.type_name = _Field.TYPE_MESSAGE, kind
            else:
                field.type = kind
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    descriptors = {name: pool.FindMessageTypeByName(f"{_PACKAGE}.{name}") for name in _MESSAGES}
    return {name: message_class(found, pool) for name, found in descriptors.items()}
