"""Checks the parameters of a push: when it is declared, and again when it runs."""

from collections.abc import Sequence

from mlplatform.config_file import ConfigError
from mlplatform.registry import check_model_name
from mlplatform.serving.kubernetes_service import check_server
from mlplatform.tfx_io.parameters import Late, is_late


def check_parameters(
    model_name: str | Late, servers: Sequence[str] | Late, timeout_s: float | Late, keep: int | Late
) -> None:
    """Check those parameters that are known already.

    Raises:
        InvalidModelNameError: `model_name` cannot be a folder that a model server reads.
        ServerAddressError: One of `servers` is not an address.
        ConfigError: `timeout_s` or `keep` is out of range.
    """
    if not is_late(model_name):
        check_model_name(model_name)
    for server in () if is_late(servers) else servers:
        check_server(server)
    problems = []
    if not is_late(timeout_s) and timeout_s <= 0:
        problems += [f"timeout_s is {timeout_s}: it must be above 0"]
    if not is_late(keep) and keep < 0:
        problems += [f"keep is {keep}: it must be 0 or more"]
    if problems:
        raise ConfigError("ServingPusher", problems)
