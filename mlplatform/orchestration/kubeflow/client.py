"""Kubeflow Pipelines' REST API, `v2beta1`, as far as runs, recurring runs and experiments go.

The API is the same from release 2.0 to 2.17, while each release of the `kfp` client pins other versions of
protobuf and Kubernetes' client, some of which no TFX takes. So it is spoken directly.

Source: `backend/api/v2beta1/{run,recurring_run,experiment}.proto` of Kubeflow Pipelines.
"""

import http.client
import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlplatform.orchestration.kubeflow.errors import (
    ClusterRunNotFoundError,
    HostError,
    ServerRefusedError,
    ServerUnreachableError,
)

# Named as for the `kfp` client, where it has a name for it.
HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"
NAMESPACE_VARIABLE = "KF_PIPELINES_NAMESPACE"
TOKEN_FILE_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
TOKEN_VARIABLE = "KF_PIPELINES_TOKEN"
COOKIES_VARIABLE = "KF_PIPELINES_COOKIES"
# Where a pod finds the token of its service account, if one is projected for Kubeflow Pipelines.
TOKEN_FILE = "/var/run/secrets/kubeflow/pipelines/token"
ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})
_PAGE = 100


@dataclass(frozen=True)
class KubeflowClient:
    """A Kubeflow Pipelines server.

    Attributes:
        host: Its address, with the path that it is served under, if any.
        namespace: The namespace of the runs, where the server is for many teams; empty for none.
        token: A bearer token; empty for that of the pod's service account, where there is one.
        cookies: The `Cookie` of a login, such as `authservice_session=...`.
        timeout_s: Seconds to wait for an answer.
    """

    host: str
    namespace: str = ""
    token: str = field(default="", repr=False)
    cookies: str = field(default="", repr=False)
    timeout_s: float = 60.0

    @classmethod
    def at(cls, host: str | None = None, namespace: str | None = None) -> "KubeflowClient":
        """Return the client of a server, with what the environment says of it.

        Args:
            host: Its address; None: `$KF_PIPELINES_ENDPOINT`.
            namespace: The namespace of the runs; None: `$KF_PIPELINES_NAMESPACE`, else none.

        Raises:
            HostError: There is no address, or it is none of HTTP.
        """
        named = host or os.environ.get(HOST_VARIABLE) or ""
        parts = urllib.parse.urlsplit(named if "://" in named else f"http://{named}")
        try:
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:  # the port
            is_address = False
        if not named or not is_address or parts.query or parts.fragment or any(c.isspace() for c in named):
            raise HostError(named)
        return cls(
            host=(named if "://" in named else f"http://{named}").rstrip("/"),
            namespace=namespace if namespace is not None else os.environ.get(NAMESPACE_VARIABLE, ""),
            token=os.environ.get(TOKEN_VARIABLE, ""),
            cookies=os.environ.get(COOKIES_VARIABLE, ""),
        )

    def create_run(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Start a run, given as the API's `Run`; return it with its `run_id`."""
        return self._ask("POST", "runs", run, what="the run")

    def run(self, run_id: str) -> dict[str, Any]:
        """Return a run: its `state`, and in `run_details` that of its tasks."""
        return self._ask("GET", f"runs/{_quoted(run_id)}", what=f"run {run_id}")

    def runs(self, limit: int = 0) -> Iterator[dict[str, Any]]:
        """Yield runs, newest first; at most `limit` of them, 0 for all."""
        return self._listed("runs", "runs", limit)

    def find_run(self, run: str) -> dict[str, Any]:
        """Return the run with an id, the beginning of one, or `latest`.

        Raises:
            ClusterRunNotFoundError: There is none, or more than one.
        """
        return self._find("run", run, "run_id", self.runs(limit=1 if run == "latest" else 0))

    def cancel_run(self, run_id: str) -> None:
        """Have a run end."""
        self._ask("POST", f"runs/{_quoted(run_id)}:terminate", what=f"to end run {run_id}")

    def create_recurring_run(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Make a recurring run, given as the API's `RecurringRun`; return it with its `recurring_run_id`."""
        return self._ask("POST", "recurringruns", run, what="the recurring run")

    def recurring_runs(self) -> Iterator[dict[str, Any]]:
        """Yield recurring runs, newest first."""
        return self._listed("recurringruns", "recurringRuns", 0)

    def find_recurring_run(self, run: str) -> dict[str, Any]:
        """Return the recurring run with an id, the beginning of one, or a name.

        Raises:
            ClusterRunNotFoundError: There is none, or more than one.
        """
        return self._find("recurring run", run, "recurring_run_id", self.recurring_runs())

    def enable_recurring_run(self, run_id: str, *, is_enabled: bool) -> None:
        """Let a recurring run start runs, or pause it."""
        verb = "enable" if is_enabled else "disable"
        self._ask("POST", f"recurringruns/{_quoted(run_id)}:{verb}", what=f"to {verb} {run_id}")

    def delete_recurring_run(self, run_id: str) -> None:
        """Delete a recurring run; the runs that it started stay."""
        self._ask("DELETE", f"recurringruns/{_quoted(run_id)}", what=f"to delete {run_id}")

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, which is made where there is none."""
        for each in self._listed("experiments", "experiments", 0):
            if each.get("display_name") == name:
                return str(each["experiment_id"])
        wanted = {"display_name": name, **({"namespace": self.namespace} if self.namespace else {})}
        return str(self._ask("POST", "experiments", wanted, what=f"experiment {name}")["experiment_id"])

    def _find(self, what: str, name: str, key: str, found: Iterator[dict[str, Any]]) -> dict[str, Any]:
        every = list(found)
        if name == "latest" and every:
            return every[0]
        exact = [each for each in every if name in (each.get(key), each.get("display_name"))]
        meant = exact or [each for each in every if str(each.get(key, "")).startswith(name)]
        if len(meant) != 1:
            near = [f"{each.get(key)} ({each.get('display_name', '')})" for each in (meant or every)[:5]]
            raise ClusterRunNotFoundError(self.host, what, name, near)
        return meant[0]

    def _listed(self, path: str, key: str, limit: int) -> Iterator[dict[str, Any]]:
        token, left = "", limit
        while True:
            query = {"page_size": str(min(left, _PAGE) if limit else _PAGE), "sort_by": "created_at desc"}
            query |= {"page_token": token} if token else {}
            query |= {"namespace": self.namespace} if self.namespace else {}
            page = self._ask("GET", f"{path}?{urllib.parse.urlencode(query)}", what=f"its {path}")
            for each in page.get(key) or []:
                yield each
                left -= 1
                if limit and left == 0:
                    return
            token = page.get("next_page_token") or ""
            if not token:
                return

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, what: str
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        request = urllib.request.Request(
            f"{self.host}/apis/v2beta1/{path}", data=data, method=method, headers=self._headers(data)
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                return self._parsed(answer.read(), what)
        except urllib.error.HTTPError as error:
            with error:
                raise ServerRefusedError(self.host, what, error.code, _first_line(error)) from None
        except urllib.error.URLError as error:
            raise ServerUnreachableError(self.host, _reason(error.reason)) from error
        except (OSError, http.client.HTTPException) as error:  # while the answer is read
            raise ServerUnreachableError(self.host, _reason(error)) from error

    def _headers(self, data: bytes | None) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        token = self.token
        if not token and not self.cookies:
            file = Path(os.environ.get(TOKEN_FILE_VARIABLE) or TOKEN_FILE)
            if file.is_file():  # read each time: it expires, and the kubelet writes a new one
                token = file.read_text("utf-8").strip()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if self.cookies:
            headers["Cookie"] = self.cookies
        return headers

    def _parsed(self, text: bytes, what: str) -> dict[str, Any]:
        try:
            found = json.loads(text or b"{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            start = " ".join(text.decode("utf-8", "replace").split())[:80]
            problem = f"it answered with something else than JSON, as the page of a login is: {start!r}"
            raise ServerRefusedError(self.host, what, 401, problem)
        return found


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _reason(reason: object) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({reason.verify_message}); SSL_CERT_FILE names further ones"
    if isinstance(reason, TimeoutError):
        return "it did not answer in time"
    if isinstance(reason, OSError):
        return reason.strerror or str(reason)
    return str(reason) or type(reason).__name__


def _first_line(error: urllib.error.HTTPError) -> str:
    """Return the first line of what a server says; it appends the stack of its own code."""
    try:
        text = error.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    try:
        found = json.loads(text)
        details = next((d.get("error_message") for d in found.get("details", []) if isinstance(d, dict)), "")
        text = str(found.get("message") or found.get("error") or details or text)
    except (ValueError, AttributeError, TypeError):
        if text.lstrip().startswith("<"):  # the page of a proxy
            text = str(error.reason)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:500] if lines else str(error.reason)
