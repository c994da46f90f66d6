"""Why a push did not happen, or was taken back."""

from collections.abc import Sequence

from mlplatform.errors import GateError, MlplatformError


class NotBlessedError(GateError):
    """The model did not pass its validation, so it is not pushed."""

    def __init__(self, model_name: str, missing: Sequence[str]) -> None:
        super().__init__(model_name, missing)
        self.model_name, self.missing = model_name, missing

    def __str__(self) -> str:
        return (
            f"{self.model_name!r} is not pushed: {' and '.join(self.missing)} say no. The servers keep the "
            "version they have. See the model report for the reasons."
        )


class NotApprovedError(GateError):
    """No person agreed to this very model, so it is not pushed."""

    def __init__(self, model_name: str, digest: str, reason: str) -> None:
        super().__init__(model_name, digest, reason)
        self.model_name, self.digest, self.reason = model_name, digest, reason

    def __str__(self) -> str:
        return (
            f"{self.model_name!r} (digest {self.digest[:12]}) is not pushed: {self.reason}. The servers keep "
            "the version they have. An approval holds for the files that it was given for, alone."
        )


class ServerRefusesError(MlplatformError):
    """A server cannot load a version, or does not answer with it as it must."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(server, reason)
        self.server, self.reason = server, reason

    def __str__(self) -> str:
        return f"server {self.server} {self.reason}"


class PushRejectedByServerError(GateError):
    """A server could not load or answer with the pushed version.

    Attributes:
        model_name: The model's name.
        version: The version that was pushed.
        server: The server's address.
        reason: What it said or did.
        is_withdrawn: The push was taken back; False for a version that was accepted before.
        before: The newest version that servers see then; None where there is none.
    """

    def __init__(
        self, model_name: str, version: int, server: str, reason: str, is_withdrawn: bool, before: int | None
    ) -> None:
        super().__init__(model_name, version, server, reason, is_withdrawn, before)
        self.model_name, self.version, self.server, self.reason = model_name, version, server, reason
        self.is_withdrawn, self.before = is_withdrawn, before

    def __str__(self) -> str:
        cause = f"server {self.server} {self.reason}"
        if not self.is_withdrawn:
            return (
                f"version {self.version} of {self.model_name!r} is not confirmed: {cause}. It stays pushed, "
                "as it was accepted before: confirmed by servers, pushed without servers to ask, or promoted."
            )
        after = "There is no version before it, so nothing serves"
        if self.before is not None:
            after = f"Version {self.before} goes on serving"
        return (
            f"version {self.version} of {self.model_name!r} was pushed and rolled back: {cause}. {after}; "
            "the new one lies in the model's 'withdrawn' folder."
        )
