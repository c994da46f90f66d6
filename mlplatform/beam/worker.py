"""The Python worker that an engine starts as a process, in an environment that has all it needs.

Does what the boot program of Beam's container does, and installs nothing: it asks the engine for the job's
options, fetches the staged files, puts wheels on the import path and runs Beam's worker. Two workers of one
environment can start at the same time.

Source: `sdks/python/container/boot.go` of Beam 2.70.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlplatform.private_names import Patch, apply_patches


def main(words: Sequence[str] | None = None) -> None:
    """Run a worker until the engine ends it; `words` are the arguments of the engine."""
    parser = argparse.ArgumentParser(prog="mlplatform-beam-worker", description=__doc__)
    for name in ("id", "provision_endpoint", "logging_endpoint", "artifact_endpoint", "control_endpoint"):
        parser.add_argument(f"--{name}", default="")
    given, _ = parser.parse_known_args(words)
    os.environ["WORKER_ID"] = given.id  # read by the interceptor below
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    folder = Path(tempfile.mkdtemp(prefix="mlplatform-worker-"))
    try:
        _work(given, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _work(given: argparse.Namespace, folder: Path) -> None:
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
    from google.protobuf import json_format

    provision = beam_provision_api_pb2_grpc.ProvisionServiceStub(_channel(given.provision_endpoint, given.id))
    info = provision.GetProvisionInfo(beam_provision_api_pb2.GetProvisionInfoRequest()).info
    _fetch(info, info.artifact_endpoint.url or given.artifact_endpoint, given.id, folder)
    os.environ["PIPELINE_OPTIONS"] = json_format.MessageToJson(info.pipeline_options)
    os.environ["SEMI_PERSISTENT_DIRECTORY"] = str(folder)
    os.environ["RUNNER_CAPABILITIES"] = " ".join(info.runner_capabilities)
    os.environ["LOGGING_API_SERVICE_DESCRIPTOR"] = _descriptor(
        info.logging_endpoint.url or given.logging_endpoint
    )
    os.environ["CONTROL_API_SERVICE_DESCRIPTOR"] = _descriptor(
        info.control_endpoint.url or given.control_endpoint
    )

    from apache_beam.runners.worker import sdk_worker_main

    apply_patches((CONNECT_FIRST,))
    sdk_worker_main.main(["sdk_worker_main"])


def _connect_before_unpickling() -> None:
    """Open a bundle's data channel before its functions are unpickled.

    An engine in Java waits for the channel, for three minutes in each attempt, before it sees that there was
    an error: also for a worker whose functions cannot be unpickled, as where a module is not installed.
    """
    from apache_beam.portability.api import beam_fn_api_pb2
    from apache_beam.runners.worker import bundle_processor

    build = bundle_processor.BundleProcessor.create_execution_tree
    ends = (bundle_processor.DATA_INPUT_URN, bundle_processor.DATA_OUTPUT_URN)

    def connect_and_build(processor: Any, descriptor: Any) -> Any:
        for transform in descriptor.transforms.values():
            if transform.spec.urn in ends:
                port = beam_fn_api_pb2.RemoteGrpcPort.FromString(transform.spec.payload)
                processor.data_channel_factory.create_data_channel(port)
        return build(processor, descriptor)

    bundle_processor.BundleProcessor.create_execution_tree = connect_and_build


CONNECT_FIRST = Patch(
    _connect_before_unpickling,
    (
        "apache_beam.runners.worker.bundle_processor:BundleProcessor.create_execution_tree",
        "apache_beam.runners.worker.data_plane:GrpcClientDataChannelFactory.create_data_channel",
    ),
)


def _fetch(info: Any, endpoint: str, worker: str, folder: Path) -> None:
    """Fetch what is staged for the job; wheels go on the import path."""
    from apache_beam.portability.api import (
        beam_artifact_api_pb2,
        beam_artifact_api_pb2_grpc,
        beam_runner_api_pb2,
    )

    staged = folder / "staged"
    staged.mkdir()
    if not info.dependencies:
        return
    stub = beam_artifact_api_pb2_grpc.ArtifactRetrievalServiceStub(_channel(endpoint, worker))
    request = beam_artifact_api_pb2.ResolveArtifactsRequest(artifacts=info.dependencies)
    for artifact in stub.ResolveArtifacts(request).replacements:
        name = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload).staged_name
        path = staged / Path(name).name
        with path.open("wb") as file:
            for part in stub.GetArtifact(beam_artifact_api_pb2.GetArtifactRequest(artifact=artifact)):
                file.write(part.data)
        if path.suffix == ".whl":
            sys.path.insert(0, str(path))


def _channel(url: str, worker: str) -> Any:
    import grpc
    from apache_beam.runners.worker.worker_id_interceptor import WorkerIdInterceptor

    return grpc.intercept_channel(grpc.insecure_channel(url), WorkerIdInterceptor(worker))


def _descriptor(url: str) -> str:
    from apache_beam.portability.api import endpoints_pb2
    from google.protobuf import text_format

    return str(text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=url)))


if __name__ == "__main__":
    main()
