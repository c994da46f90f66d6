"""The page on which a push is approved or refused, and what other pages show of that."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from mlplatform.registry.approvals import ApprovalAnswer, ApprovalRequest
from mlplatform.ui.site import BadQueryError, Data, PageNotFoundError, Request, Site, link


def approval(site: Site, request: Request) -> Data:
    """What a run asks, with the answers about that model so far, and the form of an answer."""
    asked = _asked(site, request.names["run"])
    return {
        "run_id": request.names["run"],
        "pipeline": (site.index.summary(request.names["run"]) or {}).get("pipeline", ""),
        "may_approve": site.may_approve,
        "waits": asked in waiting(site),
        **asdict(asked),
        "answers": [asdict(a) for a in site.approvals.answers(asked.model) if a.digest == asked.digest],
    }


def answer(site: Site, request: Request) -> str:
    """Write the answer that a form holds; return the address of the page to show next.

    The form names the digest that its page showed, so that nobody agrees to a model that came after it.

    Raises:
        PageNotFoundError: The run asks nothing.
        BadQueryError: The form is about another model, or says neither yes nor no.
        AnswerTextError, NotAnApproverError: See `Approvals.answer`.
    """
    asked = _asked(site, request.names["run"])
    if request.get("digest") != asked.digest:
        raise BadQueryError("digest", request.get("digest"), f"{asked.digest}: look at the page again")
    if request.get("answer") not in ("yes", "no"):
        raise BadQueryError("answer", request.get("answer"), "yes or no")
    site.approvals.answer(
        asked,
        approver=request.get("by"),
        why=" ".join(request.get("why").split()),
        is_given=request.get("answer") == "yes",
        through="dashboard",
    )
    return link("runs", request.names["run"], "approval")


def waiting(site: Site) -> list[ApprovalRequest]:
    """Return the requests that wait for an answer."""
    return site.approvals.waiting(datetime.now(timezone.utc))


def waiting_rows(site: Site) -> list[dict[str, Any]]:
    """Return the requests that wait for an answer, a row each."""
    return [asdict(request) for request in waiting(site)]


def answer_about(answers: Sequence[ApprovalAnswer], digest: str) -> dict[str, Any] | None:
    """Return the last answer about a digest as JSON; None where there is none."""
    found = [asdict(each) for each in answers if each.digest == digest]
    return found[-1] if found else None


def _asked(site: Site, run: str) -> ApprovalRequest:
    found = site.approvals.of_run(run)
    if not found:
        raise PageNotFoundError(f"approval that run {run[:80]!r} asks for")
    return found[-1]
