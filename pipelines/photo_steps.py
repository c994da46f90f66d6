"""The steps that pipelines of photos have in common: photos come in, and a judged model goes out.

Components are imported within the functions: a wrong configuration is reported before TFX is loaded.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mlplatform.components.approval.settings import ApprovalSettings
from mlplatform.components.image_example_gen.photo_folder import NoPhotosError, Photos, divided
from mlplatform.datasets import DatasetStore
from mlplatform.datasets.reference import Reference
from mlplatform.home import Home

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline


class PhotoSettings(Protocol):
    """The keys that the configurations of these pipelines share."""

    @property
    def dataset(self) -> str: ...

    @property
    def splits(self) -> Mapping[str, int]: ...

    @property
    def max_reject_fraction(self) -> float: ...

    @property
    def follow_links(self) -> bool: ...

    @property
    def shards(self) -> int | None: ...

    @property
    def key(self) -> Sequence[str]: ...

    @property
    def firewall(self) -> bool: ...

    @property
    def near_duplicates_apart(self) -> bool: ...

    @property
    def schema_path(self) -> str | None: ...

    @property
    def policy(self) -> Mapping[str, Any]: ...

    @property
    def drift_threshold(self) -> float: ...

    @property
    def serving_environment(self) -> str | None: ...

    @property
    def model_name(self) -> str: ...

    @property
    def approval(self) -> ApprovalSettings | None: ...

    @property
    def servers(self) -> Sequence[str]: ...

    @property
    def allow_withdrawn(self) -> bool: ...

    @property
    def keep(self) -> int: ...


def stored_photos(
    data: str | os.PathLike[str],
    stored: Reference,
    home: Home,
    data_splits: Sequence[str] | None = None,
) -> Photos:
    """Return how a stored version of a dataset is divided.

    Args:
        data: What names the version.
        stored: The version.
        home: Where the datasets are.
        data_splits: Its splits, the one to train on first; None reads them, where the store is on hand.

    Raises:
        NoPhotosError: The version has no split to evaluate on.
        DatasetNotFoundError, VersionNotFoundError: There is no such version.
    """
    splits = data_splits
    if splits is None:
        manifest = DatasetStore(home.datasets).show(stored.name, stored.version)
        held_out = sorted({*manifest.splits} - {*manifest.training_splits})
        splits = [*[name for name in manifest.training_splits if name in manifest.splits][:1], *held_out]
    if len(splits) < 2:
        raise NoPhotosError(str(data), f"its splits are {', '.join(splits)}: none is left to evaluate on")
    return divided(str(data), None, splits)


def imported(stored: Reference, home: Home) -> Any:
    """Return the step that gives a stored version of a dataset: nothing is ingested."""
    from mlplatform.components import DatasetImporter

    return DatasetImporter(dataset=stored.name, version=stored.version, store=home.datasets)


def photos_in(
    photos: Photos,
    settings: PhotoSettings,
    home: Home,
    *,
    split_by: str,
    of_ingest: Mapping[str, Any] | None = None,
    taxonomy: str | None = None,
) -> tuple[Any, Any]:
    """Return the steps that ingest photos and make them a version of the dataset.

    Args:
        photos: Where they are, and how they are divided.
        settings: The pipeline's configuration.
        home: Where everything is kept.
        split_by: Column of the listing that decides the split.
        of_ingest: Further arguments of ImageExampleGen.
        taxonomy: File or URL with the design of the classes.
    """
    from mlplatform.components import DatasetVersioner, ImageExampleGen

    ingest = ImageExampleGen(
        input_base=photos.folder,
        listing=photos.listing,
        splits=list(photos.own_splits) or settings.splits,
        split_by=split_by,
        max_reject_fraction=settings.max_reject_fraction,
        follow_links=settings.follow_links,
        shards=settings.shards,
        reports_dir=home.reports,
        **(of_ingest or {}),
    )
    version = DatasetVersioner(
        examples=ingest.outputs["examples"],
        dataset=settings.dataset,
        store=home.datasets,
        key=settings.key,
        training_splits=[photos.train_split],
        is_firewall_on=settings.firewall,
        near_duplicates_apart=settings.near_duplicates_apart,
        taxonomy=taxonomy,
    )
    return ingest, version


def data_gate_of(
    version: Any, photos: Photos, settings: PhotoSettings, home: Home, *, id_feature: str, **more: Any
) -> Any:
    """Return the step that judges a version of the dataset.

    Args:
        version: The step that gives the version.
        photos: How the photos are divided.
        settings: The pipeline's configuration.
        home: Where everything is kept.
        id_feature: What a person finds a photo by.
        more: Further arguments of DataValidator.
    """
    from mlplatform.components import DataValidator

    return DataValidator(
        examples=version.outputs["examples"],
        dataset=version.outputs["dataset"],
        schema_path=settings.schema_path,
        policy=settings.policy,
        drift_threshold=settings.drift_threshold,
        serving_features=["image/encoded"],  # the model is asked with the photo alone
        train_split=photos.train_split,
        id_feature=id_feature,
        reports_dir=home.reports,
        **more,
    )


def model_out(maker: Any, model_gate: Any, version: Any, settings: PhotoSettings, home: Home) -> list[Any]:
    """Return the steps that push a judged model: where the configuration says so, a person is asked before.

    Args:
        maker: The step whose `model` is pushed.
        model_gate: The step that judged it.
        version: The step that gives the version of the dataset.
        settings: The pipeline's configuration.
        home: Where everything is kept.
    """
    from mlplatform.components import Approval, ServingPusher

    common = {
        "model": maker.outputs["model"],
        "blessing": model_gate.outputs["blessing"],
        "infra_blessing": model_gate.outputs["infra_blessing"],
        "dataset": version.outputs["dataset"],
        "models_dir": home.models,
        "model_name": settings.model_name,
    }
    asked = settings.approval
    approvals = [] if asked is None else [Approval(**common, **asked.model_dump())]
    pusher = ServingPusher(
        **common,
        approval=approvals[0].outputs["approval"] if approvals else None,
        evaluation=model_gate.outputs["evaluation"],
        servers=settings.servers,
        allow_withdrawn=settings.allow_withdrawn,
        keep=settings.keep,
    )
    return [*approvals, pusher]


def pipeline_of(name: str, components: Sequence[Any], home: Home) -> "Pipeline":
    """Return the pipeline of some steps, with its artifacts and ML Metadata in the root."""
    from mlplatform.tfx_io.sqlite_pipeline import SqlitePipeline

    return SqlitePipeline(
        pipeline_name=name,
        pipeline_root=str(home.pipelines / name),
        components=list(components),
        metadata_db=home.metadata_db,
        enable_cache=True,
    )
