"""Preview the decisions that change: what two models answer to the requests that a server logged."""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from mlplatform.components.model_validator.compare import AskedModel
from mlplatform.components.model_validator.errors import NothingToEvaluateError
from mlplatform.components.model_validator.report import features_shown
from mlplatform.components.model_validator.settings import Question
from mlplatform.prediction.served_model import values_of
from mlplatform.progress import track
from mlplatform.reports.compare_page import ChangedRecord, RequestsPage, write_requests_page
from mlplatform.reports.thumbnails import small_picture
from mlplatform.serving.logged_requests import DamagedLogError, log_files, read_requests
from mlplatform.tfx_io.artifacts import fetched
from mlplatform.vision.examples import IMAGE

MOST_MOVES, OF_MOVE = 20, 6  # moves that are shown with requests, and requests of each
_KEPT_MOVES = 10_000  # moves whose requests are kept while reading
_BATCH_PHOTOS, _BATCH_ROWS = 32, 256


@dataclass(frozen=True)
class Move:
    """Requests whose answer changes in the same way.

    Attributes:
        answer_a: The answer of model A, in words.
        answer_b: That of model B.
        records: How many there are.
        examples: The first of them.
    """

    answer_a: str
    answer_b: str
    records: int
    examples: Sequence[tf.train.Example] = field(repr=False, default=())


@dataclass(frozen=True)
class DecisionChanges:
    """What was found.

    Attributes:
        records: Records of the requests that both models were asked about.
        same: Those with the same answer of both.
        moves: The changes, the most frequent first.
        damaged: Files that end in the middle of a record; they were read up to there.
        unread: Names of inputs that are not features, such as pixels; requests with nothing else are left
            out.
    """

    records: int
    same: int
    moves: Sequence[Move]
    damaged: Sequence[str] = ()
    unread: Sequence[str] = ()

    @property
    def changed(self) -> int:
        """Records with another answer of the two."""
        return self.records - self.same

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "records": self.records,
            "same": self.same,
            "changed": self.changed,
            "moves": [{"a": m.answer_a, "b": m.answer_b, "records": m.records} for m in self.moves],
            "damaged": list(self.damaged),
            "unread": list(self.unread),
        }


def compare_on_requests(
    a: tuple[str, Path], b: tuple[str, Path], requests: str, question: Question
) -> DecisionChanges:
    """Ask two models what a server was asked.

    Args:
        a: Name and SavedModel of the one.
        b: Of the other.
        requests: Folder or URL of a model's request log.
        question: What both answer.

    Raises:
        RequestLogError: There is no finished log.
        ModelNotLoadableError: A model does not load.
        NotComparableError: A model does not answer, or not as its kind should.
        NothingToEvaluateError: No request can be asked again.
    """
    with fetched(requests) as folder:
        log = _Log(log_files(str(folder)))
        one, other = AskedModel(*a, question), AskedModel(*b, question)
        same = records = 0
        moves: Counter[tuple[str, str]] = Counter()
        kept: dict[tuple[str, str], list[tf.train.Example]] = {}
        with track("compare the models", unit="records") as bar:
            for batch in log.batches():
                answers = zip(one.answers(batch), other.answers(batch), strict=True)
                for example, move in zip(batch, answers, strict=True):
                    records += 1
                    if move[0] == move[1]:
                        same += 1
                        continue
                    moves[move] += 1
                    if move in kept or len(kept) < _KEPT_MOVES:
                        some = kept.setdefault(move, [])
                        some.extend([example] if len(some) < OF_MOVE else [])
                bar.advance(len(batch))
    if not records:
        raise NothingToEvaluateError([f"of the request log {requests}"])
    order = heapq.nsmallest(len(moves), moves.items(), key=lambda one: (-one[1], one[0]))
    found = [Move(*move, count, kept.get(move, ())) for move, count in order]
    return DecisionChanges(records, same, found, log.damaged, sorted(log.unread))


class _Log:
    """The Examples of log files, batch by batch."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = files
        self.damaged: list[str] = []
        self.unread: set[str] = set()

    def batches(self) -> Iterator[list[tf.train.Example]]:
        batch: list[tf.train.Example] = []
        for record in self._records():
            example = tf.train.Example.FromString(record)
            batch.append(example)
            if len(batch) == (_BATCH_PHOTOS if IMAGE in example.features.feature else _BATCH_ROWS):
                yield batch
                batch = []
        if batch:
            yield batch

    def _records(self) -> Iterator[bytes]:
        for file in self._files:
            try:
                for asked in read_requests(file, IMAGE):
                    self.unread |= {*asked.unread}
                    yield from asked.examples
            except DamagedLogError:
                self.damaged.append(file)


def write_changes(path: Path, found: DecisionChanges, names: tuple[str, str]) -> Path:
    """Write the page of a preview, with pictures of the requests whose answer changes.

    Args:
        path: The HTML file.
        found: What was found.
        names: What to call the models.
    """
    page = RequestsPage(
        names=names,
        records=found.records,
        same=found.same,
        moves=[
            (move.answer_a, move.answer_b, move.records, [_shown(move, one) for one in move.examples])
            for move in found.moves[:MOST_MOVES]
        ],
        more=max(len(found.moves) - MOST_MOVES, 0),
        damaged=found.damaged,
    )
    return write_requests_page(path, page)


def _shown(move: Move, example: tf.train.Example) -> ChangedRecord:
    photos = values_of(example, IMAGE)
    return ChangedRecord(
        picture=small_picture(photos[0]) if photos else "",
        item_id="",
        truth="",
        answer_a=move.answer_a,
        answer_b=move.answer_b,
        features=() if photos else features_shown(example),
    )
