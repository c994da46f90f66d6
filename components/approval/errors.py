"""Why a model is not approved."""

from mlplatform.errors import GateError


class ApprovalRefusedError(GateError):
    """A person refused the push of a model.

    Attributes:
        model_name: The model's name.
        digest: Digest of its files.
        approver: The person.
        why: The reason.
        at: When, ISO 8601, UTC.
    """

    def __init__(self, model_name: str, digest: str, approver: str, why: str, at: str) -> None:
        super().__init__(model_name, digest, approver, why, at)
        self.model_name, self.digest, self.approver, self.why, self.at = model_name, digest, approver, why, at

    def __str__(self) -> str:
        return (
            f"{self.approver} refused to push {self.model_name!r} at {self.at}: {self.why}. To push this "
            f"very model after all: mlplatform approve {self.model_name}@{self.digest[:12]}, then run "
            "again."
        )


class ApprovalExpiredError(GateError):
    """Nobody decided about a model in time.

    Attributes:
        model_name: The model's name.
        digest: Digest of its files.
        asked_at: When the question was asked, ISO 8601, UTC.
        expires_at: When the time was over, ISO 8601, UTC.
        approvers: Who could have answered, as text.
    """

    def __init__(self, model_name: str, digest: str, asked_at: str, expires_at: str, approvers: str) -> None:
        super().__init__(model_name, digest, asked_at, expires_at, approvers)
        self.model_name, self.digest, self.approvers = model_name, digest, approvers
        self.asked_at, self.expires_at = asked_at, expires_at

    def __str__(self) -> str:
        return (
            f"{self.model_name!r} is not pushed: nobody ({self.approvers}) answered from {self.asked_at} to "
            f"{self.expires_at}. Approve it with: mlplatform approve {self.model_name}@{self.digest[:12]}, "
            "then run again; or run again to ask anew."
        )


class NothingToApproveError(GateError):
    """A gate before the approval says no, so nobody is asked."""

    def __init__(self, model_name: str, gates: str) -> None:
        super().__init__(model_name, gates)
        self.model_name, self.gates = model_name, gates

    def __str__(self) -> str:
        return f"nobody is asked to approve {self.model_name!r}: {self.gates} say no."
