"""Checks the parameters of an approval: when it is declared, and again when it runs."""

from collections.abc import Sequence

from mlplatform.components.approval.settings import ApprovalSettings
from mlplatform.config import parse_config
from mlplatform.registry import check_model_name
from mlplatform.tfx_io.parameters import Late, is_late


def check_parameters(
    model_name: str | Late, approvers: Sequence[str] | Late, time_limit_h: float | Late, poll_s: float | Late
) -> None:
    """Check those parameters that are known already.

    Raises:
        InvalidModelNameError: `model_name` cannot be a folder that a model server reads.
        ConfigError: Another one is out of range.
    """
    if not is_late(model_name):
        check_model_name(model_name)
    given = {"approvers": approvers, "time_limit_h": time_limit_h, "poll_s": poll_s}
    known = {name: value for name, value in given.items() if not is_late(value)}
    if "approvers" in known and not isinstance(approvers, str):
        known["approvers"] = list(approvers)
    parse_config(ApprovalSettings, known, source="Approval")
