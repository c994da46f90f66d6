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
from mlplatform.datasets.reference import Reference, version_reference
from mlplatform.home import Home
from mlplatform.orchestration.engine import parse_engine, use_engine
from mlplatform.orchestration.kubeflow.options import with_options
from mlplatform.pipelines.item_color.config import ItemColorConfig, check_files, load_config
from mlplatform.pipelines.photo_steps import (
    data_gate_of,
    imported,
    model_out,
    photos_in,
    pipeline_of,
    stored_photos,
)
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
            them), a local path or a URL. Or a stored dataset version, `item_colors@v3`: nothing is ingested.
        root: Root of everything the pipeline keeps, a local path or a URL; default `$MLPLATFORM_HOME`, else
            `./.mlplatform`.
        config: Changes to `config.yaml`, by its keys: `create_pipeline(..., model={"epochs": 20})`.

    Returns:
        A TFX pipeline that any TFX runner takes.

    Raises:
        ConfigError: A key is unknown or a value does not fit.
        NoPhotosError: `data` holds no listing, or a version has no split to evaluate on.
        DatasetNotFoundError, VersionNotFoundError: There is no such version.
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
        NoPhotosError: There is no such folder, it holds no listing, or a version has no split to evaluate on.
        DatasetNotFoundError, VersionNotFoundError: There is no such version.
    """
    settings = load_config(config)
    home = Home.at(root)
    check_files(settings)
    if version_reference(data) is None:
        require_folder(data)
    _photos(data, settings, home)


def _photos(data: str | os.PathLike[str], settings: ItemColorConfig, home: Home) -> Photos:
    reference = version_reference(data)
    if reference is not None:
        return stored_photos(data, reference, home)
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


def _compose(settings: ItemColorConfig, photos: Photos, stored: Reference | None, home: Home) -> "Pipeline":
    # Here and not above: a wrong configuration is reported before TFX is loaded.
    from mlplatform.components import ModelTrainer, ModelValidator

    label = settings.model.label_feature
    before: list[Any] = []
    version: Any
    if stored:
        version = imported(stored, home)
    else:
        ingest, version = photos_in(
            photos,
            settings,
            home,
            split_by=_split_by(photos, settings),
            of_ingest={"label_feature": label, "also_feature": settings.also, "leave_out_unlabelled": True},
        )
        before = [ingest]
    data_gate = data_gate_of(
        version,
        photos,
        settings,
        home,
        serving_logs=settings.serving_logs,
        label_feature=label,
        id_feature=ITEM_ID,
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
        serving_environment=settings.serving_environment,
        waivers=settings.waivers,
        models_dir=home.models,
        model_name=settings.model_name,
        reports_dir=home.reports,
    )
    components = [
        *before,
        version,
        data_gate,
        trainer,
        model_gate,
        *model_out(trainer, model_gate, version, settings, home),
    ]
    use_engine(components, parse_engine(settings.engine))
    pipeline = pipeline_of(NAME, components, home)
    with_options(pipeline, settings.kubernetes)
    return pipeline
