"""Model servers behind a service of Kubernetes: its address, and the pods that answer for it.

An address is that of gRPC's resolvers for Kubernetes: `kubernetes://NAMESPACE/SERVICE:PORT`. Without a
namespace, `kubernetes:///SERVICE:PORT`, it is the caller's own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlplatform.errors import MlplatformError
from mlplatform.serving.client import ServerAddressError, check_address
from mlplatform.serving.kubernetes_api import KubernetesApi, one_line

SCHEME = "kubernetes://"
_ADDRESS = re.compile(
    r"kubernetes://(?P<namespace>[a-z0-9]([-a-z0-9]*[a-z0-9])?)?/(?P<name>[a-z0-9]([-a-z0-9]*[a-z0-9])?)"
    r":(?P<port>[0-9]{1,5}|[a-z0-9-]{1,15})"
)


class ServiceEndpointsError(MlplatformError):
    """Kubernetes does not say which pods answer for a service."""

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(address, problem)
        self.address, self.problem = address, problem

    def __str__(self) -> str:
        return (
            f"the endpoints of {self.address} cannot be listed: {self.problem}. In a pod, its service "
            "account needs the right to list endpointslices.discovery.k8s.io in that namespace; elsewhere, "
            "$KUBECONFIG names the cluster."
        )


@dataclass(frozen=True)
class Service:
    """A service.

    Attributes:
        namespace: Where it is; empty for the caller's own.
        name: Its name.
        port: The name of its port, or the number of its pods' port.
    """

    namespace: str
    name: str
    port: str

    @property
    def address(self) -> str:
        """The service as `parse_service` takes it."""
        return f"{SCHEME}{self.namespace}/{self.name}:{self.port}"


def parse_service(address: str) -> Service | None:
    """Return the service that an address names; None for an address of another kind.

    Raises:
        ServerAddressError: It begins as the address of a service and is none.
    """
    if not address.startswith("kubernetes:"):
        return None
    found = _ADDRESS.fullmatch(address)
    if found is None or (found["port"].isdigit() and not 0 < int(found["port"]) < 1 << 16):
        raise ServerAddressError(address)
    return Service(found["namespace"] or "", found["name"], found["port"])


def check_server(address: str) -> None:
    """See that an address can be that of a server or of a service of Kubernetes.

    Raises:
        ServerAddressError: It is neither.
    """
    if parse_service(address) is None:
        check_address(address)


def ready_endpoints(service: Service) -> list[str]:
    """Return the addresses of the pods that are ready to answer for a service, sorted; none for none.

    In a pod, Kubernetes is asked with the pod's service account, elsewhere as `$KUBECONFIG` (default:
    `~/.kube/config`) says.

    Raises:
        ServiceEndpointsError: Kubernetes cannot be reached, or refuses to list them.
    """
    try:
        slices = _slices(service)
    except Exception as error:  # the client raises those of urllib3, of its own and of its configuration
        raise ServiceEndpointsError(service.address, one_line(error)) from error
    return addresses(slices, service.port)


def addresses(slices: Sequence[Mapping[str, Any]], port: str) -> list[str]:
    """Return the addresses of the ready endpoints in EndpointSlice objects, sorted.

    Args:
        slices: As the API has them in JSON.
        port: The port's name, or its number in the pods.
    """
    found: set[str] = set()
    for each in slices:
        numbers = [
            known["port"]
            for known in each.get("ports") or ()
            if known.get("port") and port in (known.get("name"), str(known["port"]))
        ]
        for endpoint in each.get("endpoints") or ():
            # Unknown counts as ready (EndpointConditions in the API's reference).
            if (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            # Consumers take the first address of an endpoint, which all are the same pod.
            host = endpoint["addresses"][0]
            host = f"[{host}]" if each.get("addressType") == "IPv6" else host
            found.update(f"{host}:{number}" for number in numbers)
    return sorted(found)


def _slices(service: Service) -> list[dict[str, Any]]:
    with KubernetesApi() as api:
        namespace = service.namespace or api.namespace
        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        selector = f"kubernetes.io/service-name={service.name}"
        return list(api.request("GET", path, query=[("labelSelector", selector)])["items"])
