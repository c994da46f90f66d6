"""Item photos to a category: from a folder of photos to a validated model on a model server."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlplatform.pipelines.item_category.pipeline import check_arguments as check_arguments
    from mlplatform.pipelines.item_category.pipeline import create_pipeline as create_pipeline

__all__ = ["check_arguments", "create_pipeline"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'mlplatform.pipelines.item_category' has no attribute {name!r}")
    from mlplatform.pipelines.item_category import pipeline

    return getattr(pipeline, name)
