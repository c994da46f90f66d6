"""The item-category pipeline: photos in, a validated model on a model server out."""

import os
from typing import TYPE_CHECKING, Any

from mlplatform.components.image_example_gen.photo_folder import (
    Photos,
    find_photos,
    require_folder,
)
from mlplatform.datasets.reference import Reference, version_reference
from mlplatform.home import Home
from mlplatform.orchestration.engine import parse_engine, use_engine
from mlplatform.orchestration.kubeflow.options import with_options
from mlplatform.pipelines.item_category.config import ItemCategoryConfig, check_files, load_config
from mlplatform.pipelines.photo_steps import (
    data_gate_of,
    imported,
    model_out,
    photos_in,
    pipeline_of,
    stored_photos,
)

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
    return stored_photos(data, reference, home, settings.data_splits)


def _compose(
    settings: ItemCategoryConfig, photos: Photos, stored: Reference | None, home: Home
) -> "Pipeline":
    # Here and not above: a wrong configuration is reported before TFX is loaded.
    from mlplatform.components import ModelTrainer, ModelValidator
    from mlplatform.vision.backbones import check_backbone

    if not settings.model.weights_file:  # that has to be where the training runs, not here
        check_backbone(settings.model.backbone)

    before: list[Any] = []
    version: Any
    if stored:
        version = imported(stored, home)
    else:
        ingest, version = photos_in(
            photos, settings, home, split_by=settings.split_by, taxonomy=settings.taxonomy
        )
        before = [ingest]
    data_gate = data_gate_of(
        version,
        photos,
        settings,
        home,
        serving_logs=settings.serving_logs,
        id_feature="item_id" if photos.listing or stored else "path",  # what a person finds the photo by
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
