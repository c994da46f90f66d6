"""Reusable TFX components; `from mlplatform.components import ImageExampleGen` loads that one alone."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlplatform.components.approval.component import Approval as Approval
    from mlplatform.components.batch_predictor.component import BatchPredictor as BatchPredictor
    from mlplatform.components.data_validator.component import DataValidator as DataValidator
    from mlplatform.components.dataset_importer.component import DatasetImporter as DatasetImporter
    from mlplatform.components.dataset_versioner.component import DatasetVersioner as DatasetVersioner
    from mlplatform.components.image_example_gen.component import ImageExampleGen as ImageExampleGen
    from mlplatform.components.index_builder.component import IndexBuilder as IndexBuilder
    from mlplatform.components.model_trainer.component import ModelTrainer as ModelTrainer
    from mlplatform.components.model_validator.component import ModelValidator as ModelValidator
    from mlplatform.components.serving_pusher.component import ServingPusher as ServingPusher

_HOME_OF = {
    "Approval": "mlplatform.components.approval.component",
    "BatchPredictor": "mlplatform.components.batch_predictor.component",
    "DataValidator": "mlplatform.components.data_validator.component",
    "DatasetImporter": "mlplatform.components.dataset_importer.component",
    "DatasetVersioner": "mlplatform.components.dataset_versioner.component",
    "ImageExampleGen": "mlplatform.components.image_example_gen.component",
    "IndexBuilder": "mlplatform.components.index_builder.component",
    "ModelTrainer": "mlplatform.components.model_trainer.component",
    "ModelValidator": "mlplatform.components.model_validator.component",
    "ServingPusher": "mlplatform.components.serving_pusher.component",
}

__all__ = [
    "Approval",
    "BatchPredictor",
    "DataValidator",
    "DatasetImporter",
    "DatasetVersioner",
    "ImageExampleGen",
    "IndexBuilder",
    "ModelTrainer",
    "ModelValidator",
    "ServingPusher",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'mlplatform.components' has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(_HOME_OF[name]), name)
    return value
