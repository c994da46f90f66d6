"""Taxi trips from CSV to a served answer, with mlplatform's gates: a classification and a regression."""

import os
from pathlib import Path

from tfx import v1 as tfx

from mlplatform.components import (
    DatasetVersioner,
    DataValidator,
    ModelTrainer,
    ModelValidator,
    ServingPusher,
)

HERE = Path(__file__).parent


def big_tipper(data, root, epochs=5, min_auc=0.8):
    """Compose the pipeline of the model that says whether a trip ends with a big tip.

    Args:
        data: Folder with CSV files of trips.
        root: Folder for everything that the pipeline keeps.
        epochs: Passes over the trips.
        min_auc: Lowest area under the ROC curve of a model that is pushed.
    """
    gate = {"kind": "classification", "thresholds": {"auc": min_auc}, "slices": [["payment_type"]]}
    return _compose("big_tipper", data, root, epochs, gate)


def fare(data, root, epochs=5, max_rmse=6.0):
    """Compose the pipeline of the model that says what a trip costs, in dollars.

    Args:
        data: Folder with CSV files of trips.
        root: Folder for everything that the pipeline keeps.
        epochs: Passes over the trips.
        max_rmse: Highest root mean squared error of a model that is pushed, in dollars.
    """
    gate = {"kind": "regression", "thresholds": {"rmse": max_rmse}, "slices": [["trip_start_day"]]}
    return _compose("fare", data, root, epochs, gate)


create_pipeline = big_tipper


def _compose(label, data, root, epochs, gate):
    root = Path(root).absolute()
    name = f"taxi_{label}"
    ingest = tfx.components.CsvExampleGen(input_base=os.path.abspath(data))  # noqa: PTH100 - may be a URL
    version = DatasetVersioner(
        examples=ingest.outputs["examples"], dataset="trips", store=str(root / "datasets"), label=None
    )
    data_gate = DataValidator(
        examples=version.outputs["examples"],
        dataset=version.outputs["dataset"],
        label_feature=label,
        # Columns of real trips are often empty; what is missing is 0 to the model.
        policy={"missing_column": "warn"},
        reports_dir=str(root / "reports"),
    )
    transform = tfx.components.Transform(
        examples=version.outputs["examples"],
        schema=data_gate.outputs["schema"],
        module_file=str(HERE / "trip_features.py"),
        custom_config={"label": label},
    )
    trainer = ModelTrainer(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        dataset=version.outputs["dataset"],
        run_fn="trip_model:train",
        hyperparameters={"label": label, "epochs": epochs},
        work_dir=str(root / "cache" / "training"),
    )
    model_gate = ModelValidator(
        model=trainer.outputs["model"],
        examples=version.outputs["examples"],  # raw trips, as servers are asked
        transform_graph=transform.outputs["transform_graph"],  # which makes `big_tipper` of fare and tips
        label=label,
        models_dir=str(root / "models"),
        model_name=name,
        reports_dir=str(root / "reports"),
        **gate,
    )
    pusher = ServingPusher(
        model=trainer.outputs["model"],
        blessing=model_gate.outputs["blessing"],
        infra_blessing=model_gate.outputs["infra_blessing"],
        evaluation=model_gate.outputs["evaluation"],
        dataset=version.outputs["dataset"],
        models_dir=str(root / "models"),
        model_name=name,
    )
    return tfx.dsl.Pipeline(
        pipeline_name=name,
        pipeline_root=str(root / "pipelines" / name),
        components=[ingest, version, data_gate, transform, trainer, model_gate, pusher],
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(root / "metadata" / "metadata.sqlite")
        ),
        beam_pipeline_args=["--direct_running_mode=in_memory", "--direct_num_workers=1"],
        enable_cache=True,
    )
