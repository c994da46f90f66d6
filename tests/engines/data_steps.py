"""The data steps of photos, one at a time: ingest, commit, statistics, scoring; and what each finds.

folder/photos/<class>/   the photos
folder/examples/         what an ingest in process made of them (`prepare`)
folder/model/            a classifier as item_category exports it, with random weights (`prepare`)
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow as tf
from google.protobuf import json_format

from mlplatform.beam.runners import IN_PROCESS, followed, pipeline_options

Arguments = Sequence[str] | None  # Beam's; None is this process


@dataclass(frozen=True)
class Found:
    """What a step found.

    Attributes:
        records: How many records it handled.
        facts: What is the same on every engine; floats up to the rounding of sums.
    """

    records: int
    facts: Any


Step = Callable[[Path, Arguments, Path], Found]


def prepare(folder: Path, image_size: int) -> None:
    """Ingest the photos of a folder, and export a model for them."""
    import keras

    from mlplatform.vision.backbones import build_backbone
    from mlplatform.vision.signatures import export_image_classifier

    ingest(folder, None, folder)
    [sample] = tf.data.TFRecordDataset(shards(folder)["eval"]).take(1).as_numpy_iterator()
    labels = sorted(kind.name for kind in (folder / "photos").iterdir())
    keras.utils.set_random_seed(1)
    inputs = keras.Input((image_size, image_size, 3))
    features = build_backbone("efficientnet_lite0", image_size).network(inputs)
    network = keras.Model(inputs, keras.layers.Dense(len(labels), kernel_initializer="he_normal")(features))
    export_image_classifier(network, labels, image_size, folder / "model", samples=[sample])


def shards(folder: Path) -> dict[str, list[str]]:
    """Return the files of each split of the Examples."""
    return {
        split.name.removeprefix("Split-"): sorted(map(str, split.iterdir()))
        for split in (folder / "examples").glob("Split-*")
    }


def ingest(folder: Path, arguments: Arguments, place: Path) -> Found:
    """Photos to Examples, as ImageExampleGen does it: what is found are the bytes of all files."""
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import standard_artifacts

    from mlplatform.artifacts import RejectedRecords
    from mlplatform.components import ImageExampleGen
    from mlplatform.components.image_example_gen.executor import Executor

    splits = {"train": 4, "eval": 1}
    node = ImageExampleGen(input_base=str(folder / "photos"), splits=splits, max_reject_fraction=0.5)
    examples, rejects = standard_artifacts.Examples(), RejectedRecords()
    examples.uri, rejects.uri = str(place / "examples"), str(place / "rejects")
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=followed(arguments) if arguments else [f"--runner={IN_PROCESS}"],
        tmp_dir=str(place / "tmp"),
    )
    Executor(context).Do({}, {"examples": [examples], "rejects": [rejects]}, dict(node.exec_properties))
    summary = json.loads((place / "rejects/summary.json").read_text())
    files = sorted((place / "examples").rglob("data*"))
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    rejected = (place / "rejects/rejects.jsonl").read_text()
    return Found(summary["entries"], {"summary": summary, "files": digests, "rejected": rejected})


def commit(folder: Path, arguments: Arguments, place: Path) -> Found:
    """A first version of the Examples: its digest."""
    from mlplatform.datasets import DatasetStore

    store = DatasetStore(str(place / "store"))
    done = store.commit(
        "items", str(folder / "examples"), key=["item_id"], label="label", beam_options=arguments
    )
    records = {name: split.records for name, split in done.manifest.splits.items()}
    return Found(sum(records.values()), {"digest": done.manifest.digest, "records": records})


def statistics(folder: Path, arguments: Arguments, place: Path) -> Found:
    """One pass of DataValidator: TFDV's statistics, and those of the photos' brightness."""
    from mlplatform.components.data_validator.validate import Data, measure

    def pipeline() -> beam.Pipeline:
        return beam.Pipeline(options=pipeline_options(arguments or []))

    facts = {}
    for split, both in measure(Data(shards(folder)), pipeline, str(place)).items():
        for some in both:
            for dataset in some.datasets:
                dataset.features.sort(key=lambda feature: [*feature.path.step])
        facts[split] = [json_format.MessageToDict(some) for some in both]
    return Found(sum(int(some["datasets"][0]["numExamples"]) for some, _ in facts.values()), facts)


def scoring(folder: Path, arguments: Arguments, place: Path) -> Found:
    """The model gate's figures of all records."""
    from mlplatform.components.model_validator.records import Records
    from mlplatform.components.model_validator.scoring import ScoredModel, quality_json, score
    from mlplatform.components.model_validator.scoring_on_beam import ScoringJob, score_on_beam
    from mlplatform.components.model_validator.settings import Question
    from mlplatform.prediction.served_model import ServedModel

    question, files = Question.of(), [file for some in shards(folder).values() for file in some]
    if arguments is None:
        model = ScoredModel(ServedModel.load(folder / "model"), question.find_kind())
        scores = score(Records(files, question), question, model)
    else:
        scores, _ = score_on_beam(ScoringJob(files, question, str(folder / "model"), str(place)), arguments)
    return Found(scores.new.records, json.loads(json.dumps(quality_json(scores.new))))


STEPS: dict[str, Step] = {
    "ingest": ingest,
    "commit": commit,
    "statistics": statistics,
    "scoring": scoring,
}
