"""Waivers: a problem that blocks is let through until a day, and everybody can see who decided so."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mlplatform.components import DataValidator
from mlplatform.components.data_validator.executor import Executor
from mlplatform.components.data_validator.policy import Policy
from mlplatform.config import ConfigError, parse_config
from mlplatform.registry.events import VERDICT, run_stream
from mlplatform.registry.ledger import Ledger

EVER, NEVER = "9999-12-31", "0001-01-01"
LEAK = {"kind": "leak", "feature": "item_id", "by": "ann", "why": "one item was photographed twice"}


def policy(*waivers: dict[str, Any]) -> Policy:
    return parse_config(Policy, {"waivers": list(waivers)}, source="policy")


def test_a_waiver_counts_through_its_last_day_and_no_longer() -> None:
    given = policy({**LEAK, "until": "2026-03-31"}, {**LEAK, "feature": "sku", "until": date(2026, 4, 1)})
    assert len(given.on(date(2026, 3, 31)).waivers) == 2
    assert [each.feature for each in given.on(date(2026, 4, 1)).waivers] == ["sku"]
    assert given.on(date(2026, 4, 2)).waivers == []


def test_a_waiver_is_about_the_problem_that_it_names_alone() -> None:
    found = policy({**LEAK, "until": EVER}, {**LEAK, "kind": "shape", "split": "eval", "until": EVER})
    assert found.waiver("leak", "item_id", "train, eval") is not None
    assert found.waiver("shape", "item_id", "eval") is not None
    for problem in (("leak", "image/encoded", "eval"), ("leak", "", "eval"), ("shape", "item_id", "train")):
        assert found.waiver(*problem) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "leek"}, "waivers.0.kind"),
        ({"why": ""}, "waivers.0.why"),
        ({"by": "a\nb"}, "waivers.0.by"),
        ({"until": "tomorrow"}, "waivers.0.until"),
        ({"til": EVER}, "til"),
    ],
)
def test_a_wrong_waiver_is_one_clear_error(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        policy({**LEAK, "until": EVER, **given})


def test_one_that_is_over_is_no_part_of_the_declaration(tmp_path: Path) -> None:
    from tfx.types import channel_utils, standard_artifacts

    examples = channel_utils.as_channel([standard_artifacts.Examples()])
    waivers = [{**LEAK, "until": NEVER}, {**LEAK, "feature": "sku", "until": EVER}]
    component = DataValidator(examples=examples, policy={"waivers": waivers})
    declared = json.loads(component.exec_properties["policy"])
    assert [each["feature"] for each in declared["waivers"]] == ["sku"]


def test_a_waived_problem_is_let_through_and_everybody_sees_why(
    shop: Any, write_examples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import artifact_utils, standard_artifacts

    from mlplatform.artifacts import DataVerdict

    monkeypatch.setenv("MLPLATFORM_RUN_ID", "run-1")
    data = shop()
    data["eval"][0]["item_id"] = data["train"][0]["item_id"]
    write_examples(tmp_path / "examples", data)
    examples = standard_artifacts.Examples()
    examples.uri = str(tmp_path / "examples")
    examples.split_names = artifact_utils.encode_split_names(list(data))
    kinds = {
        "statistics": standard_artifacts.ExampleStatistics,
        "schema": standard_artifacts.Schema,
        "anomalies": standard_artifacts.ExampleAnomalies,
        "verdict": DataVerdict,
    }
    outputs = {name: [kind()] for name, kind in kinds.items()}
    for name, (artifact,) in outputs.items():
        artifact.uri = str(tmp_path / name)
    given = policy(
        {**LEAK, "until": EVER}, {**LEAK, "kind": "shape", "until": EVER}, {**LEAK, "until": NEVER}
    )
    settings = {
        "policy": given.model_dump_json(), "train_split": "train", "drift_threshold": 0.1,
        "serving_features": "null", "image_feature": "image/encoded", "label_feature": "label",
        "id_feature": "item_id", "reports_dir": str(tmp_path / "root" / "reports"),
    }  # fmt: skip
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=[], tmp_dir=str(tmp_path / "tmp")
    )
    Executor(context).Do({"examples": [examples]}, outputs, settings)
    assert outputs["verdict"][0].accepted == 1
    verdict = json.loads((tmp_path / "verdict" / "verdict.json").read_text())
    [problem] = [each for each in verdict["problems"] if each["kind"] == "leak"]
    assert (problem["action"], problem["waiver"]["by"]) == ("warn", "ann")
    page = (tmp_path / "verdict" / "report.html").read_text()
    assert f"waived by ann until {EVER}: one item was photographed twice" in page
    [event] = [
        e for e in Ledger(str(tmp_path / "root" / "ledger")).events(run_stream("run-1")) if e.kind == VERDICT
    ]
    assert event.get("is_accepted") is True
    assert [(each["kind"], each["is_used"]) for each in event.get("waivers")] == [
        ("leak", True),
        ("shape", False),
    ]
