"""What can be wrong with an index, or with what is asked of it."""

from collections.abc import Sequence

from mlplatform.errors import GateError, MlplatformError, UsageError


class IndexDamagedError(GateError):
    """The files of an index are not those that its builder wrote, or cannot be an index."""

    def __init__(self, folder: str, file: str, problem: str) -> None:
        super().__init__(folder, file, problem)
        self.folder, self.file, self.problem = folder, file, problem

    def __str__(self) -> str:
        return f"the index in {self.folder} is refused: {self.file} {self.problem}. Build it again."


class EmbeddingMismatchError(GateError):
    """An index was made with another model than the one that is to search it."""

    def __init__(self, folder: str, index_fingerprint: str, model_fingerprint: str) -> None:
        super().__init__(folder, index_fingerprint, model_fingerprint)
        self.folder = folder
        self.index_fingerprint, self.model_fingerprint = index_fingerprint, model_fingerprint

    def __str__(self) -> str:
        return (
            f"the index in {self.folder} holds vectors of embedding {self.index_fingerprint[:16]}, and the "
            f"model beside it computes {self.model_fingerprint[:16]}: its answers would mean nothing. Build "
            "the index with this model."
        )


class GoldenPhotoError(GateError):
    """A model gives a golden photo another vector than when the index was built, or finds another item."""

    def __init__(self, folder: str, place: int, problem: str) -> None:
        super().__init__(folder, place, problem)
        self.folder, self.place, self.problem = folder, place, problem

    def __str__(self) -> str:
        return (
            f"the index in {self.folder} does not fit the model beside it: for golden photo {self.place + 1} "
            f"{self.problem}. Build the index with the model and the libraries that serve it."
        )


class NoIndexError(UsageError):
    """A version of a model carries no index."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place

    def __str__(self) -> str:
        return f"{self.place} carries no index. The image_search pipeline pushes models with one."


class UnindexableVectorError(MlplatformError):
    """A vector cannot be searched for."""

    def __init__(self, place: int, problem: str) -> None:
        super().__init__(place, problem)
        self.place, self.problem = place, problem

    def __str__(self) -> str:
        return f"vector {self.place} {self.problem}: an index holds finite vectors of length 1."


class FilterError(UsageError):
    """A filter cannot be meant."""

    def __init__(self, text: str, problem: str) -> None:
        super().__init__(text, problem)
        self.text, self.problem = text, problem

    def __str__(self) -> str:
        return (
            f"filter {self.text[:200]!r}: {self.problem}. A filter is a JSON object such as "
            '{"label": ["dress"], "price": [0, 50], "not": ["item-7"]}.'
        )


class ItemNotFoundError(UsageError):
    """An index holds no such item."""

    def __init__(self, item_id: str) -> None:
        super().__init__(item_id)
        self.item_id = item_id

    def __str__(self) -> str:
        return f"the index holds no item {self.item_id!r}; it was never added, or it was removed."


class TooFewQueriesError(MlplatformError):
    """There are too few held-out vectors to choose an index by."""

    def __init__(self, found: int, needed: int) -> None:
        super().__init__(found, needed)
        self.found, self.needed = found, needed

    def __str__(self) -> str:
        return (
            f"there are {self.found} held-out photos, and at least {self.needed} are needed to measure what "
            "an approximate index finds. Hold out more, or set the kind to 'exact'."
        )


class IndexNotGoodEnoughError(GateError):
    """The gate refuses an index."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        return f"the index is refused: {'; '.join(self.reasons)}. Nothing was pushed."


class SegmentDamagedError(MlplatformError):
    """What was added to or removed from an index since it was built cannot be read."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(place, problem)
        self.place, self.problem = place, problem

    def __str__(self) -> str:
        return (
            f"{self.place} cannot be read: {self.problem}. Restore it, or build the index again without it."
        )
