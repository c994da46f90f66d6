"""Push, see it serving, or take it back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlplatform.components.serving_pusher.confirm import check_address, confirm_serving
from mlplatform.components.serving_pusher.errors import PushRejectedByServerError, ServerRefusesError
from mlplatform.registry import ModelStore, ModelVersion
from mlplatform.vision.exported import read_warmup

GOLDEN_REQUESTS = 8


@dataclass(frozen=True)
class ConfirmedPush:
    """A pushed version and what its servers answered.

    Attributes:
        version: The version that serves.
        is_new: False where the newest version already held this very model.
        confirmed_by: Servers that have the version available and answered its golden requests.
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
    keep: int = 0,
    why: str = "",
    run: str = "",
    dataset: str = "",
) -> ConfirmedPush:
    """Push a SavedModel and wait until every server in `servers` answers with it.

    Until then no older version is removed. Whatever ends the waiting, an error or Ctrl-C, takes the push
    back; a push that was killed in it is confirmed, or taken back, by the next one of the same model. A
    version that was accepted before (confirmed, pushed without servers, or promoted) is never taken back.

    Args:
        model_dir: Folder of the SavedModel.
        store: Where models are pushed.
        model_name: The model's name there.
        servers: gRPC addresses (HOST:PORT) of servers that read this store.
        timeout_s: Seconds that a server has to load the version.
        keep: How many of the newest versions stay; 0 keeps all.
        why: The reason, for the ledger.
        run: Id of the run, for the ledger.
        dataset: Dataset version that the model saw, for the ledger.

    Raises:
        PushRejectedByServerError: A server could not serve the version. The push was rolled back, unless
            this very version was accepted before.
        ServerAddressError: An address is not HOST:PORT; nothing was pushed.
        WarmupError: The model's golden requests cannot be read; nothing was pushed.
    """
    for server in servers:
        check_address(server)
    golden = read_warmup(model_dir, GOLDEN_REQUESTS) if servers else []
    outcome = store.push(model_dir, model_name, why=why, run=run, dataset=dataset, servers=servers)
    version = outcome.version.version
    if servers:
        try:
            for server in servers:
                confirm_serving(server, model_name, version, golden, timeout_s=timeout_s)
        except BaseException as error:
            if store.awaits_servers(model_name, version):
                store.withdraw(model_name, version, why=str(error) or type(error).__name__)
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
        store.confirm(model_name, version, servers)
    store.drop_old(model_name, keep)
    return ConfirmedPush(outcome.version, outcome.is_new, tuple(servers))


def _newest(store: ModelStore, model_name: str) -> int | None:
    serving = [v.version for v in store.versions(model_name) if not v.is_withdrawn]
    return serving[-1] if serving else None
