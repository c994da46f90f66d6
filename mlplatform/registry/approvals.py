"""Who agreed that a model is pushed, or refused it: events in the ledger, each about one digest.

A run asks (`approval.wanted`), a person answers (`approval.given`, `approval.refused`), or the time limit
ends the waiting (`approval.expired`). An answer holds for every run with the same model of the same digest,
and for no other; of several, the last one counts. The names are those that people give: no proof.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from mlplatform.errors import UsageError
from mlplatform.registry.event import Draft, Event
from mlplatform.registry.events import (
    APPROVAL_EXPIRED,
    APPROVAL_GIVEN,
    APPROVAL_REFUSED,
    APPROVAL_WANTED,
    approval_stream,
)
from mlplatform.registry.ledger import Ledger

_KIND = "approvals"
_ANSWERS = (APPROVAL_GIVEN, APPROVAL_REFUSED)
_MOST_CHARACTERS = {"name": 100, "reason": 2000}
_SHOWN = 12  # characters of a digest


class NoApprovalWantedError(UsageError):
    """No run that is named asks for an approval, or more than one does."""

    def __init__(self, run: str, waiting: Sequence[str], is_ambiguous: bool = False) -> None:
        super().__init__(run, waiting, is_ambiguous)
        self.run, self.waiting, self.is_ambiguous = run, waiting, is_ambiguous

    def __str__(self) -> str:
        if self.is_ambiguous:
            return f"{self.run!r} names more than one request: {', '.join(self.waiting)}. Name one of them."
        return (
            f"no run {self.run!r} asks for an approval; waiting: {', '.join(self.waiting) or 'none'}. List "
            "them with: mlplatform approve"
        )


class NotAnApproverError(UsageError):
    """A person is not one of those whose answer a run waits for."""

    def __init__(self, name: str, approvers: Sequence[str]) -> None:
        super().__init__(name, approvers)
        self.name, self.approvers = name, approvers

    def __str__(self) -> str:
        return f"{self.name!r} may not decide about this model: {', '.join(self.approvers)} may."


class AnswerTextError(UsageError):
    """An answer comes without a name or a reason, or with a text that is none."""

    def __init__(self, what: str, text: str) -> None:
        super().__init__(what, text)
        self.what, self.text = what, text

    def __str__(self) -> str:
        most = _MOST_CHARACTERS.get(self.what, 0)
        return f"the {self.what} of an answer is {self.text[:60]!r}: give 1 to {most} characters on one line."


@dataclass(frozen=True)
class ApprovalRequest:
    """That a run asks whether its model may be pushed.

    Attributes:
        model: The model's name.
        digest: Digest of its files, as a push of them has it.
        run: Id of the run; empty where nothing says it.
        node: Id of the node that waits.
        dataset: Dataset version that the model was trained on, where known.
        approvers: Names of those who may answer; none: everybody.
        at: When it was asked, ISO 8601, UTC.
        expires_at: When the waiting ends, ISO 8601, UTC.
    """

    model: str
    digest: str
    run: str
    node: str
    dataset: str
    approvers: tuple[str, ...]
    at: str
    expires_at: str

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return self.run or f"{self.model}@{self.digest[:_SHOWN]}"


@dataclass(frozen=True)
class ApprovalAnswer:
    """A person's answer.

    Attributes:
        model: The model's name.
        digest: Digest of the files that it is about.
        is_given: Yes; False for a no.
        approver: The name that was given.
        why: The reason.
        at: When, ISO 8601, UTC.
        by: Account that wrote it.
        run: The run that had asked.
    """

    model: str
    digest: str
    is_given: bool
    approver: str
    why: str
    at: str
    by: str
    run: str


class Approvals:
    """The requests and answers of a ledger.

    Args:
        ledger: The ledger.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def ask(
        self,
        model: str,
        digest: str,
        *,
        now: datetime,
        time_limit_s: float,
        run: str = "",
        node: str = "",
        dataset: str = "",
        approvers: Sequence[str] = (),
    ) -> tuple[ApprovalRequest, bool]:
        """Ask about a model; a run that asks again, as after a restart, gets its own request back.

        Where an earlier run asked about the same digest and still waits, or was killed while it did, its time
        limit holds on.

        Args:
            model: The model's name.
            digest: Digest of its files.
            now: The time.
            time_limit_s: Seconds until the waiting ends, above 0.
            run: Id of the run.
            node: Id of the node.
            dataset: Dataset version that it was trained on.
            approvers: Who may answer; none: everybody.

        Returns:
            The request, and whether it is a new one.

        Raises:
            LedgerAccessError: The ledger cannot be read or written.
        """
        found: list[ApprovalRequest] = []

        def decision(events: list[Event]) -> Draft | None:
            waiting = [each for each in _open_requests(model, events) if each.digest == digest]
            waiting = [each for each in waiting if each.expires_at > _text(now)]
            found[:] = [each for each in waiting if run and (each.run, each.node) == (run, node)]
            if found:
                return None
            expires_at = waiting[0].expires_at if waiting else _text(now + timedelta(seconds=time_limit_s))
            facts = {"digest": digest, "node": node, "dataset": dataset, "approvers": list(approvers)}
            return Draft(APPROVAL_WANTED, run, {**facts, "expires_at": expires_at, "at": _text(now)})

        event = self._ledger.decide(approval_stream(model), decision)
        if event is not None:
            request = _request(model, event)
            assert request is not None, "as it was just written"
            return request, True
        return found[0], False

    def answer(
        self, request: ApprovalRequest, *, approver: str, why: str, is_given: bool, through: str = ""
    ) -> ApprovalAnswer:
        """Write a person's answer to a request; also to one that was answered before, or does not wait.

        Args:
            request: The request.
            approver: The person's name.
            why: The reason.
            is_given: Yes or no.
            through: What wrote it, such as `dashboard`.

        Raises:
            AnswerTextError: The name or the reason is missing, too long, or not one line.
            NotAnApproverError: The request names others.
            LedgerAccessError: The ledger cannot be written.
        """
        approver, why = _line("name", approver), _line("reason", why)
        if request.approvers and approver not in request.approvers:
            raise NotAnApproverError(approver, request.approvers)
        facts = {"digest": request.digest, "approver": approver, "why": why}
        if through:
            facts["through"] = through
        kind = APPROVAL_GIVEN if is_given else APPROVAL_REFUSED
        event = self._ledger.append(approval_stream(request.model), kind, run=request.run, **facts)
        answer = _answer(request.model, event)
        assert answer is not None, "as it was just written"
        return answer

    def expire(self, request: ApprovalRequest) -> ApprovalAnswer | None:
        """Write that a request's time is over, unless it was answered; return that answer."""
        found: list[ApprovalAnswer | None] = []

        def decision(events: list[Event]) -> Draft | None:
            found[:] = [_last_answer(request.model, events, request.digest, request.approvers)]
            facts = {"digest": request.digest, "node": request.node}
            return None if found[0] else Draft(APPROVAL_EXPIRED, request.run, facts)

        self._ledger.decide(approval_stream(request.model), decision)
        return found[0]

    def answer_to(self, model: str, digest: str, approvers: Sequence[str] = ()) -> ApprovalAnswer | None:
        """Return the last answer about a digest of a model; None where there is none.

        Args:
            model: The model's name.
            digest: Digest of its files.
            approvers: Only answers of these people; none: of everybody.

        Raises:
            LedgerAccessError: The ledger cannot be read.
        """
        return _last_answer(model, self._ledger.events(approval_stream(model)), digest, approvers)

    def answers(self, model: str) -> list[ApprovalAnswer]:
        """Return all answers about a model, oldest first. Raises LedgerAccessError."""
        events = self._ledger.events(approval_stream(model))
        return [found for event in events if (found := _answer(model, event)) is not None]

    def waiting(self, now: datetime) -> list[ApprovalRequest]:
        """Return the requests that nobody answered and whose time is not over, oldest first.

        Raises:
            LedgerAccessError: The ledger cannot be read.
        """
        found = [
            request
            for model, events in self._all().items()
            for request in _open_requests(model, events)
            if request.expires_at > _text(now)
        ]
        return sorted(found, key=lambda each: each.at)

    def of_run(self, run: str) -> list[ApprovalRequest]:
        """Return what a run asked, oldest first. Raises LedgerAccessError."""
        found = [request for request in self._requests() if run and request.run == run]
        return sorted(found, key=lambda each: each.at)

    def find(self, run: str, now: datetime) -> ApprovalRequest:
        """Return the request that is named, of those that wait if one of them is, else of all.

        Args:
            run: A run's id, the beginning of one, or `MODEL@` and the beginning of a digest.
            now: The time.

        Raises:
            NoApprovalWantedError: No request, or more than one, is meant.
            LedgerAccessError: The ledger cannot be read.
        """
        waiting = self.waiting(now)
        for known in (waiting, self._requests()):
            meant = [each for each in known if _is_named(each, run)]
            digests = {(each.model, each.digest) for each in meant}
            if len(digests) == 1:
                return meant[-1]
            if digests:
                names = sorted({f"{each.model}@{each.digest[:_SHOWN]}" for each in meant})
                raise NoApprovalWantedError(run, names, is_ambiguous=True)
        raise NoApprovalWantedError(run, [each.name for each in waiting])

    def _requests(self) -> list[ApprovalRequest]:
        return [
            request
            for model, events in self._all().items()
            for event in events
            if (request := _request(model, event)) is not None
        ]

    def _all(self) -> dict[str, list[Event]]:
        found = self._ledger.all_events(_KIND)
        return {stream.partition("/")[2]: events for stream, events in found.items()}


