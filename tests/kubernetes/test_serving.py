"""Model servers on Kubernetes: the example's Deployment under load, while models and pods come and go."""

import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mlplatform.components.serving_pusher.push import push_and_confirm
from mlplatform.registry import ModelStore
from mlplatform.serving import Client
from mlplatform.serving.client import RequestFailedError
from mlplatform.serving.kubernetes_service import Service, ready_endpoints

FOLDER = Path(__file__).parents[2] / "examples" / "serving-kubernetes"
MODEL = "scaled"
INPUT = np.array([1.0, 2.0], np.float32)
PAUSE_S = 0.4  # of each of three clients between two requests


def documents(name: str, image: str, root: str) -> list[Any]:
    """The example's objects with an image and a root of their own, and resources of a small machine."""
    found = list(yaml.safe_load_all((FOLDER / name).read_text("utf-8")))
    for document in found:
        if document["kind"] == "Deployment":
            (server,) = document["spec"]["template"]["spec"]["containers"]
            server |= {"image": image, "imagePullPolicy": "Never"}
            server["args"] = [f"--root={root}" if a.startswith("--root=") else a for a in server["args"]]
            server["resources"]["requests"] = {"cpu": "100m", "memory": "256Mi"}
    return found


@dataclass
class Load:
    """Requests to a service, over gRPC and REST, over kept connections and new ones, until it is stopped.

    Attributes:
        answers: When each request that was answered began, and the factor of the model that answered it.
        failures: What went wrong with the others.
    """

    host: str
    answers: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator["Load"]:
        stopped = threading.Event()
        ways = [(f"{self.host}:8500", True), (f"http://{self.host}:8501", True), (f"{self.host}:8500", False)]
        threads = [threading.Thread(target=self._ask, args=(stopped, *way)) for way in ways]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            stopped.set()
            for thread in threads:
                thread.join()

    def _ask(self, stopped: threading.Event, address: str, is_kept: bool) -> None:
        client = Client(address, timeout_s=60)
        while not stopped.wait(PAUSE_S):
            if not is_kept:
                client.close()
                client = Client(address, timeout_s=60)
            began = time.monotonic()
            try:
                y = client.predict(MODEL, {"x": INPUT})["y"]
            except RequestFailedError as error:
                self.failures.append(f"{error} after {time.monotonic() - began:.2f} s, is_kept={is_kept}")
            else:
                self.answers.append((began, float(y[0])))
        client.close()

    def factors_since(self, moment: float) -> set[float]:
        """Return the factors that answered requests which began at or after a moment."""
        return {factor for began, factor in self.answers if moment <= began}

    def next_factors(self) -> set[float]:
        """Wait for requests that begin from now on, and return the factors that answered them."""
        moment = time.monotonic()
        until(lambda: sum(moment <= began for began, _ in self.answers[-20:]) > 6)
        return self.factors_since(moment)


def until(condition: Callable[[], Any]) -> Any:
    """Wait for what comes to pass; return it. The test's own time limit ends what never does."""
    while not (found := condition()):
        time.sleep(0.2)
    return found


def models_pods(cluster: Any, namespace: str) -> Any:
    """Return the pods of the example's Deployments, also those that are about to end."""
    return cluster.get("pods", "-n", namespace, "-l", "app=models")


def is_replaced(service: Service, address: str) -> bool:
    """Return whether a pod no longer is one of the two of a service."""
    found = ready_endpoints(service)
    return address not in found and len(found) == 2


def answers_with(service: Service, factor: float) -> bool:
    """Return whether every pod answers with a model."""
    for endpoint in ready_endpoints(service):
        with Client(endpoint) as client:
            if float(client.predict(MODEL, {"x": INPUT})["y"][0]) != factor:
                return False
    return True


@pytest.fixture
def push(
    bucket: str, namespace: str, cluster: Any, scaling_model: Any, monkeypatch: Any
) -> Callable[..., Any]:
    """Push a model, and see it confirmed by the pods of the service, if it is asked to."""
    monkeypatch.setenv("KUBECONFIG", cluster.kubeconfig)

    def push(factor: float, *, service: str = "models", root: str = "team", is_confirmed: bool = True) -> Any:
        return push_and_confirm(
            scaling_model(factor),
            ModelStore(f"{bucket}/{root}/models"),
            MODEL,
            servers=[f"kubernetes://{namespace}/{service}:grpc"] if is_confirmed else [],
            timeout_s=240,
        )

    return push


