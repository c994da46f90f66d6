"""The Python blocks of the docs, run as they stand there: each page's blocks are one program.

A name that a page uses and does not make is made by `World`, by the attribute of that name; one that is not
there fails as it would for the reader.
"""

import ast
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlplatform.serving import ModelServer

REPOSITORY = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "components/*/*.md", "pipelines/*/*.md", "examples/**/*.md")
    for page in REPOSITORY.glob(pattern)
    if page.name != "CHANGELOG.md" and BLOCK.search(page.read_text("utf-8"))
)
# An address and a folder of the docs that a test has elsewhere.
ADDRESS, HALF = "127.0.0.1:8500", "/models/half"
# The photos here are few and small, and quality is not what this is about.
EPOCHS = 'model={"epochs": 5}'
MANY_PHOTOS, FEW_PHOTOS = (
    "categories=24, per_category=60, unseen=24",
    "categories=3, per_category=5, unseen=2",
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.usefixtures("warm_start")]


@dataclass
class World:
    """A working directory as the docs describe it.

    Attributes:
        folder: The directory that the blocks run in: `photos/<split>/<class>/`, `catalogue/listing.csv`,
            `home/`, `ingested/examples/`.
    """

    folder: Path

    @classmethod
    def at(cls, folder: Path, photos: Path, copy_of_home: Callable[[Path], Path]) -> "World":
        """Make the directory out of photos with a listing, and a root after one run of item_category."""
        for at, photo in enumerate(sorted(photos.glob("photos/*/*.jpg"))):
            split = folder / "photos" / ("validation" if at % 5 == 0 else "train")
            (split / photo.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, split / photo.parent.name)
        shutil.copytree(photos, folder / "catalogue")
        home = copy_of_home(folder / "home")
        ingested = next((home / "pipelines").glob("*/ImageExampleGen/examples/*"))
        shutil.copytree(ingested, folder / "ingested/examples")
        shutil.rmtree(folder / "ingested/examples/Split-eval")  # not the version that the root holds already
        return cls(folder)

    @cached_property
    def model_dir(self) -> Path:
        """The model that the run pushed."""
        return self.folder / "home/models/item_category/1"

    @cached_property
    def photo(self) -> bytes:
        """One photo that no model has seen."""
        return next((self.folder / "catalogue/unseen").glob("*.jpg")).read_bytes()

    @cached_property
    def serialized_examples(self) -> list[bytes]:
        """Records of the run's dataset."""
        from mlplatform.vision.examples import sample_records

        return sample_records(sorted(map(str, (self.folder / "ingested/examples").glob("Split-*/*"))), 4)

    image_size = 32
    labels = ("boot", "mug", "vase")
    x = np.asarray([1.0, 2.0], np.float32)

    @cached_property
    def network(self) -> Any:
        """Pixels to logits."""
        import keras

        return keras.Sequential(
            [
                keras.Input((self.image_size, self.image_size, 3)),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(len(self.labels)),
            ]
        )

    @property
    def batches(self) -> list[dict[str, np.ndarray]]:
        """Pixels to calibrate with."""
        return self._pixels("photos/train")

    @property
    def unseen_batches(self) -> list[dict[str, np.ndarray]]:
        """Other pixels."""
        return self._pixels("catalogue/unseen")

    def _pixels(self, folder: str) -> list[dict[str, np.ndarray]]:
        size = (self.image_size, self.image_size)
        photos = (Image.open(path).resize(size) for path in sorted((self.folder / folder).rglob("*.jpg")))
        return [{"images": np.asarray(photo, np.float32)[np.newaxis]} for photo in photos]

    @cached_property
    def example_gen(self) -> Any:
        """The first node of a pipeline."""
        from mlplatform.components import ImageExampleGen

        return ImageExampleGen(input_base="photos/")

    @cached_property
    def versioner(self) -> Any:
        """The dataset's node."""
        from mlplatform.components import DatasetVersioner

        return DatasetVersioner(
            examples=self.example_gen.outputs["examples"], dataset="items", store="home/datasets"
        )

    @property
    def version(self) -> Any:
        """The same node, as some pages name it."""
        return self.versioner

    @cached_property
    def trainer(self) -> Any:
        """The node that trains."""
        from mlplatform.components import ModelTrainer

        return ModelTrainer(
            examples=self.versioner.outputs["examples"],
            run_fn="mlplatform.training.image_classifier:train",
            train_splits=["train"],
            eval_splits=["validation"],
        )

    @cached_property
    def validator(self) -> Any:
        """The gate of models."""
        from mlplatform.components import ModelValidator

        return ModelValidator(
            model=self.trainer.outputs["model"],
            examples=self.versioner.outputs["examples"],
            eval_splits=["validation"],
            models_dir="home/models",
            model_name="item_category",
        )

    @cached_property
    def pipeline(self) -> Any:
        """A pipeline that runs in a second."""
        from tfx.orchestration import metadata
        from tfx.orchestration.pipeline import Pipeline

        return Pipeline(
            pipeline_name="small",
            pipeline_root="home/pipelines/small",
            components=[self.example_gen],
            metadata_connection_config=metadata.sqlite_metadata_connection_config("home/small.sqlite"),
        )

    def namespace(self, wanted: set[str]) -> dict[str, object]:
        """Return the objects of those names that are known here."""
        from mlplatform import components

        found: dict[str, object] = {"__name__": "__main__"}
        for name in wanted - {"folder", "namespace", "at"}:
            if hasattr(type(self), name):
                found[name] = getattr(self, name)
        if "folder" in wanted:
            found["folder"] = self.folder / "exported"
        if "StatisticsGen" in wanted:
            from tfx.components import StatisticsGen

            found["StatisticsGen"] = StatisticsGen
        for name in wanted & set(components.__all__):
            found[name] = getattr(components, name)
        return found


def write_half(folder: Path) -> None:
    """Write a SavedModel of y = x / 2."""
    import tensorflow as tf

    class Half(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x / 2}

    half = Half()
    tf.saved_model.save(half, str(folder / "1"), signatures={"serving_default": half.serve})


def program(page: Path) -> str:
    """The page's blocks, each at its line of the page, so that a traceback points into it."""
    text = page.read_text("utf-8")
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        lines[first : first + block[1].count("\n")] = block[1].splitlines()
    return "\n".join(lines)


def names_in(code: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_python_of_the_page_runs(
    page: Path,
    photos: Path,
    copy_of_home: Callable[[Path], Path],
    quick: dict[str, dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World.at(tmp_path, photos, copy_of_home)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLMD_PASSWORD", "secret")
    thresholds = {**quick["thresholds"], "max_top_1_drop": 1.0}
    code = program(page).replace(EPOCHS, f"model={quick['model']}, thresholds={thresholds}")
    code = code.replace(MANY_PHOTOS, FEW_PHOTOS)
    if HALF in code:
        write_half(tmp_path / "models/half")
        code = code.replace(HALF, str(tmp_path / "models/half"))
    namespace = world.namespace(names_in(code))
    if "Client" in code and ADDRESS in code:
        with ModelServer(
            model_base_path=str(world.model_dir.parent), model_name="item_category", port=0
        ) as server:
            code = code.replace(ADDRESS, f"127.0.0.1:{server.grpc_port}")
            exec(compile(code, str(page), "exec"), namespace)
    else:
        exec(compile(code, str(page), "exec"), namespace)
