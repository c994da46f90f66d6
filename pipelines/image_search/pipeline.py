"""The image-search pipeline: photos in, a validated embedder with its index on a model server out."""

import os
from typing import TYPE_CHECKING, Any

from mlplatform.components.image_example_gen.photo_folder import Photos, find_photos, require_folder
from mlplatform.home import Home
from mlplatform.pipelines.image_search.config import ImageSearchConfig, check_files, load_config
from mlplatform.storage.urls import join

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline

NAME = "image_search"
KIND = "mlplatform.pipelines.image_search.kind:ItemEmbedding"


def create_pipeline(
    data: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, **config: Any
) -> "Pipeline":
    """Compose the pipeline.

    It may be made on another machine than the ones that run it. So it looks at `data` only where this machine
    has such a folder; else `listing` and `data_splits` of the configuration say what is in it.

    Args:
        data: Folder of photos, a local path or a URL: one folder per category, below `train/` and
            `validation/` where the data brings its own splits; or a folder with a `listing.csv`.
        root: Root of everything the pipeline keeps, a local path or a URL; default `$MLPLATFORM_HOME`, else
            `./.mlplatform`. Artifacts and ML Metadata of a root at a URL lie on the machine that runs it.
        config: Changes to `config.yaml`, by its keys: `create_pipeline(..., index={"kind": "ivf"})`.

    Returns:
        A TFX pipeline that any TFX runner takes.

    Raises:
        ConfigError: A key is unknown or a value does not fit.
        NoPhotosError: `data` holds neither folders of photos nor a listing.
        UnknownBackboneError: `model.backbone` names none.
    """
    settings = load_config(config)
    photos = find_photos(data, settings.listing, settings.splits, settings.data_splits)
    return _compose(settings, photos, Home.at(root))


def check_arguments(
    data: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, **config: Any
) -> None:
    """Check what has to be there where the pipeline runs; the arguments are those of `create_pipeline`.

    Raises:
        ConfigError: A key is unknown, a value does not fit, or a file that it names is missing.
        NoPhotosError: There is no such folder, or it holds neither folders of photos nor a listing.
    """
    settings = load_config(config)
    Home.at(root)
    check_files(settings)
    require_folder(data)
    find_photos(data, settings.listing, settings.splits, settings.data_splits)


def _compose(settings: ImageSearchConfig, photos: Photos, home: Home) -> "Pipeline":
    # Here and not above: a wrong configuration is reported before TFX is loaded.
    from tfx.orchestration import metadata
    from tfx.orchestration.pipeline import Pipeline

    from mlplatform.components import (
        Approval,
        DatasetVersioner,
        DataValidator,
        ImageExampleGen,
        IndexBuilder,
        ModelTrainer,
        ModelValidator,
        ServingPusher,
    )
    from mlplatform.vision.backbones import check_backbone

    if not settings.model.backbone.endswith((".keras", ".h5")):  # that has to be where the training runs
        check_backbone(settings.model.backbone)

    ingest = ImageExampleGen(
        input_base=photos.folder,
        listing=photos.listing,
        splits=list(photos.own_splits) or settings.splits,
        split_by=settings.split_by,
        max_reject_fraction=settings.max_reject_fraction,
        follow_links=settings.follow_links,
        shards=settings.shards,
        reports_dir=home.reports,
    )
    version = DatasetVersioner(
        examples=ingest.outputs["examples"],
        dataset=settings.dataset,
        store=home.datasets,
        key=settings.key,
        training_splits=[photos.train_split],
        is_firewall_on=settings.firewall,
    )
    data_gate = DataValidator(
        examples=version.outputs["examples"],
        dataset=version.outputs["dataset"],
        schema_path=settings.schema_path,
        policy=settings.policy,
        drift_threshold=settings.drift_threshold,
        serving_features=["image/encoded"],  # the model is asked with the photo alone
        train_split=photos.train_split,
        id_feature="item_id" if photos.listing else "path",  # what a person finds the photo by
        reports_dir=home.reports,
    )
    settings_of_model = settings.model.model_dump()
    if settings_of_model["reuse"] is None and not settings.retrain:
        settings_of_model["reuse"] = join(home.models, settings.model_name)
    trainer = ModelTrainer(
        examples=version.outputs["examples"],
        schema=data_gate.outputs["schema"],
        dataset=version.outputs["dataset"],
        run_fn="mlplatform.training.image_embedding:train",
        hyperparameters=settings_of_model,
        train_splits=[photos.train_split],
        eval_splits=[],
        work_dir=home.work,
    )
    model_gate = ModelValidator(
        model=trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        examples=version.outputs["examples"],
        eval_splits=[photos.test_split],
        kind=KIND,
        label=settings.model.label_feature,
        output="embedding",
        thresholds=settings.thresholds,
        budget=settings.budget,
        models_dir=home.models,
        model_name=settings.model_name,
        reports_dir=home.reports,
    )
    index = IndexBuilder(
        model=trainer.outputs["model"],
        blessing=model_gate.outputs["blessing"],
        examples=version.outputs["examples"],
        dataset=version.outputs["dataset"],
        query_splits=[photos.test_split],
        plan=settings.index.model_dump(),
        thresholds=settings.index_thresholds.model_dump(),
        columns=settings.filter_columns,
        models_dir=home.models,
        model_name=settings.model_name,
        work_dir=join(home.work, "embeddings"),
        reports_dir=home.reports,
    )
    approval = None
    if settings.approval is not None:
        approval = Approval(
            model=index.outputs["model"],
            blessing=model_gate.outputs["blessing"],
            infra_blessing=model_gate.outputs["infra_blessing"],
            dataset=version.outputs["dataset"],
            models_dir=home.models,
            model_name=settings.model_name,
            **settings.approval.model_dump(),
        )
    pusher = ServingPusher(
        model=index.outputs["model"],
        blessing=model_gate.outputs["blessing"],
        infra_blessing=model_gate.outputs["infra_blessing"],
        approval=approval.outputs["approval"] if approval else None,
        evaluation=model_gate.outputs["evaluation"],
        dataset=version.outputs["dataset"],
        models_dir=home.models,
        model_name=settings.model_name,
        servers=settings.servers,
        allow_withdrawn=settings.allow_withdrawn,
        keep=settings.keep,
    )
    return Pipeline(
        pipeline_name=NAME,
        pipeline_root=str(home.pipelines / NAME),
        components=[
            ingest,
            version,
            data_gate,
            trainer,
            model_gate,
            index,
            *([approval] if approval else []),
            pusher,
        ],
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(home.metadata_db)),
        enable_cache=True,
    )
