"""The page of one run: what ran and how long, what the model says of photos, where everything lies."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlplatform.reports.page import write_page


@dataclass(frozen=True)
class Fact:
    """A name and its value, as they are shown."""

    name: str
    value: str


@dataclass(frozen=True)
class NodeRow:
    """One node of the run.

    Attributes:
        id: The node's id in the pipeline.
        state: `done`, `cached`, `failed` or `skipped`.
        seconds: Wall time.
        why: Why it ran, or why its earlier result was taken.
    """

    id: str
    state: str
    seconds: float
    why: str = ""


@dataclass(frozen=True)
class Swatch:
    """A colour of an item.

    Attributes:
        rgb: sRGB, 0 to 255 each.
        share: Of the item, 0 to 1.
    """

    rgb: tuple[int, ...]
    share: float


@dataclass(frozen=True)
class Prediction:
    """What a model server said of one photo.

    Attributes:
        picture: The photo as a data URI.
        truth: Its real category.
        classes: Categories, best first.
        scores: Their scores, 0 to 1, in the same order.
        swatches: The item's colours, where the model says them.
    """

    picture: str
    truth: str
    classes: Sequence[str]
    scores: Sequence[float]
    swatches: Sequence[Swatch] = ()

    @property
    def is_right(self) -> bool:
        """The first answer is the truth."""
        return self.classes[0] == self.truth


@dataclass(frozen=True)
class RunPage:
    """All that the page shows."""

    pipeline: str
    run_id: str
    started_at: str
    wall_s: float
    nodes: Sequence[NodeRow]
    figures: Sequence[Fact] = ()
    predictions: Sequence[Prediction] = ()
    places: Sequence[Fact] = ()

    @property
    def longest_s(self) -> float:
        """Seconds of the slowest node, above 0."""
        return max([node.seconds for node in self.nodes] + [0.001])

    @property
    def right(self) -> int:
        """How many photos were answered right."""
        return sum(prediction.is_right for prediction in self.predictions)


def write_run_page(path: Path, page: RunPage) -> Path:
    """Write the page to `path` and return it."""
    return write_page(path, "run_page.html", page=page)
