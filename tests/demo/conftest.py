"""A root with pushed models of every kind of signature, a model server, and a demo of each."""

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.format.features import encode, example_of
from mlplatform.datasets.format.tfrecord import frame
from mlplatform.home import Home
from mlplatform.registry import ModelStore, events
from mlplatform.registry.ledger import Ledger

LABELS = ["blue", "green", "red"]
SIDE = 16
RUN, TRIPS_RUN = "20260101T010203.000-aaa1", "20260102T010203.000-aaa2"
_COLOURS = Path(__file__).parents[1] / "vision" / "colour_photos.py"


@pytest.fixture(scope="session")
def colours() -> ModuleType:
    """The module `colour_photos`."""
    spec = importlib.util.spec_from_file_location("colour_photos", _COLOURS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_examples(folder: Path, splits: dict[str, list[bytes]]) -> Path:
    """Write Examples as TFX does."""
    for split, records in splits.items():
        shard = folder / f"Split-{split}" / "data_tfrecord-00000-of-00001"
        shard.parent.mkdir(parents=True)
        shard.write_bytes(b"".join(map(frame, records)))
    return folder


def trip(number: int) -> bytes:
    """A taxi trip: its fare is 3 and twice its miles, and half of that in cash."""
    miles, payment = 1.0 + number % 7, ["card", "cash"][number % 2]
    fare = (3 + 2 * miles) * (0.5 if payment == "cash" else 1.0)
    features = {
        "miles": encode([miles]),
        "payment": encode([payment.encode()]),
        "hour": encode([number % 24]),
        "fare": encode([fare]),
    }
    return example_of(features)


SCHEMA = """
feature { name: "miles" type: FLOAT presence { min_fraction: 1 } }
feature { name: "payment" type: BYTES domain: "payments" presence { min_fraction: 1 } }
feature { name: "hour" type: INT }
feature { name: "fare" type: FLOAT }
string_domain { name: "payments" value: "card" value: "cash" value: "voucher" }
"""


def save_others(folder: Path) -> None:
    """Write the models that are not this library's image models."""
    import tensorflow as tf

    class Trips(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def examples(self, examples: Any) -> Any:
            spec = {
                "miles": tf.io.FixedLenFeature([], tf.float32),
                "payment": tf.io.FixedLenFeature([], tf.string),
                "hour": tf.io.FixedLenFeature([], tf.int64, default_value=0),
            }
            parsed = tf.io.parse_example(examples, spec)
            whole = 3.0 + 2.0 * parsed["miles"] + 0.1
            return {"predictions": tf.where(parsed["payment"] == "cash", whole / 2, whole)[:, None]}

    class Columns(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 1], tf.float32, name="miles"),
                tf.TensorSpec([None], tf.string, name="payment"),
                tf.TensorSpec([None], tf.bool, name="night"),
            ]
        )
        def columns(self, miles: Any, payment: Any, night: Any) -> Any:
            more = tf.cast(night, tf.float32) + tf.cast(payment == "card", tf.float32)
            return {"probability": tf.sigmoid(miles[:, 0] + more)}

        @tf.function(input_signature=[tf.TensorSpec([None, None, 2], tf.int32, name="pairs")])
        def other(self, pairs: Any) -> Any:
            return {"sums": tf.reduce_sum(pairs, axis=[1, 2]), "pairs": pairs}

    class Pixels(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="images")])
        def pixels(self, images: Any) -> Any:
            return {"probabilities": tf.nn.softmax(tf.reduce_mean(images, axis=[1, 2])[:, ::-1] / 20.0)}

    trips, columns, pixels = Trips(), Columns(), Pixels()
    tf.saved_model.save(trips, str(folder / "trips"), signatures={"serving_default": trips.examples})
    signatures = {"serving_default": columns.columns, "other": columns.other}
    tf.saved_model.save(columns, str(folder / "columns"), signatures=signatures)
    tf.saved_model.save(pixels, str(folder / "pixels"), signatures={"serving_default": pixels.pixels})
    (folder / "pixels" / "assets" / "labels.txt").parent.mkdir(exist_ok=True)
    (folder / "pixels" / "assets" / "labels.txt").write_text("blue\ngreen\nred\n")


