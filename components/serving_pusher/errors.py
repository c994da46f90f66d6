"""Why a push did not happen, or was taken back."""

from collections.abc import Sequence

from mlplatform.errors import GateError, MlplatformError, UsageError


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


class PushRejectedByServerError(MlplatformError):
    """A server could not load or answer with the new version; the push was taken back."""

    def __init__(self, model_name: str, version: int, server: str, reason: str) -> None:
        super().__init__(model_name, version, server, reason)
        self.model_name, self.version, self.server, self.reason = model_name, version, server, reason

    def __str__(self) -> str:
        return (
            f"version {self.version} of {self.model_name!r} was pushed and rolled back: server {self.server} "
            f"{self.reason}. The version before it goes on serving; the new one lies in the model's "
            "'withdrawn' folder."
        )


class ServerAddressError(UsageError):
    """A server address is not HOST:PORT."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address

    def __str__(self) -> str:
        return f"server {self.address!r} is not HOST:PORT (its gRPC port), such as 127.0.0.1:8500."