@pytest.mark.timeout(1800)
def test_no_request_fails(
    cluster: Any, image: str, bucket: str, namespace: str, push: Any, note: Callable[[str, float], None]
) -> None:
    """10 pushes, 3 roll-backs, 5 pods killed, a rolling update: under load, and each answer is right."""
    push(1.0, is_confirmed=False)
    started = time.monotonic()
    cluster.apply(*documents("mlplatform-serving.yaml", image, f"{bucket}/team"), namespace=namespace)
    cluster.kubectl("rollout", "status", "deployment/models", "-n", namespace, "--timeout=420s")
    note("Deployment of 2 model servers ready", time.monotonic() - started)
    service = Service(namespace, "models", "grpc")
    store = ModelStore(f"{bucket}/team/models")
    host = cluster.get("service", "models", "-n", namespace)["spec"]["clusterIP"]
    with Load(host).running() as load:
        until(lambda: len(load.answers) > 20)
        for factor in range(2, 12):
            began = time.monotonic()
            pushed = push(float(factor))
            note(f"push {factor - 1}, confirmed by {len(pushed.confirmed_by)} pods", time.monotonic() - began)
            assert list(pushed.confirmed_by) == ready_endpoints(service)
            assert len(pushed.confirmed_by) == 2
            assert load.next_factors() == {float(factor)}
        for factor in (10, 9, 8):
            store.rollback(MODEL, why="a test")
            until(partial(answers_with, service, float(factor)))
            assert load.next_factors() == {float(factor)}
        moment = time.monotonic()
        for _ in range(5):
            pods = [pod["metadata"] | pod["status"] for pod in models_pods(cluster, namespace)]
            running = [pod for pod in pods if "deletionTimestamp" not in pod]
            victim = min(running, key=lambda pod: pod["creationTimestamp"])
            address = f"{victim['podIP']}:8500"
            began = time.monotonic()
            cluster.kubectl("delete", "pod", victim["name"], "-n", namespace, "--wait=false")
            until(partial(is_replaced, service, address))
            note("a pod killed, another one ready", time.monotonic() - began)
        began = time.monotonic()
        cluster.kubectl("rollout", "restart", "deployment/models", "-n", namespace)
        cluster.kubectl("rollout", "status", "deployment/models", "-n", namespace, "--timeout=420s")
        note("rolling update", time.monotonic() - began)
        # The last pods of before still drain.
        until(lambda: len(models_pods(cluster, namespace)) == 2)
        assert load.factors_since(moment) == {8.0}
    assert load.failures == []
    note(f"{len(load.answers)} requests, 0 failed, in", time.monotonic() - started)


@pytest.mark.timeout(900)
def test_canaries(cluster: Any, image: str, bucket: str, namespace: str, push: Any) -> None:
    """By label within one Deployment, and by the pods of a second one."""
    push(1.0, is_confirmed=False)
    push(5.0, root="canary", is_confirmed=False)
    stable, canary = (
        copy.deepcopy(documents(name, image, root))
        for name, root in (("mlplatform-serving.yaml", f"{bucket}/team"), ("canary.yaml", f"{bucket}/canary"))
    )
    cluster.apply(*stable, *canary, namespace=namespace)
    for name in ("models", "models-canary"):
        cluster.kubectl("rollout", "status", f"deployment/{name}", "-n", namespace, "--timeout=420s")
    host = cluster.get("service", "models", "-n", namespace)["spec"]["clusterIP"]
    service = Service(namespace, "models", "grpc")
    until(lambda: len(ready_endpoints(service)) == 3)
    with Load(host).running() as load:  # its new connections go to any pod
        until(lambda: load.factors_since(0) == {1.0, 5.0})
        cluster.kubectl("delete", "deployment", "models-canary", "-n", namespace)
        until(lambda: len(ready_endpoints(service)) == 2)
        until(lambda: len(models_pods(cluster, namespace)) == 2)
        store = ModelStore(f"{bucket}/team/models")
        push(7.0)
        store.promote(MODEL, "1", label="stable")
        store.promote(MODEL, "2", label="canary")
        for endpoint in ready_endpoints(service):
            with Client(endpoint) as client:
                for label, factor in (("stable", 1.0), ("canary", 7.0)):
                    until(partial(is_labelled, client, label, factor))
    assert load.failures == []


def is_labelled(client: Client, label: str, factor: float) -> bool:
    """Return whether the version that has a label answers with a factor."""
    try:
        return float(client.predict(MODEL, {"x": INPUT}, label=label)["y"][0]) == factor
    except RequestFailedError:  # the server does not know the label yet
        return False
