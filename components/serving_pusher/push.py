"""Push, see it serving, or take it back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlplatform.components.serving_pusher.confirm import check_address, confirm_serving, golden_requests
from mlplatform.components.serving_pusher.errors import PushRejectedByServerError
from mlplatform.registry import ModelStore, ModelVersion


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
        PushRejectedByServerError: A server could not serve the version; the push was rolled back.
        ServerAddressError: An address is not HOST:PORT; nothing was pushed.
    """
    for server in servers:
        check_address(server)
    outcome = store.push(model_dir, model_name, why=why, run=run, dataset=dataset, keep=keep)
    golden = golden_requests(outcome.version.path)
    try:
        for server in servers:
            confirm_serving(server, model_name, outcome.version.version, golden, timeout_s=timeout_s)
    except PushRejectedByServerError as error:
        if outcome.is_new:
            store.withdraw(model_name, outcome.version.version, why=str(error.reason))
        raise
    return ConfirmedPush(outcome.version, outcome.is_new, tuple(servers))
