"""Errors of storages."""

from mlplatform.errors import MlplatformError, UsageError


class CorruptStoreError(MlplatformError):
    """A file of the store is not what was written."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return (
            f"{self.path} is damaged: {self.problem}. Restore the file from a copy of the store; "
            "'mlplatform datasets verify' lists everything that is damaged."
        )


class StoreAccessError(MlplatformError):
    """A URL cannot be reached, or refuses what was asked."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(url, problem)
        self.url, self.problem = url, problem

    def __str__(self) -> str:
        return (
            f"{self.url} cannot be reached or refused what was asked: {self.problem}. Check the URL, that "
            "its bucket exists, the credentials and the network; then run the same command again."
        )


class NoAtomicCreateError(UsageError):
    """The backend cannot create a file exactly once, so two writers could overwrite each other."""

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store, self.reason = store, reason

    def __str__(self) -> str:
        return (
            f"{self.store} cannot be written: {self.reason}, and without an atomic create two commits could "
            "overwrite each other. Reading works. Keep the store on a local folder, S3, Google Cloud Storage "
            "or Azure Blob Storage."
        )
