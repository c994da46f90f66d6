"""What is wrong with a taxonomy."""

from collections.abc import Sequence

from mlplatform.errors import UsageError

_SHOWN = 20


class TaxonomyError(UsageError):
    """A taxonomy does not say what it has to.

    Attributes:
        source: The file, or the dataset version.
        problems: One sentence for each thing that is wrong.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__(source, problems)
        self.source, self.problems = source, problems

    def __str__(self) -> str:
        more = len(self.problems) - _SHOWN
        shown = "; ".join(self.problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        return f"taxonomy {self.source}: {shown}. See docs/reference/taxonomy.md."
