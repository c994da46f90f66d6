"""Item photos to a search by photo: from a folder of photos to an index that is served beside its model."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlplatform.pipelines.image_search.pipeline import check_arguments as check_arguments
    from mlplatform.pipelines.image_search.pipeline import create_pipeline as create_pipeline

__all__ = ["check_arguments", "create_pipeline"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'mlplatform.pipelines.image_search' has no attribute {name!r}")
    from mlplatform.pipelines.image_search import pipeline

    return getattr(pipeline, name)
