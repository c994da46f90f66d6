"""What a model's training code is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform.taxonomy import Taxonomy


def _nothing() -> None:
    """Keep a folder that is kept anyway."""


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """One training: what to read, where to write.

    Attributes:
        train_files: TFRecord files to train on, sorted; names that end in `.gz` are GZIP.
        eval_files: TFRecord files to watch the training with; may be empty.
        hyperparameters: The model's own settings, as the pipeline gave them.
        work_dir: For what must survive a kill (features, checkpoints). The next training of the same files
            with the same code and hyperparameters finds it again; it is removed when the training is done.
        model_dir: Where to write the SavedModel. Does not exist yet.
        run_dir: For history and TensorBoard logs.
        schema_file: Schema of the Examples (`schema.pbtxt`), if the pipeline gives one.
        transform_dir: Transform's output (`tft.TFTransformOutput` reads it), if the pipeline gives one.
        base_model_dir: SavedModel to start from, if the pipeline gives one.
        taxonomy: The design of the dataset's classes, if the pipeline gives a dataset that has one.
        save: Keeps what is in `work_dir` now. To be called when something is there that is worth an upload,
            such as a checkpoint: where unfinished trainings are kept at a URL, only what was saved survives.
    """

    train_files: tuple[str, ...]
    eval_files: tuple[str, ...]
    hyperparameters: Mapping[str, Any]
    work_dir: Path
    model_dir: Path
    run_dir: Path
    schema_file: Path | None = None
    transform_dir: Path | None = None
    base_model_dir: Path | None = None
    taxonomy: Taxonomy | None = None
    save: Callable[[], None] = _nothing
