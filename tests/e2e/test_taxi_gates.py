"""Taxi trips from CSV to a served answer: a classification by the stock runner, a regression by ours."""

import base64
import csv
import importlib.util
import json
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tfx import v1 as tfx

from mlplatform.orchestration.local import LocalRunner
from mlplatform.serving import ModelServer

TAXI = Path(__file__).parents[2] / "examples/taxi/gated"
TRIPS = 300
COLUMNS = (
    *("trip_miles", "trip_seconds", "fare", "tips", "payment_type", "company"),
    *("pickup_latitude", "pickup_longitude", "dropoff_latitude", "dropoff_longitude"),
    *("trip_start_hour", "trip_start_day", "trip_start_month"),
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.usefixtures("beam_of_nodes")]


@pytest.fixture(scope="module")
def trips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trips whose tip depends on how they are paid, their fare on miles; at times a column is empty."""
    folder, random = tmp_path_factory.mktemp("trips"), np.random.default_rng(0)
    with (folder / "data.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for number in range(TRIPS):
            miles, by_card = random.uniform(0.5, 12), random.random() < 0.5
            fare = 3 + 2.5 * miles + random.normal(0, 0.5)
            rows.writerow(
                [
                    *(round(miles, 2), int(miles * 200), round(fare, 2)),
                    *(round(fare * (0.3 if by_card else 0.0), 2), "Card" if by_card else "Cash"),
                    f"company {number % 3}",
                    *(round(random.uniform(41.7, 42.0), 3) if number % 20 else "" for _ in range(4)),
                    *(number % 24, 1 + number % 7, 1 + number % 12),
                ]
            )
    return folder


@pytest.fixture
def taxi(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example's module; its folder is where the nodes import from."""
    monkeypatch.syspath_prepend(str(TAXI))
    spec = importlib.util.spec_from_file_location("taxi_gates", TAXI / "pipeline.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def asked(models: Path, name: str) -> Any:
    """Ask the pushed model about one trip, over REST."""
    with ModelServer(model_base_path=str(models / name), model_name=name, rest_api_port=0) as server:
        trip = {
            "trip_miles": 10.0,
            "trip_seconds": 2000,
            "fare": 28.0,
            "payment_type": "Card",
            "company": "company 1",
            "trip_start_hour": 8,
            "trip_start_day": 2,
            "trip_start_month": 3,
        }
        if name == "taxi_fare":
            del trip["fare"]
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.rest_port}/v1/models/{name}:predict",
            json.dumps({"instances": [{"b64": _example(trip)}]}).encode(),
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["predictions"][0]


def _example(trip: dict[str, Any]) -> str:
    example = tf.train.Example()
    for name, value in trip.items():
        feature = example.features.feature[name]
        if isinstance(value, str):
            feature.bytes_list.value.append(value.encode())
        elif isinstance(value, float):
            feature.float_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    return base64.b64encode(example.SerializeToString()).decode()


def test_trips_become_a_served_classification(trips: Path, taxi: ModuleType, tmp_path: Path) -> None:
    tfx.orchestration.LocalDagRunner().run(taxi.big_tipper(str(trips), tmp_path, epochs=20, min_auc=0.7))

    (file,) = tmp_path.glob("reports/*/ModelValidator/verdict.json")
    verdict = json.loads(file.read_text())
    assert (verdict["kind"], verdict["accepted"], verdict["quality"]["auc"]["value"] > 0.7) == (
        "classification",
        True,
        True,
    )
    assert {part["slice"] for part in verdict["slices"]} == {"payment_type = Card", "payment_type = Cash"}
    no, yes = asked(tmp_path / "models", "taxi_big_tipper")
    assert no + yes == pytest.approx(1)
    assert yes > no


def test_trips_become_a_served_regression(
    trips: Path, taxi: ModuleType, runner: LocalRunner, tmp_path: Path
) -> None:
    runner.run(taxi.fare(str(trips), tmp_path, epochs=60, max_rmse=8.0))

    (file,) = tmp_path.glob("reports/*/ModelValidator/verdict.json")
    verdict = json.loads(file.read_text())
    assert (verdict["kind"], verdict["accepted"]) == ("regression", True)
    assert verdict["quality"]["rmse"]["value"] < 8
    (dollars,) = asked(tmp_path / "models", "taxi_fare")
    assert 10 < dollars < 45
