"""The pod of a task, of its spec and the platform document; real ones run in tests/kubernetes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlplatform.orchestration.kubeflow.options import parse_options
from mlplatform.orchestration.kubeflow.platform_document import kubernetes_entry, set_container
from mlplatform.testing.kubeflow.containers import Container
from mlplatform.testing.kubeflow.pods import pod_of

Unknown = Callable[[Any, str, str], list[str]]


def pod(tmp_path: Path, **options: Any) -> dict[str, Any]:
    """The pod of a container with options, as the compiler writes them."""
    chosen = parse_options({"image": "team:1", **options}).of("Trainer")
    container: dict[str, Any] = {}
    set_container(container, chosen)
    made = Container(
        command=("python", "-m", "program"),
        environment={
            **{each["name"]: each["value"] for each in container.get("env", ())},
            "MLPLATFORM_TERMINATION_LOG": str(tmp_path / "termination-log"),
        },
        folder=tmp_path / "work",
        tmp=tmp_path / "tmp",
        log=tmp_path / "log",
        disk=tmp_path,
        task="Trainer",
        image="team:1",
        resources=container.get("resources", {}),
        platform=kubernetes_entry(chosen),
    )
    return pod_of(made, {"OF_ALL": "1"})


def test_a_task_without_options(tmp_path: Path, unknown_fields: Unknown) -> None:
    made = pod(tmp_path)
    assert unknown_fields(made, "V1Pod", "Pod") == []
    (container,) = made["spec"]["containers"]
    env = {each["name"]: each["value"] for each in container["env"]}
    assert env == {"OF_ALL": "1", "TMPDIR": str(tmp_path / "tmp")}  # the message goes to Kubernetes' own file
    assert container["resources"] == {}
    assert made["spec"]["securityContext"]["runAsNonRoot"]
    (mount,) = container["volumeMounts"]
    assert mount["mountPath"] == str(tmp_path) == made["spec"]["volumes"][0]["hostPath"]["path"]


def test_every_option(tmp_path: Path, unknown_fields: Unknown) -> None:
    made = pod(
        tmp_path,
        cpu="500m",
        memory="1G",
        gpu=2,
        env={"MODE": "fast", "OF_ALL": "2"},
        secrets={"bucket": {"env": {"AWS_ACCESS_KEY_ID": "key"}, "path": "/secret"}},
        config_maps={"settings": {"env": {"LEVEL": "level"}, "optional": True}},
        volumes={"photos": "/mnt/photos"},
        node_selector={"pool": "gpu"},
        affinity=[
            {"labels": [{"key": "zone", "operator": "In", "values": ["a"]}]},
            {"labels": [{"key": "disk", "operator": "Exists"}], "weight": 5},
        ],
        tolerations=[{"key": "spot", "operator": "Exists", "effect": "NoExecute", "toleration_seconds": 60}],
        labels={"team": "items"},
        image_pull_policy="Never",
        image_pull_secrets=["registry"],
        timeout_s=60,
        ephemeral_storage={"size": "1Gi"},
    )
    assert unknown_fields(made, "V1Pod", "Pod") == []
    spec = made["spec"]
    (container,) = spec["containers"]
    limits = {"cpu": "500m", "memory": "1000M", "nvidia.com/gpu": "2"}
    assert container["resources"] == {"limits": limits, "requests": limits}
    env = {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}
    assert (env["MODE"], env["OF_ALL"]) == ("fast", "2")
    key = {"name": "bucket", "key": "key", "optional": False}
    assert env["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": key}
    assert env["LEVEL"]["configMapKeyRef"]["optional"]
    places = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes[places["/secret"]]["secret"]["secretName"] == "bucket"
    assert volumes[places["/mnt/photos"]]["persistentVolumeClaim"] == {"claimName": "photos"}
    assert volumes[places["/scratch"]]["emptyDir"] == {"sizeLimit": "1Gi"}
    assert env["TMPDIR"] == "/scratch"
    assert spec["nodeSelector"] == {"pool": "gpu"}
    tolerated = {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
    assert spec["tolerations"] == [tolerated]
    affinity = spec["affinity"]["nodeAffinity"]
    (required,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert required == {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    (preferred,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["weight"] == 5
    assert (spec["activeDeadlineSeconds"], container["imagePullPolicy"]) == (60, "Never")
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert made["metadata"]["labels"] == {"team": "items"}


def test_a_scratch_volume_of_a_storage_class(tmp_path: Path, unknown_fields: Unknown) -> None:
    made = pod(tmp_path, ephemeral_storage={"size": "1Gi", "storage_class": "fast"})
    assert unknown_fields(made, "V1Pod", "Pod") == []
    (claim,) = [each["ephemeral"] for each in made["spec"]["volumes"] if "ephemeral" in each]
    spec = claim["volumeClaimTemplate"]["spec"]
    assert (spec["storageClassName"], spec["resources"]["requests"]) == ("fast", {"storage": "1Gi"})
