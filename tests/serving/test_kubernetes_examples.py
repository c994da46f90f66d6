"""The manifests: fields that Kubernetes has, names that fit together, flags and files that a server takes."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlplatform.cli.serve import serve
from mlplatform.serving.settings import ServerSettings

Unknown = Callable[[Any, str, str], list[str]]
FOLDER = Path(__file__).parents[2] / "examples" / "serving-kubernetes"
OURS = {
    "host",
    "root",
    "grpc_max_threads",
    "max_request_bytes",
    "max_concurrent_requests",
    "lame_duck_s",
    "drain_s",
}


def documents(name: str) -> dict[str, Any]:
    return {d["kind"]: d for d in yaml.safe_load_all((FOLDER / name).read_text("utf-8"))}


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return documents("tensorflow-serving.yaml")


@pytest.fixture(scope="module")
def pod(manifest: dict[str, Any]) -> Any:
    return manifest["Deployment"]["spec"]["template"]["spec"]


def test_fields(manifest: dict[str, Any], unknown_fields: Unknown) -> None:
    assert set(manifest) == {"ConfigMap", "Deployment", "Service"}
    for kind, document in manifest.items():
        assert unknown_fields(document, f"V1{kind}", kind) == []
    assert unknown_fields({"spec": {"paused": 1, "replica": 2}}, "V1Deployment", "D") == ["D.spec.replica"]


def test_names_fit_together(manifest: dict[str, Any], pod: Any) -> None:
    (server,) = pod["containers"]
    labels = manifest["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifest["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert manifest["Service"]["spec"]["selector"] == labels
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert {p["targetPort"]: p["port"] for p in manifest["Service"]["spec"]["ports"]} == ports
    assert {server[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe")} <= set(ports)
    assert {m["name"] for m in server["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert pod["volumes"][1]["configMap"]["name"] == manifest["ConfigMap"]["metadata"]["name"]


def test_a_roll_drops_no_request(pod: Any) -> None:
    (server,) = pod["containers"]
    command, seconds = server["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert 10 <= int(seconds) <= pod["terminationGracePeriodSeconds"] - 30


def test_flags_and_files(manifest: dict[str, Any], pod: Any, tmp_path: Path) -> None:
    from mlplatform.serving.model_config import checked_models, read_config_file
    from mlplatform.serving.text_config import read_metrics_path

    (server,) = pod["containers"]
    for name, text in manifest["ConfigMap"]["data"].items():
        (tmp_path / name).write_text(text)
    arguments = [argument.replace("/config", str(tmp_path), 1) for argument in server["args"]]
    given = {argument.removeprefix("--").partition("=")[0] for argument in arguments}
    assert not given & OURS  # TensorFlow Serving does not have these
    flags = serve.make_context("serve", arguments).params
    settings = ServerSettings(**{f.name: flags[f.name] for f in fields(ServerSettings) if f.name in given})
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert (settings.port, settings.rest_api_port) == (ports["grpc"], ports["rest"])
    models = checked_models(read_config_file(Path(settings.model_config_file)))
    assert models is not None
    assert models["item_category"].labels == {"stable": 1}
    (mount,) = (m for m in server["volumeMounts"] if m["name"] == "models")
    assert str(models["item_category"].base_path).startswith(mount["mountPath"])
    annotations = manifest["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert read_metrics_path(Path(settings.monitoring_config_file)) == annotations["prometheus.io/path"]
    for probe in ("startupProbe", "readinessProbe"):
        assert server[probe]["httpGet"]["path"] == "/v1/models/item_category/metadata"


KINDS = {
    "Deployment": "V1Deployment",
    "ConfigMap": "V1ConfigMap",
    "Service": "V1Service",
    "PodDisruptionBudget": "V1PodDisruptionBudget",
    "HorizontalPodAutoscaler": "V2HorizontalPodAutoscaler",
    "NetworkPolicy": "V1NetworkPolicy",
}


def test_our_server(tmp_path: Path, unknown_fields: Unknown) -> None:
    from mlplatform.serving.text_config import read_metrics_path

    found = documents("mlplatform-serving.yaml")
    assert set(found) == set(KINDS)
    for kind, document in found.items():
        assert unknown_fields(document, KINDS[kind], kind) == []
    template = found["Deployment"]["spec"]["template"]
    pod, labels = template["spec"], template["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    every_track = {"app": labels["app"]}
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == every_track
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == every_track
    assert found["Service"]["spec"]["selector"] == every_track
    scaled = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", found["Deployment"]["metadata"]["name"])
    (server,) = pod["containers"]
    assert server["command"][-1] == "serve"
    (tmp_path / "monitoring.config").write_text(found["ConfigMap"]["data"]["monitoring.config"])
    arguments = [argument.replace("/config", str(tmp_path), 1) for argument in server["args"]]
    flags = serve.make_context("serve", arguments).params
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert (flags["port"], flags["rest_api_port"]) == (ports["grpc"], ports["rest"])
    assert flags["lame_duck_s"] + flags["drain_s"] < pod["terminationGracePeriodSeconds"]
    assert server["readinessProbe"]["grpc"]["port"] == server["startupProbe"]["grpc"]["port"] == ports["grpc"]
    annotations = template["metadata"]["annotations"]
    assert read_metrics_path(Path(flags["monitoring_config_file"])) == annotations["prometheus.io/path"]
    allowed = {p["port"] for rule in found["NetworkPolicy"]["spec"]["ingress"] for p in rule["ports"]}
    assert allowed == set(ports.values())
    assert {m["name"] for m in server["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert pod["volumes"][1]["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert server["securityContext"]["readOnlyRootFilesystem"]


def test_the_canary_differs_in_what_makes_it_one() -> None:
    stable, canary = (documents(name)["Deployment"] for name in ("mlplatform-serving.yaml", "canary.yaml"))
    labels = canary["spec"]["template"]["metadata"]["labels"]
    assert canary["spec"]["selector"]["matchLabels"] == labels == {"app": "models", "track": "canary"}
    (server,) = canary["spec"]["template"]["spec"]["containers"]
    server["args"][0] = "--root=s3://bucket/team"
    canary["metadata"]["name"], canary["spec"]["replicas"] = "models", 2
    for each in (canary["spec"]["selector"]["matchLabels"], labels):
        each["track"] = "stable"
    assert canary == stable


def test_the_pusher_may_list_endpoints() -> None:
    found = documents("pusher-access.yaml")
    role, binding = found["Role"], found["RoleBinding"]
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]}
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_labels_of_the_readme(tmp_path: Path) -> None:
    from mlplatform.serving.model_config import checked_models, read_config_file

    block = (FOLDER / "README.md").read_text("utf-8").split("```")[3]
    entry = f'config {{ name: "m" base_path: "/m" model_platform: "tensorflow" {block} }}'
    file = tmp_path / "models.config"
    file.write_text(f"model_config_list {{ {entry} }}")
    models = checked_models(read_config_file(file))
    assert models is not None
    assert models["m"].labels == {"stable": 1, "canary": 2}


def test_kserve(unknown_fields: Unknown) -> None:
    service = documents("kserve.yaml")["InferenceService"]
    predictor = service["spec"]["predictor"]
    own = {"minReplicas", "maxReplicas", "timeout", "model"}  # the rest is a pod's
    assert (
        unknown_fields({k: v for k, v in predictor.items() if k not in own}, "V1PodSpec", "predictor") == []
    )
    assert predictor["timeout"] < predictor["terminationGracePeriodSeconds"]
    model = {k: v for k, v in predictor["model"].items() if k in ("resources",)}
    assert unknown_fields(model, "V1Container", "model") == []
    assert predictor["model"]["storageUri"].startswith("pvc://models/")
