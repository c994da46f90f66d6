"""Trainer and validator as TFX runs them, and the stock Pusher behind them."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tfx.components import CsvExampleGen
from tfx.components.pusher import executor as stock_pusher
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_executor
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, channel_utils, standard_artifacts
from tfx.utils import proto_utils

from mlplatform.components import DatasetVersioner, ModelTrainer, ModelValidator
from mlplatform.components.model_trainer.component import ModelTrainerSpec
from mlplatform.components.model_trainer.executor import Executor as TrainerExecutor
from mlplatform.components.model_validator.errors import (
    ModelRejectedError,
    NothingToEvaluateError,
    UnsupportedExamplesError,
)
from mlplatform.components.model_validator.executor import Executor as ValidatorExecutor
from mlplatform.config import ConfigError
from mlplatform.registry.events import VERDICT, run_stream
from mlplatform.registry.ledger import Ledger
from mlplatform.tfx_io.examples import SplitNotFoundError
from mlplatform.training.task import TrainingTask
from mlplatform.vision.examples import count_labels, sample_records
from mlplatform.vision.signatures import export_image_classifier


@pytest.fixture(scope="module")
def examples(colours: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> standard_artifacts.Examples:
    artifact = standard_artifacts.Examples()
    artifact.uri = str(tmp_path_factory.mktemp("examples"))
    artifact.split_names = artifact_utils.encode_split_names(["train", "eval"])
    for split in ("train", "eval"):
        colours.write(Path(artifact.uri) / f"Split-{split}" / "data-00000-of-00001.gz", colours.examples(4))
    return artifact


@pytest.fixture
def code(colours: ModuleType, monkeypatch: pytest.MonkeyPatch) -> str:
    """The import path of a model's code: it knows colours, or takes one for another when it is told to."""

    def train(task: TrainingTask) -> None:
        labels = list(count_labels(task.train_files).per_label)
        network = colours.colour_network(16, labels)
        named = labels[::-1] if task.hyperparameters.get("confused") else labels
        export_image_classifier(
            network, named, 16, task.model_dir, samples=sample_records(task.eval_files, 1)
        )
        (task.run_dir / "history.json").write_text("{}")

    module = ModuleType("colour_model")
    module.train = train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "colour_model", module)
    return "colour_model:train"


def outputs(folder: Path, **types: type) -> dict[str, list[Any]]:
    made = {}
    for name, kind in types.items():
        artifact = kind()
        artifact.uri = str(folder / name / "1")
        Path(artifact.uri).mkdir(parents=True)
        made[name] = [artifact]
    return made


def run_trainer(examples: Any, code: str, folder: Path, **changes: Any) -> dict[str, list[Any]]:
    component = ModelTrainer(
        examples=channel_utils.as_channel([examples]), **{"run_fn": code, "eval_splits": ["eval"], **changes}
    )
    out = outputs(folder, model=standard_artifacts.Model, model_run=standard_artifacts.ModelRun)
    TrainerExecutor().Do({"examples": [examples]}, out, dict(component.exec_properties))
    return out


def made_outputs(folder: Path) -> dict[str, list[Any]]:
    return outputs(
        folder,
        blessing=standard_artifacts.ModelBlessing,
        infra_blessing=standard_artifacts.InfraBlessing,
        evaluation=standard_artifacts.ModelEvaluation,
    )


def run_validator(examples: Any, model: Any, folder: Path, **changes: Any) -> dict[str, list[Any]]:
    component = ModelValidator(
        model=channel_utils.as_channel([model]), examples=channel_utils.as_channel([examples]), **changes
    )
    out = made_outputs(folder)
    ValidatorExecutor().Do({"model": [model], "examples": [examples]}, out, dict(component.exec_properties))
    return out


@pytest.mark.slow
def test_a_trained_model_is_blessed_and_the_stock_pusher_takes_it(
    examples: Any, code: str, tmp_path: Path
) -> None:
    trained = run_trainer(examples, code, tmp_path, hyperparameters={"confused": False})
    (model,) = trained["model"]

    assert (Path(model.uri) / "Format-Serving" / "saved_model.pb").is_file()
    assert (Path(trained["model_run"][0].uri) / "history.json").is_file()
    assert list((tmp_path / "unfinished").iterdir()) == []

    judged = run_validator(examples, model, tmp_path, thresholds={"top_1": 1.0})

    (blessing,), (infra,) = judged["blessing"], judged["infra_blessing"]
    assert model_utils.is_model_blessed(blessing)
    assert model_utils.is_infra_validated(infra)
    assert (Path(blessing.uri) / "BLESSED").is_file()
    assert tfma.load_validation_result(judged["evaluation"][0].uri).validation_ok

    pushed = outputs(tmp_path, pushed_model=standard_artifacts.PushedModel)
    destination = pusher_pb2.PushDestination(
        filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(tmp_path / "served"))
    )
    stock_pusher.Executor(base_executor.BaseExecutor.Context(tmp_dir=str(tmp_path), unique_id="1")).Do(
        {"model": [model], "model_blessing": [blessing], "infra_blessing": [infra]},
        pushed,
        {"push_destination": proto_utils.proto_to_json(destination)},
    )
    (version,) = (tmp_path / "served").iterdir()
    assert (version / "saved_model.pb").is_file()


WAIVER = {"by": "ann", "why": "<b>the season</b> changes", "until": "9999-12-31"}


