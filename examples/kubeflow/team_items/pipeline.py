"""Photos to a served model, where each training starts from the model that was pushed last."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlplatform.home import Home
from mlplatform.orchestration.kubeflow.options import with_options


def create_pipeline(
    data: str,
    root: str | None = None,
    *,
    data_splits: Sequence[str] = ("train", "validation"),
    model: Mapping[str, Any] | None = None,
    thresholds: Mapping[str, float] | None = None,
    budget: Mapping[str, float] | None = None,
    servers: Sequence[str] = (),
    kubernetes: Mapping[str, Any] | None = None,
) -> Any:
    """Compose the pipeline.

    Args:
        data: Folder or URL of the photos: below one folder per split, one per category.
        root: Root of everything that is kept, a folder or a URL.
        data_splits: The split to train on, and the one to judge with.
        model: Hyperparameters of the image classifier.
        thresholds: What a model has to reach.
        budget: What it may cost to serve.
        servers: Model servers that have to confirm a push.
        kubernetes: What the nodes need on a cluster.
    """
    # Here and not above: a wrong argument is reported before TFX is loaded.
    from tfx.dsl.components.common.resolver import Resolver
    from tfx.types.channel import Channel
    from tfx.types.standard_artifacts import Model, PushedModel

    from mlplatform.components import (
        DatasetVersioner,
        DataValidator,
        ImageExampleGen,
        ModelTrainer,
        ModelValidator,
        ServingPusher,
    )
    from mlplatform.tfx_io.resolving import LatestPushedModelStrategy
    from mlplatform.tfx_io.sqlite_pipeline import SqlitePipeline

    home = Home.at(root)
    train, held_out = data_splits
    photos = ImageExampleGen(input_base=data, splits=[train, held_out], reports_dir=home.reports)
    version = DatasetVersioner(
        photos.outputs["examples"],
        dataset="items",
        store=home.datasets,
        key=["path"],
        training_splits=[train],
    )
    checked = DataValidator(
        version.outputs["examples"],
        dataset=version.outputs["dataset"],
        policy={"too_few_examples": "warn"},
        train_split=train,
        id_feature="path",
        serving_features=["image/encoded"],
        reports_dir=home.reports,
    )
    pushed = Resolver(
        strategy_class=LatestPushedModelStrategy,
        model=Channel(type=Model),
        pushed_model=Channel(type=PushedModel),
    ).with_id("pushed")
    trainer = ModelTrainer(
        version.outputs["examples"],
        schema=checked.outputs["schema"],
        dataset=version.outputs["dataset"],
        base_model=pushed.outputs["model"],
        run_fn="mlplatform.training.image_classifier:train",
        hyperparameters=dict(model or {}),
        train_splits=[train],
        eval_splits=[held_out],
        work_dir=home.work,
    )
    gate = ModelValidator(
        trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        examples=version.outputs["examples"],
        eval_splits=[held_out],
        thresholds=dict(thresholds or {"top_1": 0.6}),
        dataset=version.outputs["dataset"],
        budget=dict(budget or {}),
        models_dir=home.models,
        model_name="team_items",
        reports_dir=home.reports,
    )
    pusher = ServingPusher(
        trainer.outputs["model"],
        blessing=gate.outputs["blessing"],
        infra_blessing=gate.outputs["infra_blessing"],
        dataset=version.outputs["dataset"],
        evaluation=gate.outputs["evaluation"],
        models_dir=home.models,
        model_name="team_items",
        servers=list(servers),
    )
    pipeline = SqlitePipeline(
        pipeline_name="team_items",
        pipeline_root=str(home.pipelines / "team_items"),
        components=[photos, version, checked, pushed, trainer, gate, pusher],
        metadata_db=home.metadata_db,
        enable_cache=True,
    )
    return with_options(pipeline, kubernetes)
