"""Our components run one by one in TFX's own notebook context."""

import builtins
import io
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("quick_probes")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)
    for label in ("hat", "shoe"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(12):
            file = io.BytesIO()
            Image.fromarray(noise.integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(file, "JPEG")
            (tmp_path / "photos" / label / f"{number}.jpg").write_bytes(file.getvalue())
    (tmp_path / "photos" / "hat" / "<b>.jpg").write_bytes(b"no photo")
    return tmp_path / "photos"


def test_photos_are_ingested_judged_and_versioned(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(builtins.__dict__, "__IPYTHON__", True)  # without it the context does nothing
    from tfx.orchestration.experimental.interactive.interactive_context import InteractiveContext

    from mlplatform.components import DatasetVersioner, DataValidator, ImageExampleGen

    context = InteractiveContext(pipeline_root=str(tmp_path / "root"))
    ingest = ImageExampleGen(input_base=str(photos), splits={"train": 2, "eval": 1})
    context.run(ingest, enable_cache=False)
    (examples,), (rejects,) = (ingest.outputs[name].get() for name in ("examples", "rejects"))
    assert (Path(examples.uri) / "Split-train").is_dir()
    assert rejects.count == 1
    page = rejects._repr_html_()
    assert "24 accepted, 1 rejected (not_an_image 1)" in page
    assert "hat/&lt;b&gt;.jpg" in page
    assert "<b>" not in page
    versioner = DatasetVersioner(
        examples=ingest.outputs["examples"],
        dataset="items",
        store=str(tmp_path / "store"),
        training_splits=["train"],
    )
    context.run(versioner, enable_cache=False)
    assert versioner.outputs["dataset"].get()[0].version
    validator = DataValidator(examples=versioner.outputs["examples"])
    context.run(validator, enable_cache=False)
    assert validator.outputs["verdict"].get()[0].accepted == 1


@pytest.mark.slow
def test_a_model_is_trained_judged_and_pushed(
    colours: ModuleType, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(builtins.__dict__, "__IPYTHON__", True)
    from tfx.orchestration.experimental.interactive.interactive_context import InteractiveContext

    from mlplatform.components import ImageExampleGen, ModelTrainer, ModelValidator, ServingPusher

    for colour in colours.COLOURS:
        for number in range(4):
            folder = tmp_path / "photos" / ("validation" if number == 3 else "train") / colour
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jpg").write_bytes(colours.encode(colour, number, side=32))
    context = InteractiveContext(pipeline_root=str(tmp_path / "root"))
    ingest = ImageExampleGen(input_base=str(tmp_path / "photos"))
    context.run(ingest, enable_cache=False)
    trainer = ModelTrainer(
        examples=ingest.outputs["examples"],
        run_fn="mlplatform.training.image_classifier:train",
        hyperparameters={"backbone": network, "image_size": 32, "epochs": 1, "batch_size": 3},
        eval_splits=["validation"],
    )
    context.run(trainer, enable_cache=False)
    judge = ModelValidator(
        model=trainer.outputs["model"],
        examples=ingest.outputs["examples"],
        eval_splits=["validation"],
        budget={"p99_latency_ms": 60_000, "load_time_s": 600, "peak_memory_mb": 10_000, "time_limit_s": 600},
    )
    context.run(judge, enable_cache=False)
    pusher = ServingPusher(
        model=trainer.outputs["model"],
        blessing=judge.outputs["blessing"],
        infra_blessing=judge.outputs["infra_blessing"],
        models_dir=str(tmp_path / "models"),
        model_name="colours",
    )
    context.run(pusher, enable_cache=False)
    (pushed,) = pusher.outputs["pushed_model"].get()
    assert pushed.get_string_custom_property("pushed_version") == "1"
    assert (tmp_path / "models" / "colours" / "1" / "saved_model.pb").is_file()
