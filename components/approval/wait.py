"""Waits for an answer, by looking into the ledger again and again: nothing has to reach the run."""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Protocol

from mlplatform.components.approval.errors import ApprovalExpiredError, ApprovalRefusedError
from mlplatform.registry.approvals import ApprovalAnswer, ApprovalRequest, Approvals
from mlplatform.registry.errors import LedgerAccessError
from mlplatform.storage.errors import StoreAccessError

log = logging.getLogger(__name__)


class Clock(Protocol):
    """What tells the time, and lets it pass."""

    def now(self) -> datetime:
        """Return the time, with its zone."""

    def sleep(self, seconds: float) -> None:
        """Return when some seconds have passed."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def ask_and_wait(
    approvals: Approvals,
    model: str,
    digest: str,
    *,
    time_limit_s: float,
    poll_s: float,
    clock: Clock,
    asked: Callable[[ApprovalRequest, bool], object],
    run: str = "",
    node: str = "",
    dataset: str = "",
    approvers: Sequence[str] = (),
) -> ApprovalAnswer:
    """Return the yes to a model; who gave it before is not asked again.

    Args:
        approvals: Where questions and answers are kept.
        model: The model's name.
        digest: Digest of its files.
        time_limit_s: Seconds until the waiting ends, above 0.
        poll_s: Seconds between two looks, above 0.
        clock: The time.
        asked: Called when the waiting begins, with the request and whether it is a new one.
        run: Id of the run.
        node: Id of the node.
        dataset: Dataset version that the model was trained on.
        approvers: Who may answer; none: everybody.

    Raises:
        ApprovalRefusedError, ApprovalExpiredError, LedgerAccessError, StoreAccessError: See
            `wait_for_answer`.
    """
    answer = approvals.answer_to(model, digest, approvers)
    if answer is not None:
        return _given(answer)
    request, is_new = approvals.ask(
        model,
        digest,
        now=clock.now(),
        time_limit_s=time_limit_s,
        run=run,
        node=node,
        dataset=dataset,
        approvers=approvers,
    )
    asked(request, is_new)
    return wait_for_answer(approvals, request, poll_s=poll_s, clock=clock)


def wait_for_answer(
    approvals: Approvals, request: ApprovalRequest, *, poll_s: float, clock: Clock
) -> ApprovalAnswer:
    """Return the yes to a request.

    A ledger that cannot be read for a while, such as one behind a network, is asked again until the time is
    over.

    Args:
        approvals: Where the answer will be.
        request: What was asked.
        poll_s: Seconds between two looks, above 0.
        clock: The time.

    Raises:
        ApprovalRefusedError: The answer is no.
        ApprovalExpiredError: There was none in time.
        LedgerAccessError, StoreAccessError: The ledger cannot be read when the time is over.
    """
    ends = datetime.fromisoformat(request.expires_at)
    while True:
        is_over = clock.now() >= ends
        try:
            answer = approvals.answer_to(request.model, request.digest, request.approvers)
            if answer is None and is_over:
                answer = approvals.expire(request)
        except (LedgerAccessError, StoreAccessError, OSError) as error:
            if is_over:
                raise
            log.warning("the ledger cannot be read, and is asked again: %s", error)
            answer = None
        if answer is not None:
            return _given(answer)
        if is_over:
            who = ", ".join(request.approvers) or "everybody could"
            raise ApprovalExpiredError(request.model, request.digest, request.at, request.expires_at, who)
        left_s = (ends - clock.now()).total_seconds()
        clock.sleep(min(poll_s, max(left_s, 0.0)))


def _given(answer: ApprovalAnswer) -> ApprovalAnswer:
    if not answer.is_given:
        raise ApprovalRefusedError(answer.model, answer.digest, answer.approver, answer.why, answer.at)
    return answer
