"""The image-search pipeline: photos in, a validated embedder with its index on a model server out."""

import os
from typing import TYPE_CHECKING, Any

from mlplatform.components.image_example_gen.photo_folder import Photos, find_photos, require_folder
from mlplatform.home import Home
from mlplatform.pipelines.image_search.config import ImageSearchConfig, check_files, load_config
from mlplatform.pipelines.photo_steps import data_gate_of, model_out, photos_in, pipeline_of
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
    from mlplatform.components import IndexBuilder, ModelTrainer, ModelValidator
    from mlplatform.vision.backbones import check_backbone

    if not settings.model.backbone.endswith((".keras", ".h5")):  # that has to be where the training runs
        check_backbone(settings.model.backbone)

    ingest, version = photos_in(photos, settings, home, split_by=settings.split_by)
    data_gate = data_gate_of(
        version,
        photos,
        settings,
        home,
        id_feature="item_id" if photos.listing else "path",  # what a person finds the photo by
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
        serving_environment=settings.serving_environment,
        waivers=settings.waivers,
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
    components = [
        ingest,
        version,
        data_gate,
        trainer,
        model_gate,
        index,
        *model_out(index, model_gate, version, settings, home),
    ]
    return pipeline_of(NAME, components, home)
