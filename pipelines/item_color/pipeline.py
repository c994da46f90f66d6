"""The item-color pipeline: photos and their listing in, a validated model on a model server out."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.components.image_example_gen.listing import ITEM_ID, read_listing
from mlplatform.components.image_example_gen.photo_folder import (
    LISTING,
    NoPhotosError,
    Photos,
    find_photos,
    require_folder,
)
from mlplatform.home import Home
from mlplatform.orchestration.engine import parse_engine, use_engine
from mlplatform.orchestration.kubeflow.options import with_options
from mlplatform.pipelines.item_color.config import ItemColorConfig, check_files, load_config
from mlplatform.storage.urls import is_local, join

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline

NAME = "item_color"
KIND = "mlplatform.pipelines.item_color.kind:ColorName"
SELLERS = ("seller", "seller_id")  # columns that name a photo's seller, the first that a listing has


def create_pipeline(
    data: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, **config: Any
) -> "Pipeline":
    """Compose the pipeline. It may be made on another machine than the ones that run it.

    Args:
        data: Folder of photos with a listing (columns `path`, `color`; `also` and `seller` where it has
            them), a local path or a URL.
        root: Root of everything the pipeline keeps, a local path or a URL; default `$MLPLATFORM_HOME`, else
            `./.mlplatform`.
        config: Changes to `config.yaml`, by its keys: `create_pipeline(..., model={"epochs": 20})`.

    Returns:
        A TFX pipeline that any TFX runner takes.

    Raises:
        ConfigError: A key is unknown or a value does not fit.
        NoPhotosError: `data` holds no listing.
    """
    settings = load_config(config)
    return _compose(settings, _photos(data, settings), Home.at(root))


def check_arguments(
    data: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, **config: Any
) -> None:
    """Check what has to be there where the pipeline runs; the arguments are those of `create_pipeline`.

    Raises:
        ConfigError: A key is unknown, a value does not fit, or a file that it names is missing.
        NoPhotosError: There is no such folder, or it holds no listing.
    """
    settings = load_config(config)
    Home.at(root)
    check_files(settings)
    require_folder(data)
    _photos(data, settings)


def _photos(data: str | os.PathLike[str], settings: ItemColorConfig) -> Photos:
    photos = find_photos(data, settings.listing or LISTING, settings.splits)
    if photos.listing is None:
        raise NoPhotosError(photos.folder, "it has no listing, and folders say nothing of colours")
    return photos


def _split_by(photos: Photos, settings: ItemColorConfig) -> str:
    """Return the column that decides the split: as set, else the one that names sellers."""
    if settings.split_by is not None:
        return settings.split_by
    listing = join(photos.folder, photos.listing or LISTING)
    if not is_local(listing) or not Path(listing).is_file():
        return SELLERS[0]
    columns = next((row for _, row in read_listing(listing) if isinstance(row, dict)), {})
    return next((name for name in SELLERS if name in columns), ITEM_ID)


def _compose(settings: ItemColorConfig, photos: Photos, home: Home) -> "Pipeline":
    # Here and not above: a wrong configuration is reported before TFX is loaded.
    from tfx.orchestration import metadata
    from tfx.orchestration.pipeline import Pipeline

    from mlplatform.components import (
        Approval,
        DatasetVersioner,
        DataValidator,
        ImageExampleGen,
        ModelTrainer,
        ModelValidator,
        ServingPusher,
    )

    label = settings.model.label_feature
    ingest = ImageExampleGen(
        input_base=photos.folder,
        listing=photos.listing,
        splits=list(photos.own_splits) or settings.splits,
        label_feature=label,
        also_feature=settings.also,
        leave_out_unlabelled=True,
        split_by=_split_by(photos, settings),
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
        serving_logs=settings.serving_logs,
        serving_features=["image/encoded"],  # the model is asked with the photo alone
        train_split=photos.train_split,
        label_feature=label,
        id_feature=ITEM_ID,
        reports_dir=home.reports,
    )
    trainer = ModelTrainer(
        examples=version.outputs["examples"],
        schema=data_gate.outputs["schema"],
        dataset=version.outputs["dataset"],
        run_fn="mlplatform.training.color_classifier:train",
        hyperparameters=settings.model.model_dump(),
        train_splits=[photos.train_split],
        eval_splits=[photos.validation_split],
        work_dir=home.work,
    )
    model_gate = ModelValidator(
        model=trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        examples=version.outputs["examples"],
        eval_splits=[photos.test_split],
        kind=KIND,
        label=label,
        thresholds=settings.thresholds,
        budget=settings.budget,
        models_dir=home.models,
        model_name=settings.model_name,
        reports_dir=home.reports,
    )
    approval = None
    if settings.approval is not None:
        approval = Approval(
            model=trainer.outputs["model"],
            blessing=model_gate.outputs["blessing"],
            infra_blessing=model_gate.outputs["infra_blessing"],
            dataset=version.outputs["dataset"],
            models_dir=home.models,
            model_name=settings.model_name,
            **settings.approval.model_dump(),
        )
    pusher = ServingPusher(
        model=trainer.outputs["model"],
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
    components = [ingest, version, data_gate, trainer, model_gate, *([approval] if approval else []), pusher]
    use_engine(components, parse_engine(settings.engine))
    pipeline: Pipeline = Pipeline(
        pipeline_name=NAME,
        pipeline_root=str(home.pipelines / NAME),
        components=components,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(home.metadata_db)),
        enable_cache=True,
    )
    with_options(pipeline, settings.kubernetes)
    return pipeline
