"""The fields of an executor's entry in the platform document, as the server parses it.

Source: kubeflow/pipelines, kubernetes_platform/proto/kubernetes_executor_config.proto. A list
stands for a repeated field; `parameter` is an InputParameterSpec, which is not looked into.
"""

from typing import Any

Fields = dict[str, Any]

_REQUIREMENT: Fields = {"key": "string", "operator": "string", "values": ["string"]}
_LABELS: Fields = {"labels": "map", "annotations": "map"}
_ENV: Fields = {"envVar": "string"}

EXECUTOR: Fields = {
    "secretAsVolume": [
        {
            "secretName": "string",
            "mountPath": "string",
            "optional": "bool",
            "secretNameParameter": "parameter",
        }
    ],
    "secretAsEnv": [
        {
            "secretName": "string",
            "keyToEnv": [{"secretKey": "string", **_ENV}],
            "optional": "bool",
            "secretNameParameter": "parameter",
        }
    ],
    "pvcMount": [
        {
            "taskOutputParameter": "parameter",
            "constant": "string",
            "componentInputParameter": "string",
            "mountPath": "string",
            "pvcNameParameter": "parameter",
            "subPath": "string",
        }
    ],
    "nodeSelector": {"labels": "map", "nodeSelectorJson": "parameter"},
    "podMetadata": _LABELS,
    "imagePullSecret": [{"secretName": "string", "secretNameParameter": "parameter"}],
    "imagePullPolicy": "string",
    "configMapAsVolume": [
        {
            "configMapName": "string",
            "mountPath": "string",
            "optional": "bool",
            "configMapNameParameter": "parameter",
        }
    ],
    "configMapAsEnv": [
        {
            "configMapName": "string",
            "keyToEnv": [{"configMapKey": "string", **_ENV}],
            "configMapNameParameter": "parameter",
            "optional": "bool",
        }
    ],
    "activeDeadlineSeconds": "int",
    "fieldPathAsEnv": [{"name": "string", "fieldPath": "string"}],
    "tolerations": [
        {
            **dict.fromkeys(("key", "operator", "value", "effect"), "string"),
            "tolerationSeconds": "int",
            "tolerationJson": "parameter",
        }
    ],
    "genericEphemeralVolume": [
        {
            "volumeName": "string",
            "mountPath": "string",
            "accessModes": ["string"],
            "size": "string",
            "defaultStorageClass": "bool",
            "storageClassName": "string",
            "metadata": _LABELS,
        }
    ],
    "nodeAffinity": [
        {
            "matchExpressions": [_REQUIREMENT],
            "matchFields": [_REQUIREMENT],
            "weight": "int",
            "nodeAffinityJson": "parameter",
        }
    ],
    "podAffinity": [
        {
            "matchPodExpressions": [_REQUIREMENT],
            "matchPodLabels": "map",
            "topologyKey": "string",
            "namespaces": ["string"],
            "matchNamespaceExpressions": [_REQUIREMENT],
            "matchNamespaceLabels": "map",
            "weight": "int",
            "anti": "bool",
        }
    ],
    "enabledSharedMemory": {"volumeName": "string", "size": "string"},
    "emptyDirMounts": [
        dict.fromkeys(("volumeName", "mountPath", "medium", "sizeLimit"), "string"),
    ],
    "securityContext": {"runAsUser": "int", "runAsGroup": "int", "runAsNonRoot": "bool"},
}


def problem_of(config: Any, fields: Any = EXECUTOR) -> str:
    """Return what a strict parser objects to; empty for nothing. Places are left out."""
    if isinstance(fields, list):
        if not isinstance(config, list):
            return f"unexpected token {_token(config)}"
        return next((found for each in config if (found := problem_of(each, fields[0]))), "")
    if isinstance(fields, dict) or fields in ("map", "parameter"):
        if not isinstance(config, dict):
            return f"unexpected token {_token(config)}"
        if fields == "map":
            wrong = [value for value in config.values() if not isinstance(value, str)]
            return f"invalid value for string field value: {_token(wrong[0])}" if wrong else ""
        for name, value in config.items() if isinstance(fields, dict) else ():
            if name not in fields:
                return f'unknown field "{name}"'
            if found := problem_of(value, fields[name]):
                return found
        return ""
    return "" if _is_scalar(config, fields) else f"invalid value for {fields} field: {_token(config)}"


def _is_scalar(value: Any, kind: str) -> bool:
    if kind == "int":  # 64-bit numbers travel as text
        text = str(value).removeprefix("-")
        return not isinstance(value, bool) and isinstance(value, (int, str)) and text.isdigit()
    return isinstance(value, bool if kind == "bool" else str)


def _token(value: Any) -> str:
    if isinstance(value, dict | list):
        return "{" if isinstance(value, dict) else "["
    return f'"{value}"' if isinstance(value, str) else str(value).lower()
