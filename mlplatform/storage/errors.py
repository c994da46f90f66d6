"""Errors of storages."""

from mlplatform.errors import MlplatformError, UsageError


class BadPathError(UsageError):
    """A path of a storage would leave its root, or is one that not every backend can hold."""

    def __init__(self, url: str, path: str, problem: str) -> None:
        super().__init__(url, path, problem)
        self.url, self.path, self.problem = url, path, problem

    def __str__(self) -> str:
        return (
            f"{self.path!r} cannot be a file or folder below {self.url}: {self.problem}. Give names that are "
            "separated by '/', in UTF-8, without '.', '..', empty names and NUL characters."
        )


class LostSlashError(UsageError):
    """A URL became a path: something took its two slashes for one."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        meant = self.path.replace(":/", "://", 1)
        return (
            f"{self.path!r} would be a folder of this machine. Give {meant!r} for the URL, or ./{self.path} "
            "for a folder of that name."
        )


class CorruptStoreError(MlplatformError):
    """A file is not what was written."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return (
            f"{self.path} is damaged: {self.problem}. Restore the file from a copy. In a dataset store, "
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
            "its bucket exists, the credentials, AWS_ENDPOINT_URL where the server is not Amazon's, and the "
            "network; then run the same command again."
        )


class NoAtomicCreateError(UsageError):
    """The backend cannot create a file exactly once, so two writers could overwrite each other."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url, self.reason = url, reason

    def __str__(self) -> str:
        return (
            f"{self.url} cannot be written: {self.reason}, and without an atomic create two writers could "
            "overwrite each other. Reading works. Take a local folder, S3, Google Cloud Storage or Azure "
            "Blob Storage."
        )
