"""GetModelMetadata, GetModelStatus, HandleReloadConfigRequest's refusals, health and reflection."""

from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_management_pb2

pytestmark = pytest.mark.e2e


def metadata(model: str | None = "half_plus_two", *fields: str) -> Any:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    if model is not None:
        request.model_spec.name = model
    return request


class TestMetadata:
    def test_signatures(self, stub: Any) -> None:
        answer = stub.GetModelMetadata(metadata("half_plus_two", "signature_def"))
        assert answer.model_spec.name == "half_plus_two"
        assert answer.model_spec.version.value == 123
        signatures = get_model_metadata_pb2.SignatureDefMap()
        assert answer.metadata["signature_def"].Unpack(signatures)
        found = signatures.signature_def["regress_x_to_y"]
        assert found.method_name == "tensorflow/serving/regress"
        assert found.inputs["inputs"].name == "tf_example:0"

    @pytest.mark.parametrize(
        ("request_", "code", "text"),
        [
            (metadata(), "INVALID_ARGUMENT", "must specify at least one metadata_field"),
            (metadata("half_plus_two", "other"), "INVALID_ARGUMENT", "is not supported"),
            (metadata(None, "signature_def"), "INVALID_ARGUMENT", "Missing ModelSpec"),
            (metadata("m", "signature_def"), "NOT_FOUND", "Servable not found for request: Latest(m)"),
        ],
    )
    def test_refused(self, stub: Any, refused: Any, request_: Any, code: str, text: str) -> None:
        found_code, found_text = refused(stub.GetModelMetadata, request_)
        assert found_code == code
        assert text in found_text


def status(model: str, version: int | None = None) -> Any:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    return request


class TestStatus:
    @pytest.mark.parametrize("version", [None, 123])
    def test_available(self, model_stub: Any, version: int | None) -> None:
        (found,) = model_stub.GetModelStatus(status("half_plus_two", version)).model_version_status
        assert (found.version, found.state, found.status.error_code) == (123, 30, 0)

    def test_a_version_that_did_not_load(self, model_stub: Any, target: Any) -> None:
        if not target.is_ours:
            pytest.skip("a server with a broken model in its configuration does not start")
        (found,) = model_stub.GetModelStatus(status("broken")).model_version_status
        assert found.state == 50
        assert found.status.error_code != 0
        assert "saved_model.pb" in found.status.error_message

    def test_no_spec(self, model_stub: Any, refused: Any) -> None:
        request = get_model_status_pb2.GetModelStatusRequest()
        assert refused(model_stub.GetModelStatus, request) == ("INVALID_ARGUMENT", "Missing ModelSpec")

    @pytest.mark.parametrize(
        ("request_", "text"),
        [
            (status("m"), "Could not find any versions of model m"),
            (status("half_plus_two", 9), "Could not find version 9 of model half_plus_two"),
        ],
    )
    def test_unknown(self, model_stub: Any, refused: Any, request_: Any, text: str) -> None:
        assert refused(model_stub.GetModelStatus, request_) == ("NOT_FOUND", text)


def reload_request(*entries: dict[str, Any]) -> Any:
    request = model_management_pb2.ReloadConfigRequest()
    for entry in entries:
        request.config.model_config_list.config.add(**{"model_platform": "tensorflow", **entry})
    return request


class TestReloadRefusals:
    @pytest.mark.parametrize(
        ("request_", "text"),
        [
            (model_management_pb2.ReloadConfigRequest(), "Only ModelConfigList is currently supported"),
            (
                reload_request({"name": "m", "base_path": "/a"}, {"name": "m", "base_path": "/b"}),
                "Illegal to list model m multiple times in config list",
            ),
            (
                reload_request({"name": "m", "base_path": "a/b"}),
                "Expected model m to have an absolute path or URI; got base_path()=a/b",
            ),
            (
                reload_request({"name": "m", "base_path": "/a", "model_platform": ""}),
                "Illegal setting neither",
            ),
            (reload_request({"name": "m", "base_path": "/a", "model_type": 1}), "Illegal setting both"),
        ],
    )
    def test_nothing_changes(self, model_stub: Any, refused: Any, request_: Any, text: str) -> None:
        code, found = refused(model_stub.HandleReloadConfigRequest, request_)
        assert code == "INVALID_ARGUMENT"
        assert text in found
        assert model_stub.GetModelStatus(status("half_plus_two")).model_version_status[0].state == 30


class TestStandardServices:
    def test_health(self, channel: grpc.Channel, target: Any) -> None:
        if not target.is_ours:
            pytest.skip("TensorFlow Serving has no health service by default")
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"):
            assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == 1

    def test_reflection(self, channel: grpc.Channel, target: Any) -> None:
        if not target.is_ours:
            pytest.skip("TensorFlow Serving has no reflection by default")
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([asked]))
        names = {service.name for service in answer.list_services_response.service}
        assert {"tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"} <= names

    @pytest.mark.parametrize(
        ("symbol", "file", "holds"),
        [
            ("tensorflow.serving.PredictionService", "prediction_service.proto", b"GetModelMetadata"),
            ("tensorflow.serving.ModelService", "model_service.proto", b"HandleReloadConfigRequest"),
            ("tensorflow.serving.PredictRequest", "predict.proto", b"output_filter"),
        ],
    )
    def test_reflection_describes_services_and_messages(
        self, channel: grpc.Channel, target: Any, symbol: str, file: str, holds: bytes
    ) -> None:
        if not target.is_ours:
            pytest.skip("TensorFlow Serving has no reflection by default")
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
        (answer,) = stub.ServerReflectionInfo(iter([asked]))
        described = descriptor_pb2.FileDescriptorProto.FromString(
            answer.file_descriptor_response.file_descriptor_proto[0]
        )
        assert described.name == f"tensorflow_serving/apis/{file}"
        assert holds in described.SerializeToString()
