"""Record accounting of TFX's own components: the counts of both sides, and a difference is an error."""

import json
from pathlib import Path

import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.orchestration.portable import outputs_utils
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.proto.orchestration import execution_result_pb2
from tfx.types import standard_artifacts

from mlplatform.beam.accounting import RecordsLostError
from mlplatform.beam.counting import count_rows
from mlplatform.orchestration.local import LocalRunner
from mlplatform.orchestration.local.stock_accounting import check_records

ARGUMENTS = ["--runner=DirectRunner", "--direct_running_mode=multi_threading", "--direct_num_workers=2"]
CSV = 'id,text\n1,plain\n\n2,"two\nlines, ""quoted"""\n3,last'  # three rows


def artifact(kind, folder, splits):
    made = kind()
    made.uri, made.split_names = str(folder), json.dumps(splits)
    return made


def examples(folder, **counts):
    """Write Examples with so many records in each split, as TFX does: compressed."""
    for split, count in counts.items():
        file = Path(folder) / f"Split-{split}/data_tfrecord-00000-of-00001.gz"
        file.parent.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
            for number in range(count):
                writer.write(b"record %d" % number)
    return artifact(standard_artifacts.Examples, folder, [*counts])


def statistics(folder, rates=None, **counts):
    for split, count in counts.items():
        (Path(folder) / f"Split-{split}").mkdir(parents=True)
        found = statistics_pb2.DatasetFeatureStatisticsList()
        found.datasets.add(num_examples=count)
        (Path(folder) / f"Split-{split}/FeatureStats.pb").write_bytes(found.SerializeToString())
    made = artifact(standard_artifacts.ExampleStatistics, folder, [*counts])
    made.set_json_value_custom_property("sample_rate_by_split", json.dumps(rates or {}))
    return made


def check(tmp_path, executor, inputs, outputs, properties=None):
    given = ExecutionInfo(
        input_dict=inputs,
        output_dict=outputs,
        exec_properties=properties or {},
        tmp_dir=str(tmp_path / "tmp"),
    )
    output = execution_result_pb2.ExecutorOutput()
    outputs_utils.populate_output_artifact(output, outputs)
    check_records(f"tfx.components.{executor}.executor.Executor", given, output, ARGUMENTS)


def test_rows_are_counted_as_csv_example_gen_reads_them(tmp_path):
    (tmp_path / "data.csv").write_text(CSV)
    assert count_rows(str(tmp_path / "data.csv")) == 3


def test_a_row_that_did_not_become_an_example_is_an_error(tmp_path):
    (tmp_path / "data.csv").write_text(CSV)
    properties = {"input_base": str(tmp_path), "input_config": '{"splits": [{"pattern": "*.csv"}]}'}
    left = {"examples": [examples(tmp_path / "left", train=1, eval=1)]}
    with pytest.raises(RecordsLostError) as raised:
        check(tmp_path, "example_gen.csv_example_gen", {}, left, properties)
    assert (raised.value.what, raised.value.entered, raised.value.left) == (
        "csv_example_gen, all splits",
        3,
        2,
    )


def test_statistics_are_of_all_records_of_each_split_that_is_not_sampled(tmp_path):
    entered = {"examples": [examples(tmp_path / "in", train=5, eval=4, more=9)]}
    whole = statistics(tmp_path / "whole", {"more": 0.5}, train=5, eval=4, more=3)
    check(tmp_path, "statistics_gen", entered, {"statistics": [whole]})
    less = statistics(tmp_path / "less", train=5, eval=3)
    with pytest.raises(RecordsLostError, match="statistics_gen, split eval: 4 records went in and 3 came"):
        check(tmp_path, "statistics_gen", entered, {"statistics": [less]})


def test_transform_gives_a_record_for_each_one_of_all_its_inputs(tmp_path):
    entered = [examples(tmp_path / "1", train=5, eval=2), examples(tmp_path / "2", train=1, eval=1)]
    left = [examples(tmp_path / "3", train=5, eval=2), examples(tmp_path / "4", train=2, eval=1)]
    with pytest.raises(RecordsLostError, match="transform, split train: 6 records went in and 7 came"):
        check(tmp_path, "transform", {"examples": entered}, {"transformed_examples": left})


def test_the_evaluator_measures_all_records_of_its_splits(tmp_path):
    config = tfma.EvalConfig(
        model_specs=[tfma.ModelSpec(prediction_key="answer", label_key="truth")],
        slicing_specs=[tfma.SlicingSpec()],
        metrics_specs=[tfma.MetricsSpec(metrics=[tfma.MetricConfig(class_name="ExampleCount")])],
    )
    rows = pd.DataFrame({"answer": [0.1, 0.9, 0.8], "truth": [0.0, 1.0, 1.0]})
    tfma.analyze_raw_data(rows, config, output_path=str(tmp_path / "evaluation"))
    evaluation = standard_artifacts.ModelEvaluation()
    evaluation.uri = str(tmp_path / "evaluation")
    entered = {"examples": [examples(tmp_path / "in", train=9, eval=4)]}
    with pytest.raises(RecordsLostError, match="evaluator, all records: 4 records went in and 3 came out"):
        check(tmp_path, "evaluator", entered, {"evaluation": [evaluation]}, {"example_splits": "null"})


def test_other_components_are_left_to_themselves(tmp_path):
    check(tmp_path, "trainer", {}, {})
    check(tmp_path, "transform", {"examples": [examples(tmp_path / "in", train=1)]}, {})  # writes no Examples


@pytest.mark.e2e
@pytest.mark.slow
def test_a_node_of_several_workers_is_checked(tmp_path, pipeline):
    from tfx.components import CsvExampleGen

    (tmp_path / "data").mkdir()
    (tmp_path / "data/data.csv").write_text(CSV)
    made = pipeline(CsvExampleGen(input_base=str(tmp_path / "data")), beam_pipeline_args=ARGUMENTS)
    root = tmp_path / "root"
    record = LocalRunner(root).run(made)
    log = (root / "runs" / record.run_id / "logs/CsvExampleGen.log").read_text()
    assert "csv_example_gen, all splits: 3 records went in and came out" in log
