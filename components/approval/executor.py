"""Connects the approval to TFX: digests the model, asks, waits, and says what was answered."""

import json
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import path_utils

from mlplatform import progress
from mlplatform.components.approval.errors import (
    ApprovalExpiredError,
    ApprovalRefusedError,
    NothingToApproveError,
)
from mlplatform.components.approval.parameters import check_parameters
from mlplatform.components.approval.wait import Clock, SystemClock, ask_and_wait
from mlplatform.home import Home
from mlplatform.notices.send import Notice, send
from mlplatform.registry import tree_digest
from mlplatform.registry.approvals import ApprovalAnswer, ApprovalRequest, Approvals
from mlplatform.registry.events import NOTICE_FAILED, NOTICE_SENT, is_notified, run_stream
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.model_ledger import ledger_of
from mlplatform.tfx_io.artifacts import fetched, published
from mlplatform.tfx_io.blessings import APPROVAL_FILE, BLESSED_FILE, refusing
from mlplatform.tfx_io.dataset_version import read_version
from mlplatform.tfx_io.runs import home_of, node_id, note_verdict, run_id

_NAME = "Approval"


class Executor(base_executor.BaseExecutor):
    """Asks about the model, and blesses it when the answer is yes."""

    clock: Clock = SystemClock()

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        name, models_dir = exec_properties["model_name"], exec_properties["models_dir"]
        approvers = json.loads(exec_properties["approvers"])
        time_limit_h, poll_s = exec_properties["time_limit_h"], exec_properties["poll_s"]
        check_parameters(name, approvers, time_limit_h, poll_s)
        if refused := refusing(input_dict, ("blessing", "infra_blessing")):
            raise NothingToApproveError(name, " and ".join(refused))
        model = artifact_utils.get_single_instance(input_dict["model"])
        with fetched(model.uri) as folder:
            is_old = path_utils.is_old_model_artifact(model)
            digest = tree_digest(Path(path_utils.serving_model_path(str(folder), is_old)))
        ledger = Ledger(ledger_of(models_dir))

        def asked(request: ApprovalRequest, is_new: bool) -> None:
            progress.report_line(_question(request))
            if is_new or not _is_notified(ledger, request):  # killed in between
                _notify(home_of(models_dir), ledger, request)

        try:
            answer = ask_and_wait(
                Approvals(ledger),
                name,
                digest,
                time_limit_s=time_limit_h * 3600,
                poll_s=poll_s,
                clock=self.clock,
                asked=asked,
                run=run_id(self._context),
                node=node_id(self._context, _NAME),
                dataset=_dataset(input_dict),
                approvers=approvers,
            )
        except (ApprovalRefusedError, ApprovalExpiredError) as error:
            note_verdict(models_dir, self._context, _NAME, is_accepted=False, reasons=[str(error)])
            raise
        note_verdict(models_dir, self._context, _NAME, is_accepted=True, reasons=[])
        progress.report_line(f"{answer.approver} approved {name!r} at {answer.at}: {answer.why}")
        _bless(artifact_utils.get_single_instance(output_dict["approval"]), answer, model)


def _question(request: ApprovalRequest) -> str:
    who = f" of {', '.join(request.approvers)}" if request.approvers else ""
    return (
        f"{request.model!r} waits for an approval{who} until {request.expires_at}: mlplatform approve "
        f"{request.name} --by NAME --why ..."
    )


def _is_notified(ledger: Ledger, request: ApprovalRequest) -> bool:
    return is_notified(ledger.events(run_stream(request.run)), "approval_wanted") if request.run else True


def _notify(home: Home | None, ledger: Ledger, request: ApprovalRequest) -> None:
    """Notify people that somebody is asked; nothing that goes wrong with it ends the waiting."""
    if home is None:
        return
    notice = Notice("approval_wanted", request.model, _question(request), request.run)
    for way, problem in send(home, notice).items():
        if request.run:
            facts = {"occasion": notice.occasion, "way": way, "problem": problem}
            ledger.append(run_stream(request.run), NOTICE_FAILED if problem else NOTICE_SENT, **facts)


def _dataset(input_dict: dict[str, list[types.Artifact]]) -> str:
    if not input_dict.get("dataset"):
        return ""
    facts = read_version(artifact_utils.get_single_uri(input_dict["dataset"]))
    return f"{facts['dataset']}@{facts['version']}" if facts else ""


def _bless(blessing: types.Artifact, answer: ApprovalAnswer, model: types.Artifact) -> None:
    """Write the blessing as TFX's Evaluator does, with the answer beside it."""
    facts = {"model": answer.model, "digest": answer.digest, "approver": answer.approver, "why": answer.why}
    with published(blessing.uri) as folder:
        (folder / BLESSED_FILE).write_bytes(b"")
        (folder / APPROVAL_FILE).write_text(json.dumps({**facts, "at": answer.at}, indent=2), "utf-8")
    blessing.set_int_custom_property("blessed", 1)
    blessing.set_string_custom_property("current_model", model.uri)
    blessing.set_int_custom_property("current_model_id", model.id)
    blessing.set_string_custom_property("approver", answer.approver)
