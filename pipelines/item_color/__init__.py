"""Item photos to their colours: from a folder of photos and a listing to a validated model on a server."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlplatform.pipelines.item_color.pipeline import check_arguments as check_arguments
    from mlplatform.pipelines.item_color.pipeline import create_pipeline as create_pipeline

__all__ = ["check_arguments", "create_pipeline"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'mlplatform.pipelines.item_color' has no attribute {name!r}")
    from mlplatform.pipelines.item_color import pipeline

    return getattr(pipeline, name)
