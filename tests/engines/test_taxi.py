"""Data nodes of stock TFX components, with taxi trips: what an engine finds is what this process finds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from comparing import assert_same
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.orchestration.local import LocalRunner

REPOSITORY = Path(__file__).parents[2]
TRIPS = REPOSITORY.parent / "shared" / "data" / "taxi"
ROWS = 3000
PIPELINE = str(REPOSITORY / "examples/taxi/pipeline.py")

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not TRIPS.is_dir(), reason=f"the development data {TRIPS} is not there"),
]


@pytest.fixture(scope="session")
def trips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first rows of the trips."""
    folder = tmp_path_factory.mktemp("trips")
    with (TRIPS / "data.csv").open() as source:
        (folder / "data.csv").write_text(
            "".join(line for line, _ in zip(source, range(ROWS + 1), strict=False))
        )
    return folder


@pytest.fixture(scope="session")
def here(trips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run in this process."""
    root = tmp_path_factory.mktemp("taxi")
    run(root, trips)
    return root


def run(root: Path, trips: Path, engine: Any = None) -> list[str]:
    """Run the pipeline; return what its nodes logged of the records that they counted."""
    runner = LocalRunner(root, parallelism=1)
    try:
        record = runner.run_reference(PIPELINE, data=str(trips), to_nodes=["Transform"], engine=engine)
    finally:
        runner.close()
    logs = (root / "runs" / record.run_id / "logs").glob("*.log")
    lines = (line for log in logs for line in log.read_text().splitlines())
    return sorted(line.split(": ", 1)[1] for line in lines if "records went in and came out" in line)


def newest(root: Path, output: str) -> Path:
    return max((root / "pipelines/taxi" / output).iterdir(), key=lambda folder: int(folder.name))


def records(root: Path, output: str) -> dict[str, list[bytes]]:
    """Return an output's Examples by split, sorted: TFX leaves their order and that of features open."""
    found = {}
    for split in newest(root, output).glob("Split-*"):
        files = sorted(map(str, split.iterdir()))
        read = tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()
        found[split.name] = sorted(
            tf.train.Example.FromString(record).SerializeToString(deterministic=True) for record in read
        )
    assert sum(map(len, found.values())) == ROWS
    return found


def statistics(root: Path) -> dict[str, Any]:
    """Return, by split and feature, counts, means, deviations, extremes and medians."""
    found = {}
    for file in newest(root, "StatisticsGen/statistics").glob("Split-*/FeatureStats.pb"):
        parsed = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes())
        for feature in parsed.datasets[0].features:
            numbers, texts = feature.num_stats, feature.string_stats
            common = (numbers if feature.HasField("num_stats") else texts).common_stats
            found[f"{file.parent.name} {feature.path.step[0]}"] = [
                *(common.num_non_missing, common.num_missing, texts.unique),
                *(numbers.mean, numbers.std_dev, numbers.min, numbers.max, numbers.median),
            ]
    assert len(found) > 20
    return found


def transformed(root: Path, examples: list[bytes]) -> dict[str, Any]:
    """Return what the transformation of a run makes of some Examples."""
    output = tft.TFTransformOutput(str(newest(root, "Transform/transform_graph")))
    raw = tf.io.parse_example(examples, output.raw_feature_spec())
    made = output.transform_features_layer()(raw)
    dense = {n: tf.sparse.to_dense(v) if isinstance(v, tf.SparseTensor) else v for n, v in made.items()}
    return {name: tensor.numpy() for name, tensor in dense.items()}


def test_the_data_nodes_find_the_same(block: dict[str, Any], trips: Path, here: Path, tmp_path: Path) -> None:
    counted = run(tmp_path, trips, block)
    examples = records(here, "CsvExampleGen/examples")
    assert records(tmp_path, "CsvExampleGen/examples") == examples
    assert_same(statistics(tmp_path), statistics(here))
    some = examples["Split-eval"][:500]
    there, expected = transformed(tmp_path, some), transformed(here, some)
    assert there.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(there[name], values, rtol=1e-6, atol=1e-6, err_msg=name)
    outputs = (records(root, "Transform/transformed_examples") for root in (tmp_path, here))
    assert len({str({split: len(found) for split, found in output.items()}) for output in outputs}) == 1
    sizes = {split.removeprefix("Split-"): len(found) for split, found in examples.items()}
    assert counted == sorted(
        [
            f"csv_example_gen, all splits: {ROWS} records went in and came out",
            *(
                f"{node}, split {split}: {size} records went in and came out"
                for node in ("statistics_gen", "transform")
                for split, size in sizes.items()
            ),
        ]
    )
