"""The item-category pipeline: photos in, a validated model on a model server out."""

import os
from typing import TYPE_CHECKING, Any

from mlplatform.components.image_example_gen.photo_folder import (
    NoPhotosError,
    Photos,
    divided,
    find_photos,
    require_folder,
)
from mlplatform.datasets import DatasetStore
from mlplatform.datasets.reference import Reference, version_reference
from mlplatform.home import Home
from mlplatform.orchestration.engine import parse_engine, use_engine
from mlplatform.orchestration.kubeflow.options import with_options
from mlplatform.pipelines.item_category.config import ItemCategoryConfig, check_files, load_config

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline

NAME = "item_category"


def create_pipeline(
    data: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, **config: Any
) -> "Pipeline":
    """Compose the pipeline.

    It may be made on another machine than the ones that run it. So it looks at `data` only where this machine
    has such a folder; else `listing` and `data_splits` of the configuration say what is in it.

    Args:
        data: Folder of photos, a local path or a URL: one folder per category, below `train/` and
            `validation/` where the data brings its own splits; or a folder with a `listing.csv`. Or a stored
            dataset version, `items@v3`: nothing is ingested then.
        root: Root of everything the pipeline keeps, a local path or a URL; default `$MLPLATFORM_HOME`, else
            `./.mlplatform`. Artifacts and ML Metadata of a root at a URL lie on the machine that runs it.
        config: Changes to `config.yaml`, by its keys: `create_pipeline(..., model={"epochs": 5})`.

    Returns:
        A TFX pipeline that any TFX runner takes.

    Raises:
        ConfigError: A key is unknown or a value does not fit.
        NoPhotosError: `data` holds neither folders of photos nor a listing.
        UnknownBackboneError: `model.backbone` names none.
    """
    settings = load_config(config)
    home = Home.at(root)
    return _compose(settings, _photos(data, settings, home), version_reference(data), home)


def check_arguments(
    data: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, **config: Any
) -> None:
    """Check what has to be there where the pipeline runs; the arguments are those of `create_pipeline`.

    Raises:
        ConfigError: A key is unknown, a value does not fit, or a file that it names is missing.
        NoPhotosError: There is no such folder, or it holds neither folders of photos nor a listing.
    """
    settings = load_config(config)
    home = Home.at(root)
    check_files(settings)
    if version_reference(data) is None:
        require_folder(data)
    _photos(data, settings, home)


def _photos(data: str | os.PathLike[str], settings: ItemCategoryConfig, home: Home) -> Photos:
    """Return how the data is divided: a folder, or a stored version.

    Raises:
        NoPhotosError: See `find_photos`; or a version has no split to evaluate on.
        DatasetNotFoundError, VersionNotFoundError: There is no such version.
    """
    reference = version_reference(data)
    if reference is None:
        return find_photos(data, settings.listing, settings.splits, settings.data_splits)
    splits = settings.data_splits
    if splits is None:  # else it may be made where the store is not
        manifest = DatasetStore(home.datasets).show(reference.name, reference.version)
        held_out = sorted({*manifest.splits} - {*manifest.training_splits})
        splits = [*[name for name in manifest.training_splits if name in manifest.splits][:1], *held_out]
    if len(splits) < 2:
        raise NoPhotosError(str(data), f"its splits are {', '.join(splits)}: none is left to evaluate on")
    return divided(str(data), None, splits)


def _compose(
    settings: ItemCategoryConfig, photos: Photos, stored: Reference | None, home: Home
) -> "Pipeline":
    # Here and not above: a wrong configuration is reported before TFX is loaded.
    from tfx.orchestration import metadata
    from tfx.orchestration.pipeline import Pipeline

    from mlplatform.components import (
        Approval,
        DatasetImporter,
        DatasetVersioner,
        DataValidator,
        ImageExampleGen,
        ModelTrainer,
        ModelValidator,
        ServingPusher,
    )
    from mlplatform.vision.backbones import check_backbone

    if not settings.model.weights_file:  # that has to be where the training runs, not here
        check_backbone(settings.model.backbone)

    before: list[Any] = []
    version: Any
    if stored:
        version = DatasetImporter(dataset=stored.name, version=stored.version, store=home.datasets)
    else:
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
        before = [ingest]
        version = DatasetVersioner(
            examples=ingest.outputs["examples"],
            dataset=settings.dataset,
            store=home.datasets,
            key=settings.key,
            training_splits=[photos.train_split],
            is_firewall_on=settings.firewall,
            taxonomy=settings.taxonomy,
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
        id_feature="item_id" if photos.listing or stored else "path",  # what a person finds the photo by
        reports_dir=home.reports,
    )
    trainer = ModelTrainer(
        examples=version.outputs["examples"],
        schema=data_gate.outputs["schema"],
        dataset=version.outputs["dataset"],
        run_fn="mlplatform.training.image_classifier:train",
        hyperparameters=settings.model.model_dump(),
        train_splits=[photos.train_split],
        eval_splits=[photos.validation_split],
        work_dir=home.work,
        search=settings.search.model_dump() if settings.search.trials else None,
    )
    model_gate = ModelValidator(
        model=trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        examples=version.outputs["examples"],
        eval_splits=[photos.test_split],
        thresholds=settings.thresholds.model_dump(),
        dataset=version.outputs["dataset"],
        budget=settings.budget.model_dump(),
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
    components = [*before, version, data_gate, trainer, model_gate, *([approval] if approval else []), pusher]
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
