"""Record accounting of TFX's own Beam components: what went in came out, or the node fails.

They keep no such account themselves. So a job on the same engine counts the records of what a node read and
of what it left before anything is published: files and statistics, not the counters of the engine, which
count each attempt.
"""

import logging
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.components.util import examples_utils
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.proto import example_gen_pb2
from tfx.proto.orchestration import execution_result_pb2
from tfx.types import Artifact, artifact_utils
from tfx.utils import json_utils

from mlplatform.beam.accounting import check_all_left
from mlplatform.beam.counting import CsvRows, TfRecords, count
from mlplatform.storage import open_storage
from mlplatform.storage.urls import join

log = logging.getLogger(__name__)

Artifacts = Mapping[str, Sequence[Artifact]]


@dataclass(frozen=True)
class Execution:
    """What an executor was given and what it left.

    Attributes:
        inputs: Artifacts by input.
        outputs: Artifacts by output, as the executor describes them.
        properties: Its parameters.
    """

    inputs: Artifacts
    outputs: Artifacts
    properties: Mapping[str, Any]


Side = TfRecords | CsvRows | int
Balance = tuple[str, Side, Side]  # of what, what went in, what came out


def check_records(
    executor: str,
    given: ExecutionInfo,
    output: execution_result_pb2.ExecutorOutput,
    beam_arguments: Sequence[str],
) -> None:
    """Check the balance of an execution of a stock component; others are skipped.

    Args:
        executor: Import path of the executor's class.
        given: What it was given; its temporary folder has to be one that the engine's workers see.
        output: What it left.
        beam_arguments: Beam's arguments that it ran with.

    Raises:
        RecordsLostError: Records went in that did not come out, or the other way round.
    """
    balances_of = _BALANCES.get(executor)
    if balances_of is None:
        return
    execution = Execution(
        given.input_dict,
        {
            name: [
                artifact_utils.deserialize_artifact(given.output_dict[name][0].artifact_type, artifact)
                for artifact in found.artifacts
            ]
            for name, found in output.output_artifacts.items()
        },
        given.exec_properties,
    )
    balances = [*balances_of(execution)]
    counts = _count([side for _, *sides in balances for side in sides], beam_arguments, given.tmp_dir)
    component = executor.split(".")[-3]
    for what, entered, left in balances:
        check_all_left(f"{component}, {what}", counts[entered], counts[left])
        log.info("%s, %s: %d records went in and came out", component, what, counts[left])


def _count(sides: Sequence[Side], beam_arguments: Sequence[str], work_dir: str) -> dict[Side, int]:
    """Return how many records each side has, those of files counted by one job."""
    known: dict[Side, int] = {side: side for side in sides if isinstance(side, int)}
    files = [*dict.fromkeys(side for side in sides if not isinstance(side, int))]
    if not files:
        return known
    counts_file = posixpath.join(work_dir, "record_counts.json")
    return known | dict(zip(files, count(files, beam_arguments, counts_file), strict=True))


def _of_example_gen(execution: Execution, kind: type[TfRecords] | type[CsvRows]) -> Iterator[Balance]:
    config = json_format.Parse(execution.properties["input_config"], example_gen_pb2.Input())
    base = execution.properties["input_base"]
    entered = tuple(posixpath.join(base, split.pattern) for split in config.splits)
    if left := _records(execution.outputs["examples"]):
        yield "all splits", kind(entered), left


def _of_statistics(execution: Execution) -> Iterator[Balance]:
    """Yield the balance of each split that all records are taken of."""
    [statistics] = execution.outputs["statistics"]
    rates = json_utils.loads(statistics.get_json_value_custom_property("sample_rate_by_split") or "{}")
    for split in _splits(statistics):
        entered = _records(execution.inputs["examples"], split)
        if entered and rates.get(split, 1.0) == 1.0:
            yield f"split {split}", entered, _number_of_examples(statistics, split)


def _number_of_examples(statistics: Artifact, split: str) -> int:
    [folder] = artifact_utils.get_split_uris([statistics], split)
    data = open_storage(folder).read("FeatureStats.pb")
    found = statistics_pb2.DatasetFeatureStatisticsList.FromString(data)
    return int(found.datasets[0].num_examples)


def _of_transform(execution: Execution) -> Iterator[Balance]:
    transformed = execution.outputs.get("transformed_examples", ())
    for split in _splits(transformed[0]) if transformed else ():
        entered, left = _records(execution.inputs["examples"], split), _records(transformed, split)
        if entered and left:
            yield f"split {split}", entered, left


def _of_evaluator(execution: Execution) -> Iterator[Balance]:
    """Yield the balance of the slice of all records, where it is measured and its records are counted."""
    import tensorflow_model_analysis as tfma

    [evaluation] = execution.outputs["evaluation"]
    found = tfma.load_eval_result(evaluation.uri).get_metrics_for_slice(()) or {}
    measured = found.get("example_count", {}).get("doubleValue")
    splits = json_utils.loads(execution.properties.get("example_splits") or "null") or ["eval"]
    of_splits = [_records(execution.inputs["examples"], split) for split in splits]
    if measured is not None and all(of_splits):
        entered = TfRecords(
            tuple(pattern for records in of_splits if records for pattern in records.patterns)
        )
        yield "all records", entered, int(measured)


def _records(examples: Sequence[Artifact], split: str | None = None) -> TfRecords | None:
    """Return the records of a split, or of all; None for files that are not TFRecord."""
    if any("tfrecord" not in examples_utils.get_file_format(artifact) for artifact in examples):
        return None
    patterns = (
        join(folder, "*")
        for artifact in examples
        for name in ([split] if split else _splits(artifact))
        for folder in artifact_utils.get_split_uris([artifact], name)
    )
    return TfRecords(tuple(patterns))


def _splits(artifact: Artifact) -> list[str]:
    return list(artifact_utils.decode_split_names(artifact.split_names))


_BALANCES: dict[str, Callable[[Execution], Iterator[Balance]]] = {
    "tfx.components.example_gen.csv_example_gen.executor.Executor": lambda e: _of_example_gen(e, CsvRows),
    "tfx.components.example_gen.import_example_gen.executor.Executor": lambda e: _of_example_gen(
        e, TfRecords
    ),
    "tfx.components.statistics_gen.executor.Executor": _of_statistics,
    "tfx.components.transform.executor.Executor": _of_transform,
    "tfx.components.evaluator.executor.Executor": _of_evaluator,
}
