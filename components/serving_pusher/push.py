"""Push, see it serving, or take it back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlplatform.components.serving_pusher.confirm import ServerTls, confirm_service, confirm_serving
from mlplatform.components.serving_pusher.errors import (
    NotApprovedError,
    PushRejectedByServerError,
    ServerRefusesError,
)
from mlplatform.exported_model.contents import read_warmup
from mlplatform.registry import ModelStore, ModelVersion, tree_digest
from mlplatform.registry.approvals import Approvals
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.model_ledger import ledger_of
from mlplatform.serving.kubernetes_service import check_server, parse_service, ready_endpoints

GOLDEN_REQUESTS = 8


@dataclass(frozen=True)
class ConfirmedPush:
    """A pushed version and what its servers answered.

    Attributes:
        version: The version that serves.
        is_new: False where the newest version already held this very model.
        confirmed_by: Servers that have the version available and answered its golden requests; of a service
            of Kubernetes, its pods.
    """

    version: ModelVersion
    is_new: bool
    confirmed_by: tuple[str, ...]


def push_and_confirm(
    model_dir: Path,
    store: ModelStore,
    model_name: str,
    *,
    servers: Sequence[str] = (),
    timeout_s: float = 60.0,
    tls: ServerTls | None = None,
    keep: int = 0,
    why: str = "",
    run: str = "",
    dataset: str = "",
    metrics: Mapping[str, float] | None = None,
    allows_withdrawn: bool = False,
    signing_key: str = "",
    approved: tuple[str, str] | None = None,
) -> ConfirmedPush:
    """Push a SavedModel and wait until every server in `servers` answers with it.

    Until then no older version is removed. Whatever ends the waiting, an error or Ctrl-C, takes the push
    back; a push that was killed in it is confirmed, or taken back, by the next one of the same model. A
    version that was accepted before (confirmed, pushed without servers, or promoted) is never taken back.

    Args:
        model_dir: Folder of the SavedModel.
        store: Where models are pushed.
        model_name: The model's name there.
        servers: Addresses of servers that read this store, as `mlplatform.serving.client.Client` takes them,
            and of services of Kubernetes, `kubernetes://NAMESPACE/SERVICE:PORT`: each of its ready pods
            confirms.
        timeout_s: Seconds that a server has to load the version.
        tls: The files for servers that speak TLS.
        keep: How many of the newest versions stay; 0 keeps all.
        why: The reason, for the ledger.
        run: Id of the run, for the ledger.
        dataset: Dataset version that the model saw, for the ledger.
        metrics: What the model's evaluation measured, by name.
        allows_withdrawn: Push also a model that was rolled back.
        signing_key: Private key, PEM file or text, to sign the version with; empty signs nothing.
        approved: The name and digest of the model that an approval is about; None where none is needed.

    Raises:
        NotApprovedError: The approval is about another model, or its last answer in the ledger is not a yes.
        ModelWithdrawnError: This very model was rolled back, and not promoted since.
        PushRejectedByServerError: A server could not serve the version. The push was rolled back, unless
            this very version was accepted before.
        ServerAddressError: An address is invalid; nothing was pushed.
        ServiceEndpointsError: Kubernetes does not list the pods of a service; nothing was pushed, or it was
            taken back.
        WarmupError: The model's golden requests cannot be read; nothing was pushed.
    """
    for server in servers:
        check_server(server)
    services = {server: service for server in servers if (service := parse_service(server)) is not None}
    for service in services.values():
        ready_endpoints(service)  # what Kubernetes refuses is reported before anything is pushed
    digest = _approved_digest(model_dir, store, model_name, approved) if approved is not None else ""
    golden = read_warmup(model_dir, GOLDEN_REQUESTS) if servers else []
    outcome = store.push(
        model_dir,
        model_name,
        why=why,
        run=run,
        dataset=dataset,
        servers=servers,
        metrics=metrics,
        allows_withdrawn=allows_withdrawn,
        signing_key=signing_key,
        digest=digest,
    )
    version = outcome.version.version
    confirmed: list[str] = []
    if servers:
        try:
            for server in servers:
                if server in services:
                    confirmed += confirm_service(
                        services[server], model_name, version, golden, timeout_s=timeout_s, tls=tls
                    )
                else:
                    confirm_serving(server, model_name, version, golden, timeout_s=timeout_s, tls=tls)
                    confirmed.append(server)
        except BaseException as error:
            store.take_back(model_name, version, why=str(error) or type(error).__name__)
            if not isinstance(error, ServerRefusesError):
                raise
            raise PushRejectedByServerError(
                model_name,
                version,
                error.server,
                error.reason,
                store.version(model_name, str(version)).is_withdrawn,
                _newest(store, model_name),
            ) from error
        store.confirm(model_name, version, confirmed)
    store.drop_old(model_name, keep)
    return ConfirmedPush(outcome.version, outcome.is_new, tuple(confirmed))


def _approved_digest(model_dir: Path, store: ModelStore, model_name: str, approved: tuple[str, str]) -> str:
    """Return the digest of the model that is to be pushed, which a person agreed to.

    Raises:
        NotApprovedError: Nobody did.
    """
    digest = tree_digest(model_dir)
    if approved != (model_name, digest):
        raise NotApprovedError(model_name, digest, f"the approval is of {approved[0]}@{approved[1][:12]}")
    answer = Approvals(Ledger(ledger_of(store.url))).answer_to(model_name, digest)
    if answer is None:
        raise NotApprovedError(model_name, digest, f"the ledger of {store.url} has no answer about it")
    if not answer.is_given:
        raise NotApprovedError(model_name, digest, f"{answer.approver} refused it since: {answer.why}")
    return digest


def _newest(store: ModelStore, model_name: str) -> int | None:
    serving = [v.version for v in store.versions(model_name) if not v.is_withdrawn]
    return serving[-1] if serving else None
