"""item_color: its configuration, how the listing is read, and how answers are judged."""

from pathlib import Path

import numpy as np
import pytest

from mlplatform.components.image_example_gen.photo_folder import NoPhotosError, find_photos
from mlplatform.config_file import ConfigError, read_yaml
from mlplatform.evaluation.find import find_kind
from mlplatform.orchestration.kubeflow.options import KubernetesOptions
from mlplatform.pipelines.item_color.config import DEFAULTS, load_config
from mlplatform.pipelines.item_color.pipeline import KIND, _split_by, create_pipeline
from mlplatform.training.color_classifier_settings import ColorSettings


def test_config_yaml_holds_every_key_with_the_value_that_holds_without_it() -> None:
    values = read_yaml(DEFAULTS)
    settings = load_config({})
    assert settings.kubernetes == KubernetesOptions()
    assert settings.model_dump(by_alias=True, exclude={"kubernetes"}) | {"kubernetes": {}} == values
    assert ColorSettings().model_dump() == values["model"]


def test_every_key_of_config_yaml_is_explained() -> None:
    previous = ""
    for line in DEFAULTS.read_text("utf-8").splitlines():
        if line.strip() and not line.strip().startswith("#"):
            assert previous.strip().startswith("#"), line
        previous = line


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"modle": {}}, "unknown key 'modle'; did you mean 'model'?"),
        ({"model": {"colors": ["red"]}}, "model.colors"),
        ({"thresholds": {"top_7": 0.5}}, "unknown key 'top_7'"),
        ({"thresholds": {"lenient_top_1": 1.5}}, "lenient_top_1 is 1.5"),
        ({"budget": {"p99_latency": 5}}, "did you mean 'p99_latency_ms'?"),
        ({"policy": {"leek": "block"}}, "unknown key 'leek'; did you mean 'leak'?"),
    ],
)
def test_a_wrong_key_or_value_is_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(changes)
    assert says in str(caught.value)


def test_a_folder_without_a_listing_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "hat").mkdir()
    with pytest.raises(NoPhotosError, match="listing"):
        create_pipeline(tmp_path, tmp_path / "home")


@pytest.mark.parametrize(
    ("header", "changes", "column"),
    [
        ("path,color,seller", {}, "seller"),
        ("path,color,seller_id", {}, "seller_id"),
        ("path,color,also", {}, "item_id"),
        ("path,color,seller", {"split_by": "also"}, "also"),
    ],
)
def test_photos_are_split_by_seller_where_the_listing_names_them(
    header: str, changes: dict[str, object], column: str, tmp_path: Path
) -> None:
    (tmp_path / "listing.csv").write_text(f"{header}\na.jpg,red,x\n", "utf-8")
    settings = load_config(changes)
    assert _split_by(find_photos(tmp_path, "listing.csv", settings.splits), settings) == column


def test_the_servers_environment_reaches_the_gate(tmp_path: Path) -> None:
    (tmp_path / "listing.csv").write_text("path,color\na.jpg,red\n", "utf-8")
    made = create_pipeline(tmp_path, tmp_path / "home", serving_environment="/opt/server")
    (gate,) = (node for node in made.components if node.id == "ModelValidator")
    assert gate.exec_properties["serving_environment"] == "/opt/server"


NAMES = ["red", "pink", "blue"]


def answers(*rows: tuple[float, ...], rules: list[bytes] | None = None) -> dict[str, np.ndarray]:
    found = {"probabilities": np.array(rows, np.float32)}
    return found if rules is None else {**found, "rules": np.array(rules, object)}


def test_the_kind_knows_acceptable_answers_and_the_rules() -> None:
    tally = find_kind(KIND).tally(NAMES)
    rows = [(0.7, 0.2, 0.1), (0.2, 0.7, 0.1), (0.6, 0.3, 0.1), (0.1, 0.3, 0.6)]
    truths = [[b"red"], [b"red", b"pink"], [b"blue"], [b"navy"]]
    scored = tally.add(answers(*rows, rules=[b"red", b"red", b"red", b"black"]), truths)
    figures = tally.figures()
    assert scored.error.tolist() == [0, 1, 1, 0]
    assert figures["top_1"].value == 0.5
    assert figures["lenient_top_1"].value == 0.75
    assert figures["top_2"].value == 0.75
    assert figures["gain_over_rules"].value == 0.0
    assert figures["coverage"].value == 0.5  # the third most confident answer is wrong
    assert tally.sections()
    assert tally.details()["covered_records"] == 2


def test_coverage_is_of_all_photos_where_all_answers_are_acceptable_and_of_none_where_none_is() -> None:
    kind = find_kind(KIND)
    good, bad = kind.tally(NAMES), kind.tally(NAMES)
    for _ in range(3):
        good.add(answers((0.7, 0.2, 0.1), (0.2, 0.7, 0.1)), [[b"red"], [b"red", b"pink"]])
        bad.add(answers((0.7, 0.2, 0.1), (0.2, 0.7, 0.1)), [[b"blue"], [b"blue"]])
    assert (good.figures()["coverage"].value, bad.figures()["coverage"].value) == (1.0, 0.0)
    assert "gain_over_rules" not in good.figures()
    assert bad.sections()


def test_answers_that_are_not_finite_count_for_no_figure() -> None:
    tally = find_kind(KIND).tally(NAMES)
    tally.add(answers((np.nan, 0.5, 0.5), (0.8, 0.1, 0.1)), [[b"red"], [b"red"]])
    assert tally.figures()["lenient_top_1"].value == 1.0
