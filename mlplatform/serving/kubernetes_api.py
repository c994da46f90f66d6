"""The API of the Kubernetes that this process is in, or that `$KUBECONFIG` names, in JSON."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TIMEOUT_S = 10.0


class KubernetesApi:
    """A connection; close it or use it as a context manager.

    In a pod, its service account is who asks; elsewhere `$KUBECONFIG` (default: `~/.kube/config`) says who.

    Attributes:
        namespace: The namespace of the pod, or of the configuration's context.

    Raises:
        Exception: There is no configuration, or it is not one.
    """

    def __init__(self) -> None:
        from kubernetes import client, config

        configuration = client.Configuration()
        try:
            config.load_incluster_config(configuration)
            self.namespace = _OWN_NAMESPACE.read_text("utf-8").strip()
        except config.ConfigException:
            file = os.environ.get("KUBECONFIG")
            config.load_kube_config(file, client_configuration=configuration)
            context = config.list_kube_config_contexts(file)[1]["context"]
            self.namespace = context.get("namespace", "default")
        configuration.retries = 3
        self._client = client.ApiClient(configuration)

    def request(
        self, method: str, path: str, *, query: Sequence[tuple[str, str]] = (), body: Any = None
    ) -> Any:
        """Return the object that a request is answered with: as JSON, for the client's own refuse some.

        Raises:
            Exception: The server was not reached, or it refuses.
        """
        return self._client.call_api(
            path,
            method,
            query_params=list(query),
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
            response_type="object",
            _return_http_data_only=True,
            _request_timeout=_TIMEOUT_S,
        )

    def text(self, path: str) -> str:
        """Return the text of a GET request, such as a log.

        Raises:
            Exception: The server was not reached, or it refuses.
        """
        answer = self._client.call_api(
            path,
            "GET",
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=_TIMEOUT_S,
        )
        return str(answer.data.decode(errors="replace"))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> "KubernetesApi":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def one_line(error: Exception) -> str:
    """Return what the API or its client says went wrong, in one line; the client's own text is pages long."""
    status, reason = getattr(error, "status", None), getattr(error, "reason", None)
    text = f"{status} {reason}" if status else str(error)
    return " ".join(text.split())[:300] or type(error).__name__