def _is_named(request: ApprovalRequest, text: str) -> bool:
    model, _, digest = text.rpartition("@")
    of_digest = bool(model and digest) and request.model == model and request.digest.startswith(digest)
    return of_digest or bool(text and request.run.startswith(text))


def _open_requests(model: str, events: Iterable[Event]) -> list[ApprovalRequest]:
    """Return the requests that were neither answered nor ended, oldest first."""
    found: list[ApprovalRequest] = []
    for event in events:
        if (request := _request(model, event)) is not None:
            found.append(request)
        elif (answer := _answer(model, event)) is not None:
            found = [
                each
                for each in found
                if each.digest != answer.digest or (each.approvers and answer.approver not in each.approvers)
            ]
        elif event.kind == APPROVAL_EXPIRED:
            found = [each for each in found if each.digest != event.get("digest")]
    return found


def _last_answer(
    model: str, events: Iterable[Event], digest: str, approvers: Sequence[str]
) -> ApprovalAnswer | None:
    last = None
    for event in events:
        answer = _answer(model, event)
        if answer is not None and answer.digest == digest and (not approvers or answer.approver in approvers):
            last = answer
    return last


def _request(model: str, event: Event) -> ApprovalRequest | None:
    """Return what an event asks; None where it is not a request, or a damaged one."""
    digest, node, dataset, expires_at = (
        event.get(fact, "") for fact in ("digest", "node", "dataset", "expires_at")
    )
    approvers = event.get("approvers", [])
    if event.kind != APPROVAL_WANTED or not isinstance(approvers, list) or not digest:
        return None
    texts = (digest, node, dataset, expires_at, *approvers)
    if not all(isinstance(text, str) for text in texts):
        return None
    return ApprovalRequest(
        model, str(digest), event.run, str(node), str(dataset), tuple(approvers), event.at, str(expires_at)
    )


def _answer(model: str, event: Event) -> ApprovalAnswer | None:
    """Return the answer that an event is; None where it is none, or a damaged one."""
    digest, approver, why = (event.get(fact, "") for fact in ("digest", "approver", "why"))
    if event.kind not in _ANSWERS or not (digest and approver):
        return None
    if not all(isinstance(text, str) for text in (digest, approver, why)):
        return None
    is_given = event.kind == APPROVAL_GIVEN
    return ApprovalAnswer(
        model, str(digest), is_given, str(approver), str(why), event.at, event.by, event.run
    )


def _line(what: str, text: str) -> str:
    text = text.strip()
    if not text or len(text) > _MOST_CHARACTERS[what] or not text.isprintable():
        raise AnswerTextError(what, text)
    return text


def _text(time: datetime) -> str:
    return time.astimezone(timezone.utc).isoformat(timespec="seconds")
