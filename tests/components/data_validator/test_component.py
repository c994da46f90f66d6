"""The gate as a TFX component: standard artifacts, a verdict, and a run that stops."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlplatform.errors import GateError, UsageError

Shop = Callable[..., dict[str, list[dict[str, Any]]]]
Execute = Callable[..., Path]


@pytest.fixture
def execute(tmp_path: Path, write_examples: Callable[..., Any]) -> Execute:
    """Run the executor on records; returns the folder of its outputs."""

    def run(splits: Any, **arguments: Any) -> Path:
        from tfx.dsl.components.base import base_beam_executor
        from tfx.types import artifact_utils, channel_utils, standard_artifacts

        from mlplatform.artifacts import DataVerdict
        from mlplatform.components import DataValidator
        from mlplatform.components.data_validator.executor import Executor

        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        write_examples(folder / "examples", splits)
        examples = standard_artifacts.Examples()
        examples.uri = str(folder / "examples")
        examples.split_names = artifact_utils.encode_split_names(list(splits))
        component = DataValidator(examples=channel_utils.as_channel([examples]), **arguments)
        outputs = {
            "statistics": standard_artifacts.ExampleStatistics(),
            "schema": standard_artifacts.Schema(),
            "anomalies": standard_artifacts.ExampleAnomalies(),
            "verdict": DataVerdict(),
        }
        for name, artifact in outputs.items():
            artifact.uri = str(folder / name)
        context = base_beam_executor.BaseBeamExecutor.Context(
            beam_pipeline_args=[], tmp_dir=str(folder / "tmp")
        )
        Executor(context).Do(
            {"examples": [examples]},
            {name: [artifact] for name, artifact in outputs.items()},
            dict(component.exec_properties),
        )
        assert outputs["verdict"].accepted == 1
        return folder

    return run


def test_outputs_are_what_stock_components_read(shop: Shop, execute: Execute) -> None:
    import tensorflow_data_validation as tfdv

    folder = execute(shop())
    statistics = tfdv.load_stats_binary(str(folder / "statistics" / "Split-eval" / "FeatureStats.pb"))
    assert statistics.datasets[0].num_examples == 12
    schema = tfdv.load_schema_text(str(folder / "schema" / "schema.pbtxt"))
    anomalies = tfdv.validate_statistics(statistics, schema)
    assert not anomalies.anomaly_info
    assert (folder / "anomalies" / "Split-train" / "SchemaDiff.pb").exists()
    verdict = json.loads((folder / "verdict" / "verdict.json").read_text())
    assert verdict["accepted"] is True
    assert verdict["records"] == {"train": 30, "eval": 12}
    page = (folder / "verdict" / "report.html").read_text()
    assert "accepted" in page
    assert "shoe" in page
    assert sorted(path.name for path in (folder / "verdict").iterdir()) == ["report.html", "verdict.json"]


def test_blocked_data_stops_the_run_and_leaves_a_report(shop: Shop, execute: Execute, tmp_path: Path) -> None:
    schema = tmp_path / "schema.pbtxt"
    schema.write_text(
        'feature { name: "label" type: BYTES string_domain { name: "label" value: ["hat", "shoe", "bag"] } }'
    )
    data = shop()
    data["eval"][3]["label"] = "<submarine>"
    data["eval"][4]["label"] = "glove"
    with pytest.raises(GateError) as caught:
        execute(data, schema_path=str(schema), reports_dir=str(tmp_path / "reports"))
    text = str(caught.value)
    assert "the data is rejected, 1 problem " in text
    assert "item-33 (<submarine>)" in text
    report = Path(text.rpartition("Report with the records: ")[2])
    assert report.parent.parent == tmp_path / "reports"
    page = report.read_text()
    assert "data:image/jpeg;base64," in page
    assert "&lt;submarine&gt;" in page
    assert "<submarine>" not in page
    assert "http" not in page.replace("http-equiv", ""), "the page needs no network"
    verdict = json.loads((report.parent / "verdict.json").read_text())
    assert verdict["accepted"] is False
    assert verdict["problems"][0]["offenders"][0]["item_id"] == "item-33"


def test_a_schema_that_cannot_be_read_is_one_clear_error(
    shop: Shop, execute: Execute, tmp_path: Path
) -> None:
    (tmp_path / "bad.pbtxt").write_text("feature { nmae: 'label' }")
    with pytest.raises(UsageError, match=r"bad\.pbtxt: it is no schema"):
        execute(shop(), schema_path=str(tmp_path / "bad.pbtxt"))
    with pytest.raises(UsageError, match="No such file"):
        execute(shop(), schema_path=str(tmp_path / "none.pbtxt"))
    with pytest.raises(UsageError, match="no split 'training'"):
        execute(shop(), train_split="training")


PIPELINE = """
import sys
from tfx.components import CsvExampleGen
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from mlplatform.components import DataValidator

data, root = sys.argv[1:]
gen = CsvExampleGen(input_base=data)
first = DataValidator(examples=gen.outputs["examples"]).with_id("first")
second = DataValidator(examples=gen.outputs["examples"], schema=first.outputs["schema"],
    baseline=first.outputs["statistics"], policy={"missing_values": "ignore"}).with_id("second")
LocalDagRunner().run(pipeline.Pipeline("p", root, components=[gen, first, second],
    metadata_connection_config=metadata.sqlite_metadata_connection_config(root + "/m.db")))
"""


@pytest.mark.e2e
def test_a_stock_csv_example_gen_feeds_it_under_the_stock_runner(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lines = [f"{n % 50},{1.5 * (n % 9)},{('cash', 'card')[n % 2]},{'' if n % 10 else 7}" for n in range(300)]
    (tmp_path / "data" / "trips.csv").write_text("miles,fare,payment,tips\n" + "\n".join(lines))
    root = tmp_path / "root"
    done = subprocess.run(
        [sys.executable, "-c", PIPELINE, str(tmp_path / "data"), str(root)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (verdict,) = (root / "second" / "verdict").rglob("verdict.json")
    found = json.loads(verdict.read_text())
    assert found["accepted"] is True
    assert sum(found["records"].values()) == 300
    assert found["problems"] == []
