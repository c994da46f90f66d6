"""Runs containers as pods of a real Kubernetes.

The launcher's copies are made on this machine: the folder that stands for a container's disk is mounted into
its pod. So the cluster's only node is this machine.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlplatform.serving.kubernetes_api import KubernetesApi, one_line
from mlplatform.testing.kubeflow.containers import Container
from mlplatform.testing.kubeflow.errors import DriverError

USER = 65534  # whom Kubeflow Pipelines runs containers as from 2.16 on
_LOOK_S = 0.5
_TERMINATION = "MLPLATFORM_TERMINATION_LOG"
# Why a container waits that will not start by itself.
_STUCK = (
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
)


class Pods:
    """Runs containers, one after another, in the namespace of the cluster that `$KUBECONFIG` names.

    Args:
        environment: Further variables of all containers.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._api = KubernetesApi()

    def run(self, container: Container) -> int:
        """Run a container to its end, and return its exit status.

        Raises:
            DriverError: Kubernetes refuses the pod, or cannot start it.
        """
        for folder in (container.disk, *(path for path in container.disk.rglob("*") if path.is_dir())):
            folder.chmod(0o777)  # the pod's user is another one
        path = f"/api/v1/namespaces/{self._api.namespace}/pods"
        try:
            made = self._api.request("POST", path, body=pod_of(container, self._environment))
        except Exception as error:  # of the client
            text = getattr(error, "body", None) or one_line(error)
            raise DriverError(container.task, f"Kubernetes refuses the pod: {text}") from error
        path = f"{path}/{made['metadata']['name']}"
        try:
            status = self._wait(path, container.task)
            # Empty where the pod was ended before its container started, as by its time limit.
            states: list[Mapping[str, Any]] = [each["state"] for each in status.get("containerStatuses", ())]
            ended = states[0].get("terminated", {}) if states else {}
            container.log.write_text(self._api.text(f"{path}/log") if ended else "", "utf-8")
        finally:
            self._api.request("DELETE", path)
        message = ended.get("message") or status.get("message", "")
        Path(container.environment[_TERMINATION]).write_text(message, "utf-8")
        return int(ended.get("exitCode", 1)) or int(status["phase"] != "Succeeded")

    def close(self) -> None:
        """Close the connection to the cluster."""
        self._api.close()

    def _wait(self, path: str, task: str) -> Mapping[str, Any]:
        """Return the status of a pod that has ended."""
        while True:
            status: Mapping[str, Any] = self._api.request("GET", path)["status"]
            if status["phase"] in ("Succeeded", "Failed"):
                return status
            for each in status.get("conditions", ()):
                if each.get("reason") == "Unschedulable":
                    raise DriverError(task, f"no node takes the pod: {each['message']}")
            for each in status.get("containerStatuses", ()):
                waiting = each["state"].get("waiting", {})
                if waiting.get("reason") in _STUCK:
                    raise DriverError(task, f"{waiting['reason']}: {waiting.get('message', '')}")
            time.sleep(_LOOK_S)


def pod_of(container: Container, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the pod of a container, with what its spec and the platform document say of it.

    Args:
        container: The container.
        environment: Variables of all containers; its own override them.
    """
    variables = {"TMPDIR": str(container.tmp), **environment, **container.environment}
    del variables[_TERMINATION]  # the message goes where Kubernetes has it by default
    platform = container.platform
    env: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in sorted(variables.items())]
    env += [
        {
            "name": key["envVar"],
            "valueFrom": {
                reference: {
                    "name": each[name],
                    "key": key[of],
                    "optional": each.get("optional", False),
                }
            },
        }
        for field, name, of, reference in (
            ("secretAsEnv", "secretName", "secretKey", "secretKeyRef"),
            ("configMapAsEnv", "configMapName", "configMapKey", "configMapKeyRef"),
        )
        for each in platform.get(field, ())
        for key in each["keyToEnv"]
    ]
    mounts = [
        (str(container.disk), {"hostPath": {"path": str(container.disk), "type": "Directory"}}),
        *_volumes(platform),
    ]
    limits = _limits(container.resources)
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "main",
                "image": container.image,
                "imagePullPolicy": platform.get("imagePullPolicy", "IfNotPresent"),
                "command": list(container.command),
                "workingDir": str(container.folder),
                "env": env,
                "resources": {"limits": limits, "requests": limits} if limits else {},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [
                    {"name": f"v{n}", "mountPath": place} for n, (place, _) in enumerate(mounts)
                ],
            }
        ],
        "volumes": [{"name": f"v{n}", **source} for n, (_, source) in enumerate(mounts)],
        "nodeSelector": platform.get("nodeSelector", {}).get("labels", {}),
        "affinity": _affinity(platform.get("nodeAffinity", ())),
        "tolerations": [_toleration(each) for each in platform.get("tolerations", ())],
        "imagePullSecrets": [{"name": each["secretName"]} for each in platform.get("imagePullSecret", ())],
    }
    if "activeDeadlineSeconds" in platform:
        spec["activeDeadlineSeconds"] = int(platform["activeDeadlineSeconds"])
    metadata = {"generateName": f"{container.task.lower()[:50]}-", **platform.get("podMetadata", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _volumes(platform: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return where what is mounted, by the platform document."""
    found: list[tuple[str, dict[str, Any]]] = []
    for each in platform.get("secretAsVolume", ()):
        source = {"secretName": each["secretName"], "optional": each.get("optional", False)}
        found.append((each["mountPath"], {"secret": source}))
    for each in platform.get("configMapAsVolume", ()):
        source = {"name": each["configMapName"], "optional": each.get("optional", False)}
        found.append((each["mountPath"], {"configMap": source}))
    for each in platform.get("pvcMount", ()):
        found.append((each["mountPath"], {"persistentVolumeClaim": {"claimName": each["constant"]}}))
    for each in platform.get("emptyDirMounts", ()):
        source = {name: each[name] for name in ("medium", "sizeLimit") if name in each}
        found.append((each["mountPath"], {"emptyDir": source}))
    for each in platform.get("genericEphemeralVolume", ()):
        claim = {
            "accessModes": each["accessModes"],
            "resources": {"requests": {"storage": each["size"]}},
            "storageClassName": each["storageClassName"],
        }
        found.append((each["mountPath"], {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}))
    return found


def _toleration(each: Mapping[str, Any]) -> dict[str, Any]:
    """Return a toleration: JSON has the numbers of protocol buffers as texts."""
    return {name: int(value) if name == "tolerationSeconds" else value for name, value in each.items()}


def _affinity(terms: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return which nodes are required, one of the terms that have no weight, and which are preferred."""
    required = [{"matchExpressions": each["matchExpressions"]} for each in terms if "weight" not in each]
    preferred = [
        {"weight": each["weight"], "preference": {"matchExpressions": each["matchExpressions"]}}
        for each in terms
        if "weight" in each
    ]
    found: dict[str, Any] = {}
    if required:
        found["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": required}
    if preferred:
        found["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return {"nodeAffinity": found} if found else {}


def _limits(resources: Mapping[str, Any]) -> dict[str, str]:
    """Return a container's limits, which are its requests, too."""
    found = {}
    if "cpuLimit" in resources:
        found["cpu"] = f"{round(resources['cpuLimit'] * 1000)}m"
    if "memoryLimit" in resources:
        found["memory"] = f"{round(resources['memoryLimit'] * 1000)}M"
    if "accelerator" in resources:
        found[resources["accelerator"]["type"]] = resources["accelerator"]["count"]
    return found