def test_a_rejected_model_gets_no_blessing(examples: Any, code: str, tmp_path: Path) -> None:
    (model,) = run_trainer(examples, code, tmp_path, hyperparameters={"confused": True})["model"]
    # Known only when the pipeline runs: one is over, the other of another threshold.
    waivers = [{**WAIVER, "threshold": "top_1", "until": "0001-01-01"}, {**WAIVER, "threshold": "top_3"}]
    component = ModelValidator(
        model=channel_utils.as_channel([model]),
        examples=channel_utils.as_channel([examples]),
        thresholds={"top_1": 0.9},
        reports_dir=str(tmp_path / "reports"),
        waivers=RuntimeParameter("waivers", str),
    )
    properties = {**component.exec_properties, "waivers": json.dumps(waivers)}
    with pytest.raises(ModelRejectedError, match=r"top-1 is 0\.3333, below 0\.9000"):
        ValidatorExecutor().Do({"model": [model], "examples": [examples]}, made_outputs(tmp_path), properties)

    assert list((tmp_path / "blessing" / "1").iterdir()) == []
    (report,) = (tmp_path / "reports").glob("*/ModelValidator")
    assert {path.name for path in report.iterdir()} == {"verdict.json", "report.html"}


def test_a_waived_threshold_is_let_through_and_everybody_sees_why(
    examples: Any, colours: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPLATFORM_RUN_ID", "run-1")
    network = colours.colour_network(16, ["blue", "green", "red"])
    model = standard_artifacts.Model()
    model.uri = str(tmp_path / "model")
    folder = tmp_path / "model" / "Format-Serving"
    export_image_classifier(network, ["red", "green", "blue"], 16, folder, samples=colours.examples(1))
    waivers = [{**WAIVER, "threshold": "top_1"}, {**WAIVER, "threshold": "top_1", "slice": "shop = a"}]

    reports = str(tmp_path / "root" / "reports")
    judged = run_validator(
        examples, model, tmp_path, waivers=waivers, thresholds={"top_1": 0.9}, reports_dir=reports
    )

    assert model_utils.is_model_blessed(judged["blessing"][0])
    evaluation = Path(judged["evaluation"][0].uri)
    facts = json.loads((evaluation / "metrics.json").read_text())
    assert (facts["accepted"], facts["reasons"]) == (True, [])
    [waived] = facts["waived"]
    assert waived["reason"].startswith("top-1 is 0.3333, below 0.9000")
    assert waived["waiver"]["by"] == "ann"
    assert [each["is_used"] for each in facts["waivers"]] == [True, False]
    page = (evaluation / "report.html").read_text()
    assert "waived by ann until 9999-12-31: &lt;b&gt;the season&lt;/b&gt; changes" in page
    assert "nothing that was found is top_1 in shop = a" in page
    happened = Ledger(str(tmp_path / "root" / "ledger")).events(run_stream("run-1"))
    [verdict] = [event for event in happened if event.kind == VERDICT]
    assert verdict.get("is_accepted") is True
    found = [(each["threshold"], each["slice"], each["is_used"]) for each in verdict.get("waivers")]
    assert found == [("top_1", "", True), ("top_1", "shop = a", False)]


def test_a_split_without_files_is_told(code: str, tmp_path: Path) -> None:
    nothing = standard_artifacts.Examples()
    nothing.uri, nothing.split_names = str(tmp_path / "examples"), artifact_utils.encode_split_names(["eval"])
    (tmp_path / "examples" / "Split-eval").mkdir(parents=True)
    with pytest.raises(NothingToEvaluateError, match="the splits eval hold no records"):
        run_validator(nothing, standard_artifacts.Model(), tmp_path)


def test_wrong_words_are_told(examples: Any, code: str, tmp_path: Path) -> None:
    with pytest.raises(SplitNotFoundError, match="no split 'validation'; they have train, eval"):
        run_trainer(examples, code, tmp_path / "a", eval_splits=["validation"])
    with pytest.raises(ConfigError, match="did you mean 'top_1'"):
        run_validator(examples, standard_artifacts.Model(), tmp_path / "b", thresholds={"top1": 0.5})


def test_the_interface_is_tfx_standard() -> None:
    assert ModelTrainerSpec.OUTPUTS["model"].type is standard_artifacts.Model
    assert ModelTrainerSpec.OUTPUTS["model_run"].type is standard_artifacts.ModelRun


@pytest.mark.parametrize("is_behind_a_versioner", [False, True])
def test_a_split_that_trains_does_not_judge(is_behind_a_versioner: bool, tmp_path: Path) -> None:
    table = judged = CsvExampleGen(str(tmp_path)).outputs["examples"]
    if is_behind_a_versioner:
        versioner = DatasetVersioner(examples=table, dataset="rides", store=str(tmp_path / "datasets"))
        judged = versioner.outputs["examples"]
    trainer = ModelTrainer(examples=table, run_fn="a.model:train", train_splits=["train", "eval"])
    with pytest.raises(ConfigError, match="eval_splits names 'eval', which ModelTrainer trains on"):
        ModelValidator(model=trainer.outputs["model"], examples=judged)
    elsewhere = CsvExampleGen(str(tmp_path)).with_id("Elsewhere").outputs["examples"]
    ModelValidator(model=trainer.outputs["model"], examples=elsewhere)


def test_a_record_without_the_label_is_refused(colours: ModuleType, tmp_path: Path) -> None:
    row = tf.train.Example()
    row.features.feature["fare"].float_list.value.append(12.5)
    colours.write(tmp_path / "examples" / "Split-eval" / "data-00000-of-00001.gz", [row.SerializeToString()])
    table = standard_artifacts.Examples()
    table.uri, table.split_names = str(tmp_path / "examples"), artifact_utils.encode_split_names(["eval"])
    with pytest.raises(UnsupportedExamplesError, match=r"it has 'fare' \(float\)"):
        run_validator(table, standard_artifacts.Model(), tmp_path)