def evaluate(model: Path, records: list[bytes], question: Any, folder: Path, splits: list[str]) -> dict:
    """Measure a model as ModelValidator does; return what it writes, as far as a demo reads it."""
    from mlplatform.components.model_validator.records import Records
    from mlplatform.components.model_validator.scoring import quality_json
    from mlplatform.components.model_validator.validate import Terms, measure_quality

    folder.mkdir()
    file = folder / "records"
    file.write_bytes(b"".join(map(frame, records)))
    found = measure_quality(model, Records([str(file)], question), Terms(splits=splits, question=question))
    assert found.measured is not None
    facts = {
        "title": "model",
        "accepted": True,
        "made_at": "2026-01-01T02:00:00+00:00",
        "model": str(model),
        "splits": splits,
        "kind": question.kind,
        "label": question.label,
        "quality": quality_json(found.measured),
        "notes": ["a note of the gate"],
    }
    (folder / "metrics.json").write_text(json.dumps(facts))
    return facts


def finish_node(home: Home, run: str, node: str, **artifacts: Path) -> None:
    """Write that a node of a run gave artifacts, by type."""
    outputs = [{"key": t, "type": t, "uri": str(p), "digest": ""} for t, p in artifacts.items()]
    events.node_finished(Ledger(home.ledger), run, node, state="done", outputs=outputs)


@pytest.fixture(scope="session")
def home(colours: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A root with pushed models; not to be written to."""
    from mlplatform.components.model_validator.settings import Question
    from mlplatform.components.serving_pusher.metrics import evaluated_metrics
    from mlplatform.vision.signatures import export_image_classifier

    work = tmp_path_factory.mktemp("demo")
    home = Home.at(work / "root")
    datasets, models = DatasetStore(home.datasets), ModelStore(home.models)
    network = colours.colour_network(SIDE, LABELS)
    for name, labels in (("new", LABELS), ("old", ["blue", "red", "green"])):
        export_image_classifier(network, labels, SIDE, work / name, samples=colours.examples(1))
    wrong = [colours.example(colours.encode("red", 90 + n), "blue", f"wrong-{n}") for n in range(3)]
    held_out = [*colours.examples(8), *wrong]
    photos = {"train": [colours.example(colours.encode("red", 70), "red", "seen")], "validation": held_out}
    datasets.commit("items", write_examples(work / "items", photos), key=["item_id"], label="label")
    evaluate(work / "new", held_out, Question.of("classification", "label"), work / "e1", ["validation"])
    finish_node(home, RUN, "ModelValidator", ModelEvaluation=work / "e1")
    models.push(work / "old", "colour", why="the first")
    models.promote("colour", "1", why="it serves", label="stable")
    models.push(
        work / "new",
        "colour",
        run=RUN,
        dataset="items@v1",
        why="better",
        metrics=evaluated_metrics(work / "e1"),
    )
    save_others(work)
    trips = {"train": [trip(n) for n in range(50)], "test": [trip(n) for n in range(50, 110)]}
    datasets.commit("trips", write_examples(work / "trip-records", trips))
    question = Question.of("regression", "fare")
    evaluate(work / "trips", trips["test"], question, work / "e2", ["test"])
    (work / "schema").mkdir()
    (work / "schema" / "schema.pbtxt").write_text(SCHEMA)
    finish_node(home, TRIPS_RUN, "DataValidator", Schema=work / "schema", ModelEvaluation=work / "e2")
    models.push(
        work / "trips", "fare", run=TRIPS_RUN, dataset="trips@v1", metrics=evaluated_metrics(work / "e2")
    )
    for name in ("columns", "pixels"):
        models.push(work / name, name)
    return home


@pytest.fixture(scope="session")
def server(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A model server of the root in this process, at a socket and over REST."""
    from mlplatform.serving import ModelServer

    folder = tmp_path_factory.mktemp("s")
    settings = {"port": -1, "rest_api_port": 0, "lame_duck_s": 0.0, "grpc_socket_path": str(folder / "s")}
    with ModelServer(root=home.root, **settings) as server:
        server.address = f"unix:{folder / 's'}"
        yield server


@pytest.fixture(scope="session")
def ask_about(home: Home, server: Any) -> Iterator[Callable[..., Any]]:
    """Return what asks a pushed version, and another one beside it."""
    from mlplatform.demo.asking import Asking
    from mlplatform.demo.facts import read_facts
    from mlplatform.serving.client import Client

    made: dict[tuple[str, str], Asking] = {}
    with Client(server.address) as client:

        def ask_about(reference: str, beside: str = "") -> Asking:
            if (reference, beside) not in made:
                other = read_facts(home, beside) if beside else None
                made[reference, beside] = Asking(client, read_facts(home, reference), other)
            return made[reference, beside]

        yield ask_about
        for asking in made.values():
            asking.close()


@pytest.fixture
def own_home(home: Home, tmp_path: Path) -> Home:
    """A copy of the root, to be written to."""
    return Home.at(shutil.copytree(home.root, tmp_path / "root"))
