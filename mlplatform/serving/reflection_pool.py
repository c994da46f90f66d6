"""Descriptions of the services, for gRPC reflection.

The `*_service_pb2` modules of `tensorflow-serving-api` cannot be imported beside protobuf 6; its messages
can.
"""

from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

_PACKAGE = "tensorflow.serving"
PREDICTION_SERVICE, MODEL_SERVICE = f"{_PACKAGE}.PredictionService", f"{_PACKAGE}.ModelService"

_SERVICES = {
    "PredictionService": {
        "Classify": (classification_pb2, "ClassificationRequest", "ClassificationResponse"),
        "Regress": (regression_pb2, "RegressionRequest", "RegressionResponse"),
        "Predict": (predict_pb2, "PredictRequest", "PredictResponse"),
        "MultiInference": (inference_pb2, "MultiInferenceRequest", "MultiInferenceResponse"),
        "GetModelMetadata": (
            get_model_metadata_pb2,
            "GetModelMetadataRequest",
            "GetModelMetadataResponse",
        ),
    },
    "ModelService": {
        "GetModelStatus": (get_model_status_pb2, "GetModelStatusRequest", "GetModelStatusResponse"),
        "HandleReloadConfigRequest": (
            model_management_pb2,
            "ReloadConfigRequest",
            "ReloadConfigResponse",
        ),
    },
}
_FILES = {
    "PredictionService": "tensorflow_serving/apis/prediction_service.proto",
    "ModelService": "tensorflow_serving/apis/model_service.proto",
}


def reflection_pool() -> descriptor_pool.DescriptorPool:
    """Return a pool with the server's services and all their messages."""
    pool = descriptor_pool.DescriptorPool()
    added: set[str] = set()
    for module in (health_pb2, reflection_pb2):
        _add(module.DESCRIPTOR, pool, added)
    for service_name, methods in _SERVICES.items():
        file = descriptor_pb2.FileDescriptorProto(
            name=_FILES[service_name], package=_PACKAGE, syntax="proto3"
        )
        service = file.service.add(name=service_name)
        for method, (module, request, response) in methods.items():
            _add(module.DESCRIPTOR, pool, added)
            if module.DESCRIPTOR.name not in file.dependency:
                file.dependency.append(module.DESCRIPTOR.name)
            service.method.add(
                name=method, input_type=f".{_PACKAGE}.{request}", output_type=f".{_PACKAGE}.{response}"
            )
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add(file: object, pool: descriptor_pool.DescriptorPool, added: set[str]) -> None:
    """Add a file after those that it needs."""
    name, needed = file.name, file.dependencies  # type: ignore[attr-defined]
    if name in added:
        return
    added.add(name)
    for one in needed:
        _add(one, pool, added)
    pool.AddSerializedFile(file.serialized_pb)  # type: ignore[attr-defined]
