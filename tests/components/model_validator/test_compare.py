"""Two models on the same records: what changes, counted, listed, and shown."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import tensorflow as tf
from click.testing import CliRunner
from tensorflow_serving.apis import predict_pb2

from mlplatform.cli.models import models as command
from mlplatform.components.model_validator.compare import (
    NEITHER,
    ONLY_A,
    ONLY_B,
    compare_models,
    examples_of,
    write_comparison,
)
from mlplatform.components.model_validator.compare_requests import compare_on_requests
from mlplatform.components.model_validator.errors import NotComparableError, NothingToEvaluateError
from mlplatform.components.model_validator.settings import Question
from mlplatform.datasets import DatasetStore
from mlplatform.serving.request_log import RequestLog
from mlplatform.taxonomy import Taxonomy


def test_counts_are_those_of_the_records_one_by_one(models: Path, photos: str, tmp_path: Path) -> None:
    """`old` takes red for green and green for red; four of the blue photos show red."""
    found = compare_models(("old", models / "old"), ("new", models / "new"), [photos], Question())
    assert (found.records, found.same, found.changed) == (28, 8, 20)
    assert (found.only_a_right, found.only_b_right) == (0, 16)
    assert found.by_class == {
        "blue": {"a": 8, "b": 8, "records": 12},
        "green": {"a": 0, "b": 8, "records": 8},
        "red": {"a": 0, "b": 8, "records": 8},
    }
    assert {what: len(some) for what, some in found.changes.items()} == {ONLY_B: 16, NEITHER: 4}
    assert ONLY_A not in found.changes
    assert {(c.truth, c.answer_a, c.answer_b) for c in found.changes[NEITHER]} == {("blue", "green", "red")}
    old, new = found.figures["top_1"]
    assert old is not None
    assert new is not None
    assert (old.value, new.value) == (pytest.approx(8 / 28), pytest.approx(24 / 28))

    page = write_comparison(tmp_path / "compare.html", found, ("old", "new"), [photos]).read_text()
    assert page.count("data:image/jpeg;base64,") == 20
    assert "wrongly-labelled-3" in page


def test_classes_that_were_renamed_are_the_same(models: Path, photos: str) -> None:
    taxonomy = Taxonomy.parse("merges: {red: [green]}", "taxonomy.yaml")
    question = Question.of(taxonomy=taxonomy)
    found = compare_models(("old", models / "old"), ("new", models / "new"), [photos], question)
    assert (found.changed, found.only_a_right, found.only_b_right) == (0, 0, 0)
    assert found.by_class["red"] == {"a": 16, "b": 16, "records": 16}


def test_a_model_of_another_kind_is_named(models: Path, photos: str) -> None:
    question = Question.of("embedding")
    with pytest.raises(NotComparableError, match="model old cannot be compared"):
        compare_models(("old", models / "old"), ("new", models / "new"), [photos], question)


@pytest.fixture
def root(models: Path, colours: ModuleType, tmp_path: Path) -> Path:
    """A root with both models pushed, and a dataset version."""
    from mlplatform.registry import ModelStore

    root = tmp_path / "home"
    for name in ("old", "new"):
        ModelStore(root / "models").push(models / name, "colours")
    for split, count in (("train", 3), ("eval", 2)):
        folder = tmp_path / "examples" / f"Split-{split}"
        folder.mkdir(parents=True)
        colours.write(folder / "data_tfrecord-00000-of-00001.gz", colours.examples(count))
    DatasetStore(root / "datasets").commit("items", tmp_path / "examples")
    return root


def test_the_command_takes_versions_and_prints_json(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    arguments = ["compare", "colours@1", "colours@latest", "--examples", "items@v1", "--html", str(page)]
    done = CliRunner().invoke(command, [*arguments, "--json", "--root", str(root)], catch_exceptions=False)
    facts = json.loads(done.stdout)
    assert facts.keys() >= {"records", "same", "changed", "only_a_right", "only_b_right", "by_class"}
    assert (facts["records"], facts["changed"], facts["only_b_right"]) == (6, 4, 4)
    assert facts["by_class"]["red"] == {"a": 0, "b": 2, "records": 2}
    assert page.is_file()
    shown = CliRunner().invoke(command, [*arguments, "--root", str(root)], catch_exceptions=False).output
    assert "red: 0 -> 2 of 2 right (+2)" in shown


def test_splits_that_are_trained_on_are_left_out(root: Path, tmp_path: Path) -> None:
    store = DatasetStore(root / "datasets")
    for place in ("items@v1", str(tmp_path / "examples")):
        with examples_of(place, store) as (files, _):
            assert {Path(file).parent.name for file in files} == {"Split-eval"}
        with examples_of(place, store, ["train"]) as (files, _):
            assert {Path(file).parent.name for file in files} == {"Split-train"}
    with pytest.raises(NothingToEvaluateError, match="test"), examples_of("items@v1", store, ["test"]):
        pass


@pytest.fixture
def request_log(colours: ModuleType, tmp_path: Path) -> Path:
    """What a server logged: two requests with Examples, one with photos, one with pixels."""
    log = RequestLog(tmp_path / "log", sampling_rate=1.0, max_bytes=1 << 20)
    photos = [colours.encode(colour, 200 + n) for n, colour in enumerate(("red", "blue", "red"))]
    for inputs in (
        {"examples": [colours.example(photos[0], "red", "a"), colours.example(photos[1], "blue", "b")]},
        {"image_bytes": photos},
        {"images": [[[[0.5] * 3] * 20] * 20] * 2},
    ):
        request = predict_pb2.PredictRequest()
        for name, values in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
        log.write("predict_log", "colours", request, predict_pb2.PredictResponse())
    log.close()
    return tmp_path / "log" / "colours"


def test_decisions_that_change_on_logged_requests(root: Path, request_log: Path, tmp_path: Path) -> None:
    page = tmp_path / "changes.html"
    arguments = ["compare", "colours@1", "colours@2", "--requests", str(request_log), "--root", str(root)]
    done = CliRunner().invoke(command, [*arguments, "--json", "--html", str(page)], catch_exceptions=False)
    facts = json.loads(done.stdout)
    assert (facts["records"], facts["same"], facts["changed"]) == (5, 2, 3)
    assert facts["moves"] == [{"a": "green", "b": "red", "records": 3}]
    assert (facts["damaged"], facts["unread"]) == ([], ["images"])
    assert page.read_text().count("data:image/jpeg;base64,") == 3
    shown = CliRunner().invoke(command, arguments, catch_exceptions=False).output
    assert "green -> red: 3" in shown


def test_a_log_file_that_is_cut_off_is_read_up_to_there(models: Path, request_log: Path) -> None:
    [file] = request_log.iterdir()
    file.write_bytes(file.read_bytes()[:-10])
    ones, others = ("old", models / "old"), ("new", models / "new")
    found = compare_on_requests(ones, others, str(request_log), Question())
    assert (found.records, found.damaged) == (5, [str(file)])
    with pytest.raises(NotComparableError, match="model old cannot be compared"):
        compare_on_requests(ones, others, str(request_log), Question.of("embedding"))


@pytest.mark.parametrize("given", [[], ["--examples", "items@v1", "--requests", "log"]])
def test_records_are_either_examples_or_requests(given: list[str]) -> None:
    done = CliRunner().invoke(command, ["compare", "a@1", "b@1", *given])
    assert done.exit_code == 2
    assert "either --examples or --requests" in done.output
