"""A node's options as Kubeflow Pipelines has them: in its container and task, and in the platform document.

Names of secrets, config maps and claims are written in two ways: servers up to 2.5 read the plain field,
newer ones the parameter beside it. Later typed fields are not written: older servers parse strictly.
"""

from typing import Any

from mlplatform.orchestration.kubeflow.options import NodeOptions, ObjectKeys, quantity


def set_container(container: dict[str, Any], options: NodeOptions) -> None:
    """Write image, environment and resources of a container."""
    env = dict(options.env)
    if options.ephemeral_storage:
        env.setdefault("TMPDIR", options.ephemeral_storage.path)
    if env:
        container["env"] = [{"name": name, "value": value} for name, value in sorted(env.items())]
    resources: dict[str, Any] = {}
    if options.cpu is not None:
        resources["cpuLimit"] = quantity(options.cpu)
    if options.memory is not None:
        resources["memoryLimit"] = quantity(options.memory) / 1e9  # in units of 10^9 bytes
    if options.gpu:
        resources["accelerator"] = {"type": options.gpu_type, "count": str(options.gpu)}
    if resources:
        container["resources"] = resources


def set_task(task: dict[str, Any], options: NodeOptions) -> None:
    """Write how often a task may try."""
    if options.retries:
        task["retryPolicy"] = {
            "maxRetryCount": options.retries,
            "backoffDuration": f"{options.retry_wait_s}s",
            "backoffFactor": options.retry_factor,
            "backoffMaxDuration": f"{options.retry_max_wait_s}s",
        }


def kubernetes_entry(options: NodeOptions) -> dict[str, Any]:
    """Return an executor's entry in the platform document; empty where nothing is to be said."""
    entry: dict[str, Any] = {
        "secretAsEnv": [
            {**_named("secretName", name), "optional": keys.optional, "keyToEnv": _keys(keys, "secretKey")}
            for name, keys in options.secrets.items()
            if keys.env
        ],
        "secretAsVolume": [
            {**_named("secretName", name), "optional": keys.optional, "mountPath": keys.path}
            for name, keys in options.secrets.items()
            if keys.path
        ],
        "configMapAsEnv": [
            {
                **_named("configMapName", name),
                "optional": keys.optional,
                "keyToEnv": _keys(keys, "configMapKey"),
            }
            for name, keys in options.config_maps.items()
            if keys.env
        ],
        "configMapAsVolume": [
            {**_named("configMapName", name), "optional": keys.optional, "mountPath": keys.path}
            for name, keys in options.config_maps.items()
            if keys.path
        ],
        "pvcMount": [
            {"constant": claim, "pvcNameParameter": _constant(claim), "mountPath": path}
            for claim, path in options.volumes.items()
        ],
        "imagePullSecret": [_named("secretName", name) for name in options.image_pull_secrets],
        "imagePullPolicy": options.image_pull_policy or "",
        "tolerations": [_toleration(each) for each in options.tolerations],
        "nodeAffinity": [_affinity(each) for each in options.affinity],
    }
    if options.node_selector:
        entry["nodeSelector"] = {"labels": options.node_selector}
    if options.timeout_s is not None:
        entry["activeDeadlineSeconds"] = str(options.timeout_s)
    metadata = {"labels": options.labels, "annotations": options.annotations}
    entry["podMetadata"] = {name: value for name, value in metadata.items() if value}
    scratch = options.ephemeral_storage
    if scratch is not None and scratch.storage_class is None:
        entry["emptyDirMounts"] = [
            {"volumeName": "scratch", "mountPath": scratch.path, "sizeLimit": scratch.size}
        ]
    elif scratch is not None:
        entry["genericEphemeralVolume"] = [
            {
                "volumeName": "scratch",
                "mountPath": scratch.path,
                "accessModes": ["ReadWriteOnce"],
                "size": scratch.size,
                "storageClassName": scratch.storage_class,
            }
        ]
    return {name: value for name, value in entry.items() if value}


def _constant(value: str) -> dict[str, Any]:
    return {"runtimeValue": {"constant": value}}


def _named(field: str, name: str) -> dict[str, Any]:
    return {field: name, f"{field}Parameter": _constant(name)}


def _keys(keys: ObjectKeys, field: str) -> list[dict[str, str]]:
    return [{field: key, "envVar": variable} for variable, key in sorted(keys.env.items())]


def _toleration(each: Any) -> dict[str, Any]:
    found = {"key": each.key or "", "operator": each.operator, "value": each.value}
    found["effect"] = each.effect or ""
    if each.toleration_seconds is not None:
        found["tolerationSeconds"] = str(each.toleration_seconds)
    return {name: value for name, value in found.items() if value}


def _affinity(each: Any) -> dict[str, Any]:
    terms = [
        {"key": label.key, "operator": label.operator, **({"values": label.values} if label.values else {})}
        for label in each.labels
    ]
    found: dict[str, Any] = {"matchExpressions": terms}
    return found if each.weight is None else {**found, "weight": each.weight}
