"""The fields of an executor's entry in the platform document, and what they hold.

Source: `kubernetes_executor_config.proto` of Kubeflow Pipelines 2.17.
"""

from typing import Any

_NAME: Any = {}  # an input parameter: any mapping
_LABELS = {"*": str}
_SELECTOR = {"key": str, "operator": str, "values": [str]}
_METADATA = {"labels": _LABELS, "annotations": _LABELS}
FIELDS: dict[str, Any] = {
    "secretAsVolume": [{"secretName": str, "mountPath": str, "optional": bool, "secretNameParameter": _NAME}],
    "secretAsEnv": [
        {
            "secretName": str,
            "keyToEnv": [{"secretKey": str, "envVar": str}],
            "optional": bool,
            "secretNameParameter": _NAME,
        }
    ],
    "pvcMount": [
        {
            "taskOutputParameter": _NAME,
            "constant": str,
            "componentInputParameter": str,
            "mountPath": str,
            "pvcNameParameter": _NAME,
            "subPath": str,
        }
    ],
    "nodeSelector": {"labels": _LABELS, "nodeSelectorJson": _NAME},
    "podMetadata": _METADATA,
    "imagePullSecret": [{"secretName": str, "secretNameParameter": _NAME}],
    "imagePullPolicy": ("Always", "Never", "IfNotPresent"),
    "configMapAsVolume": [
        {"configMapName": str, "mountPath": str, "optional": bool, "configMapNameParameter": _NAME}
    ],
    "configMapAsEnv": [
        {
            "configMapName": str,
            "keyToEnv": [{"configMapKey": str, "envVar": str}],
            "configMapNameParameter": _NAME,
            "optional": bool,
        }
    ],
    "activeDeadlineSeconds": int,
    "fieldPathAsEnv": [{"name": str, "fieldPath": str}],
    "tolerations": [
        {
            "key": str,
            "operator": ("Exists", "Equal"),
            "value": str,
            "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
            "tolerationSeconds": int,
            "tolerationJson": _NAME,
        }
    ],
    "genericEphemeralVolume": [
        {
            "volumeName": str,
            "mountPath": str,
            "accessModes": [str],
            "size": str,
            "defaultStorageClass": bool,
            "storageClassName": str,
            "metadata": _METADATA,
        }
    ],
    "nodeAffinity": [
        {
            "matchExpressions": [_SELECTOR],
            "matchFields": [_SELECTOR],
            "weight": int,
            "nodeAffinityJson": _NAME,
        }
    ],
    "podAffinity": [
        {
            "matchPodExpressions": [_SELECTOR],
            "matchPodLabels": _LABELS,
            "topologyKey": str,
            "namespaces": [str],
            "matchNamespaceExpressions": [_SELECTOR],
            "matchNamespaceLabels": _LABELS,
            "weight": int,
            "anti": bool,
        }
    ],
    "enabledSharedMemory": {"volumeName": str, "size": str},
    "emptyDirMounts": [{"volumeName": str, "mountPath": str, "medium": str, "sizeLimit": str}],
    "securityContext": {"runAsUser": int, "runAsGroup": int, "runAsNonRoot": bool},
}


def problems_in(value: Any, kind: Any, place: str) -> list[str]:
    """Return what is wrong with a part of the document, one sentence each.

    Args:
        value: The part.
        kind: What it should hold, as in `FIELDS`.
        place: Its name, for the sentences.
    """
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return [f"{place} is {value!r}, not a mapping"]
        if not kind:
            return []
        if "*" in kind:
            pairs = [(name, kind["*"]) for name in value]
        else:
            unknown = [
                f"{place} has no field {name!r}; known are {', '.join(kind)}"
                for name in value
                if name not in kind
            ]
            if unknown:
                return unknown
            pairs = [(name, kind[name]) for name in value]
        return [each for name, of in pairs for each in problems_in(value[name], of, f"{place}.{name}")]
    if isinstance(kind, list):
        if not isinstance(value, list):
            return [f"{place} is {value!r}, not a list"]
        return [
            each for at, part in enumerate(value) for each in problems_in(part, kind[0], f"{place}[{at}]")
        ]
    if isinstance(kind, tuple):
        return [] if value in kind else [f"{place} is {value!r}, not one of {', '.join(kind)}"]
    if kind is int:  # 64 bits travel as text
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        is_text = isinstance(value, str) and value.removeprefix("-").isdigit()
        return [] if is_whole or is_text else [f"{place} is {value!r}, not a whole number"]
    return [] if isinstance(value, kind) else [f"{place} is {value!r}, not {kind.__name__}"]
