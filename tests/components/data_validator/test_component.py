"""The gate as a TFX component: standard artifacts, a verdict, and a run that stops."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlplatform.errors import GateError, UsageError

Shop = Callable[..., dict[str, list[dict[str, Any]]]]
Execute = Callable[..., Path]


@pytest.fixture
def execute(tmp_path: Path, write_examples: Callable[..., Any]) -> Execute:
    """Run the executor on records; returns the folder of its outputs, which may lie below `root` instead."""

    def run(splits: Any, version: Any = None, root: str = "", inputs: Any = None, **arguments: Any) -> Path:
        from tfx.dsl.components.base import base_beam_executor
        from tfx.types import artifact_utils, channel_utils, standard_artifacts

        from mlplatform.artifacts import DatasetVersion, DataVerdict
        from mlplatform.components import DataValidator
        from mlplatform.components.data_validator.executor import Executor

        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        write_examples(folder / "examples", splits)
        examples = standard_artifacts.Examples()
        examples.uri = str(folder / "examples")
        examples.split_names = artifact_utils.encode_split_names(list(splits))
        inputs = {"examples": [examples], **(inputs or {})}
        if version is not None:
            dataset = DatasetVersion()
            dataset.uri = str(version(folder / "examples"))
            inputs["dataset"] = [dataset]
        channels = {name: channel_utils.as_channel(found) for name, found in inputs.items()}
        component = DataValidator(**channels, **arguments)
        if "schema" in inputs:  # as the launcher gives it
            inputs["curated_schema"] = inputs.pop("schema")
        outputs = {
            "statistics": standard_artifacts.ExampleStatistics(),
            "schema": standard_artifacts.Schema(),
            "anomalies": standard_artifacts.ExampleAnomalies(),
            "verdict": DataVerdict(),
        }
        for name, artifact in outputs.items():
            artifact.uri = f"{root}/{name}" if root else str(folder / name)
        context = base_beam_executor.BaseBeamExecutor.Context(
            beam_pipeline_args=[], tmp_dir=str(folder / "tmp")
        )
        Executor(context).Do(
            inputs,
            {name: [artifact] for name, artifact in outputs.items()},
            dict(component.exec_properties),
        )
        assert outputs["verdict"].accepted == 1
        return folder

    return run


@pytest.fixture
def commit(tmp_path: Path) -> Callable[[Path], Path]:
    """Commit a folder of Examples as `items`; returns the folder of its DatasetVersion."""

    def run(examples: Path) -> Path:
        from mlplatform.datasets import DatasetStore
        from mlplatform.tfx_io.dataset_version import write_version

        store = DatasetStore(tmp_path / "store")
        committed = store.commit("items", examples, key=["item_id"], label="label")
        write_version(str(examples.parent / "dataset"), store, committed.manifest)
        return examples.parent / "dataset"

    return run


def verdict_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "verdict.json").read_text())
    return found


@pytest.mark.slow
def test_the_last_accepted_version_is_the_baseline_and_verdicts_are_noted_with_their_versions(
    shop: Shop, execute: Execute, commit: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlplatform.datasets import DatasetStore

    reports = {"reports_dir": str(tmp_path / "reports")}
    first = execute(shop(), version=commit, **reports)
    assert verdict_of(first / "verdict")["baseline"] is None
    expensive = shop(price=90.0)
    told = execute(expensive, version=commit, **reports)
    verdict = verdict_of(told / "verdict")
    assert verdict["baseline"] == "items@v1"
    assert [(p["kind"], p["feature"]) for p in verdict["problems"]] == [("drift", "price")]
    assert "accepted, with 1 warning (drift of price): " in capsys.readouterr().err
    assert "items@v1 (drift)" in (told / "verdict" / "report.html").read_text()

    shop_again = shop(color="red")
    with pytest.raises(GateError, match="drift: price in train"):
        execute(shop_again, version=commit, policy={"drift": "block"}, **reports)
    uses = DatasetStore(tmp_path / "store").uses("items")
    assert [(use.version, use.kind, use.name) for use in uses] == [
        ("v1", "data_gate", "accepted"),
        ("v2", "data_gate", "accepted"),
        ("v3", "data_gate", "rejected"),
    ]
    assert uses[0].detail == str(first / "statistics")
    assert Path(uses[2].detail).is_file()

    # What was refused is no baseline, and statistics that are gone are made again from the version.
    shutil.rmtree(told / "statistics")
    data = shop(price=90.0)
    data["train"][0]["price"] = 91.0  # one of thirty
    later = execute(data, version=commit, **reports)
    verdict = verdict_of(later / "verdict")
    assert (verdict["baseline"], verdict["problems"]) == ("items@v2", [])


def test_a_dark_month_is_drift(shop: Shop, execute: Execute, commit: Any, photo: Any) -> None:
    execute(shop(), version=commit)
    dark = shop()
    for number, record in enumerate(dark["train"]):
        record["image/encoded"] = photo(1000 + number, brightness=0.3)
    verdict = verdict_of(execute(dark, version=commit) / "verdict")
    assert {(p["kind"], p["feature"]) for p in verdict["problems"]} == {
        ("drift", "image/encoded:brightness"),
        ("drift", "image/encoded:contrast"),
    }


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ({"drift_threshold": 1.5}, "drift_threshold is 1.5"),
        ({"train_split": ""}, "train_split is ''"),
        ({"policy": {"drfit": "block"}}, "did you mean 'drift'"),
    ],
)
def test_a_wrong_setting_is_told_when_the_pipeline_is_made(argument: dict[str, Any], says: str) -> None:
    from tfx.types import channel_utils, standard_artifacts

    from mlplatform.components import DataValidator

    with pytest.raises(UsageError, match=says):
        DataValidator(examples=channel_utils.as_channel([standard_artifacts.Examples()]), **argument)


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


def test_artifacts_can_lie_on_another_file_system(shop: Shop, execute: Execute, commit: Any) -> None:
    from tfx.dsl.io import fileio
    from tfx.types import standard_artifacts

    execute(shop(), version=commit, root="memory://first")
    assert json.loads(fileio.open("memory://first/verdict/verdict.json").read())["accepted"] is True
    assert "accepted" in fileio.open("memory://first/verdict/report.html").read()
    assert sorted(fileio.listdir("memory://first/verdict")) == ["report.html", "verdict.json"]

    schema = standard_artifacts.Schema()
    schema.uri = "memory://first/schema"
    fileio.rmtree("memory://first/statistics")  # so that they are made again
    execute(shop(price=90.0), version=commit, root="memory://second", inputs={"schema": [schema]})
    verdict = json.loads(fileio.open("memory://second/verdict/verdict.json").read())
    assert verdict["baseline"] == "items@v1"
    assert [(p["kind"], p["feature"]) for p in verdict["problems"]] == [("drift", "price")]
    assert not list(Path.cwd().glob("memory:*"))


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
    assert report.parents[2] == tmp_path / "reports"
    page = report.read_text()
    assert "data:image/jpeg;base64," in page
    assert "&lt;submarine&gt;" in page
    assert "<submarine>" not in page
    assert "http" not in page.replace("http-equiv", ""), "the page needs no network"
    verdict = json.loads((report.parent / "verdict.json").read_text())
    assert verdict["accepted"] is False
    index = (tmp_path / "reports" / "index.html").read_text()
    assert f'href="{report.relative_to(tmp_path / "reports")}"' in index

    # In a notebook the outputs of the failed component are gone: the error holds them, also after a process.
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == text
    shown = error._repr_html_()
    assert "<b>Data rejected</b>" in shown
    assert "item-33" in shown
    assert "data:image/jpeg;base64," in shown
    assert "&lt;submarine&gt;" in shown
    assert "<submarine>" not in shown
    assert verdict["problems"][0]["offenders"][0]["item_id"] == "item-33"


def test_a_schema_that_cannot_be_read_is_one_clear_error(
    shop: Shop, execute: Execute, tmp_path: Path
) -> None:
    (tmp_path / "bad.pbtxt").write_text("feature { nmae: 'label' }")
    with pytest.raises(UsageError, match=r"bad\.pbtxt: it is not a schema"):
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
@pytest.mark.slow
def test_a_stock_csv_example_gen_feeds_it_under_the_stock_runner(
    warm_python: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    lines = [f"{n % 50},{1.5 * (n % 9)},{('cash', 'card')[n % 2]},{'' if n % 10 else 7}" for n in range(300)]
    (tmp_path / "data" / "trips.csv").write_text("miles,fare,payment,tips\n" + "\n".join(lines))
    root = tmp_path / "root"
    done = warm_python("-c", PIPELINE, tmp_path / "data", root)
    assert done.code == 0, done.err[-3000:]
    (verdict,) = (root / "second" / "verdict").rglob("verdict.json")
    found = json.loads(verdict.read_text())
    assert found["accepted"] is True
    assert sum(found["records"].values()) == 300
    assert found["problems"] == []


def test_statistics_of_fewer_records_than_the_version_has_are_an_error() -> None:
    from tfx.types.standard_artifacts import Examples

    from mlplatform.beam.accounting import RecordsLostError
    from mlplatform.components.data_validator import executor
    from mlplatform.components.data_validator.baseline import Version

    examples, version = Examples(), Version("/store", "items", "v3", {"train": 6, "eval": 2})
    found: Any = SimpleNamespace(verdict=SimpleNamespace(records={"train": 6, "eval": 1}))
    executor._check_records(found, {"examples": [examples]}, version)  # other data than the version's
    examples.set_string_custom_property("dataset_version", version.name)
    with pytest.raises(RecordsLostError, match=r"split eval of items@v3.*2.*1"):
        executor._check_records(found, {"examples": [examples]}, version)
    found.verdict.records["eval"] = 2
    executor._check_records(found, {"examples": [examples]}, version)
