"""Ask a model about many records: in this process, or piece by piece on a Beam engine."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mlplatform.beam.accounting import check_all_left
from mlplatform.beam.job_server import require_job_server
from mlplatform.prediction.errors import NothingPredictedError, PredictionInputError
from mlplatform.prediction.inputs import RejectedInput, read
from mlplatform.prediction.outputs import PartWriter, check_output, join_parts
from mlplatform.prediction.pieces import Piece, pieces
from mlplatform.prediction.served_model import ServedModel, ServedSignature, brief
from mlplatform.progress import Task, track
from mlplatform.vision.examples import IMAGE, turn_webp

BATCH_PHOTOS, BATCH_ROWS = 32, 256
REJECTS_SHOWN = 20
_Keyed = tuple[str, tf.train.Example]


@dataclass(frozen=True)
class Model:
    """The model that is asked.

    Attributes:
        folder: Its SavedModel, where every worker sees it.
        name: What rows call it, `item_category@3`.
        dataset: The dataset version that it was trained on, `items@v3`; empty where that is not known.
        signature: The signature to ask.
    """

    folder: str
    name: str
    dataset: str = ""
    signature: str = "serving_default"


@dataclass
class PredictionCounts:
    """What became of the records: as many rows and rejects as there were records.

    Attributes:
        records: Records that were read.
        rows: Rows that were written.
        rejected: Records without a prediction, by reason.
        rejects: The first of them.
    """

    records: int = 0
    rows: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    rejects: list[RejectedInput] = field(default_factory=list)

    def add(self, other: "PredictionCounts") -> None:
        """Add those of another piece."""
        self.records += other.records
        self.rows += other.rows
        self.rejected = dict(Counter(self.rejected) + Counter(other.rejected))
        self.rejects = [*self.rejects, *other.rejects][:REJECTS_SHOWN]

    def reject(self, reject: RejectedInput) -> None:
        """Count a record without a prediction."""
        self.rejected[reject.reason] = self.rejected.get(reject.reason, 0) + 1
        if len(self.rejects) < REJECTS_SHOWN:
            self.rejects.append(reject)


def predict(
    model: Model,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    beam_arguments: Sequence[str] = (),
) -> PredictionCounts:
    """Write a row per record: its key, the model, its dataset version, and the model's outputs.

    Args:
        model: The model that is asked.
        source: A folder of photos, a Parquet file, or a file or folder of Examples; on an engine, where every
            worker sees it.
        output: A file that does not exist, `.parquet` or `.tfrecord`; its folder likewise.
        beam_arguments: Beam's arguments that choose an engine; none works in this process, without Beam.

    Raises:
        PredictionInputError: The source cannot be read, or the model takes no such records.
        PredictionOutputError: The output cannot be written.
        ModelNotLoadableError: TensorFlow cannot load the model.
        NothingPredictedError: The model answered no record.
        RecordsLostError: Not as many rows and rejects came out as records went in.
    """
    target, found = check_output(output), pieces(source)
    require_job_server(beam_arguments)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        job = _PredictionJob(model, scratch, target.suffix)
        if beam_arguments:
            _on_beam(job, found, beam_arguments)
        else:
            with track("predict", unit="records") as bar:
                for number, piece in enumerate(found):
                    _predict_piece(job, number, piece, bar)
        facts = [json.loads(job.facts(number).read_text()) for number in range(len(found))]
        whole = PredictionCounts()
        for fact in facts:
            rejects = [RejectedInput(**reject) for reject in fact.pop("rejects")]
            whole.add(PredictionCounts(**fact, rejects=rejects))
        check_all_left("predict", whole.records, whole.rows + sum(whole.rejected.values()))
        if not whole.rows:
            first = whole.rejects[0] if whole.rejects else None
            cause = f"{first.key}: {first.detail}" if first else "there is none"
            raise NothingPredictedError(model.name, whole.records, cause)
        join_parts([part for n in range(len(found)) if (part := job.part(n)).exists()], target)
    return whole


@dataclass(frozen=True)
class _PredictionJob:
    model: Model
    scratch: str
    suffix: str

    def part(self, number: int) -> Path:
        return Path(self.scratch) / f"part-{number:06d}{self.suffix}"

    def facts(self, number: int) -> Path:
        return Path(self.scratch) / f"facts-{number:06d}.json"


def _on_beam(job: _PredictionJob, found: Sequence[Piece], beam_arguments: Sequence[str]) -> None:
    # Here, as Beam is not needed in one process.
    import apache_beam as beam

    from mlplatform.beam.runners import pipeline_options
    from mlplatform.beam.versions import versions

    with beam.Pipeline(options=pipeline_options(beam_arguments)) as pipeline:
        _ = (
            pipeline
            | beam.Create(list(enumerate(found)))
            | beam.Reshuffle()
            | "Predict" >> beam.Map(_predict_on_worker, job, versions())
        )
    missing = [number for number in range(len(found)) if not job.facts(number).exists()]
    check_all_left("predict, its pieces", len(found), len(found) - len(missing))


def _predict_on_worker(numbered: tuple[int, Piece], job: _PredictionJob, driver: str) -> None:
    from mlplatform.beam.versions import require_versions

    require_versions(driver)
    number, piece = numbered
    with track("predict", unit="records") as bar:
        _predict_piece(job, number, piece, bar)


@lru_cache(maxsize=1)  # a model is loaded once per worker
def _loaded(folder: str) -> ServedModel:
    return ServedModel.load(Path(folder))


def _predict_piece(job: _PredictionJob, number: int, piece: Piece, bar: Task) -> None:
    """Predict for a piece; leave its rows and its counts. A second attempt leaves the same."""
    model = _loaded(job.model.folder)
    counts = PredictionCounts()
    signature: ServedSignature | None = None
    constants = {"model": job.model.name, "dataset": job.model.dataset}
    with PartWriter(job.part(number), constants) as writer:
        for batch in _batches(piece, counts):
            if signature is None:
                signature, reason = model.judged([job.model.signature], batch[0][1])
                if signature is None:
                    raise PredictionInputError(piece.files[0], f"{job.model.name}: {reason}")
            for keys, outputs in _answers(signature, batch, counts):
                writer.write(keys, outputs)
            bar.advance(len(batch))
    counts.rows = writer.rows
    partial = job.facts(number).with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(asdict(counts)))
    partial.replace(job.facts(number))


def _batches(piece: Piece, counts: PredictionCounts) -> Iterator[list[_Keyed]]:
    batch: list[_Keyed] = []
    for key, found in read(piece):
        counts.records += 1
        if isinstance(found, RejectedInput):
            counts.reject(found)
            continue
        has_photo = IMAGE in found.features.feature and found.features.feature[IMAGE].bytes_list.value
        if has_photo:
            turn_webp(found)
        batch.append((key, found))
        if len(batch) >= (BATCH_PHOTOS if has_photo else BATCH_ROWS):
            yield batch
            batch = []
    if batch:
        yield batch


def _answers(
    signature: ServedSignature, batch: Sequence[_Keyed], counts: PredictionCounts
) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Yield keys and outputs of the records that are answered; a batch that fails is asked one by one."""
    keys = [key for key, _ in batch]
    try:
        found = signature.answer([example for _, example in batch])
        # An output may be one value for the whole batch.
        outputs = {name: np.broadcast_to(a, (len(batch), *a.shape[1:])) for name, a in found.items()}
    except (tf.errors.OpError, ValueError, TypeError) as error:
        if len(batch) > 1:
            for one in batch:
                yield from _answers(signature, [one], counts)
        else:
            counts.reject(RejectedInput(keys[0], "not_answered", brief(error)))
        return
    yield keys, outputs
