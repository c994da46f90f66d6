"""A pipeline of function components with whatever Kubeflow has: an importer, a resolver, a condition, values
that are passed on, parameters of the run, and an exit handler. None of it needs TensorFlow.
"""

import sys
from pathlib import Path

import fsspec
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, OutputDict, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts

from mlplatform.errors import GateError


class NotGoodEnoughError(GateError):
    """The model knows too few words."""

    def __init__(self, words, least):
        super().__init__(words, least)
        self.words, self.least = words, least

    def __str__(self):
        return f"the model knows {self.words} words; it has to know {self.least}"


@component
def count_words(
    text: InputArtifact[standard_artifacts.Schema], marker: Parameter[str], about: Parameter[dict[str, int]]
) -> OutputDict(words=int):
    """Count the words of a text, at the second attempt."""
    if marker and not fsspec.core.url_to_fs(marker)[0].exists(marker):
        with fsspec.open(marker, "w") as file:
            file.write("tried")
        raise ConnectionError("the first attempt has no luck")
    with (Path(text.uri) / "text.txt").open() as file:
        words = len(file.read().split()) * about["times"]
    print(f"{words} words; is TensorFlow imported: {'tensorflow' in sys.modules}")
    return {"words": words}


@component
def train_model(
    words: Parameter[int],
    model: OutputArtifact[standard_artifacts.Model],
    base_model: InputArtifact[standard_artifacts.Model] = None,
):
    """Learn words, and keep those that the base model knows."""
    known = 0
    if base_model is not None:
        with (Path(base_model.uri) / "known.txt").open() as file:
            known = int(file.read())
    Path(model.uri).mkdir(parents=True)
    with (Path(model.uri) / "known.txt").open("w") as file:
        file.write(str(words + known))
    model.set_int_custom_property("known", words + known)
    model.set_string_custom_property("lies_at", f"{model.uri}/known.txt")


@component
def judge(
    model: InputArtifact[standard_artifacts.Model],
    least: Parameter[int],
    is_strict: Parameter[bool],
    blessing: OutputArtifact[standard_artifacts.ModelBlessing],
):
    """Bless a model that knows enough words."""
    known = model.get_int_custom_property("known")
    if is_strict and known < least:
        raise NotGoodEnoughError(known, least)
    blessing.set_int_custom_property("blessed", int(known >= least))
    blessing.set_string_custom_property("current_model", model.uri)
    blessing.set_int_custom_property("current_model_id", model.id)


@component
def push(
    model: InputArtifact[standard_artifacts.Model],
    pushed_model: OutputArtifact[standard_artifacts.PushedModel],
):
    """Copy the model."""
    Path(pushed_model.uri).mkdir(parents=True)
    (Path(pushed_model.uri) / "known.txt").write_text((Path(model.uri) / "known.txt").read_text())


@component
def tell(status: Parameter[str], place: Parameter[str]):
    """Write how the run ended."""
    with fsspec.open(place, "w") as file:
        file.write(status)


def create_pipeline(data, root, marker="", times=1, is_strict=False):
    """Compose the pipeline; `data` is a folder with text.txt."""
    from tfx.dsl.components.common.importer import Importer
    from tfx.dsl.components.common.resolver import Resolver
    from tfx.dsl.experimental.conditionals.conditional import Cond
    from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
    from tfx.orchestration.data_types import RuntimeParameter
    from tfx.orchestration.pipeline import Pipeline
    from tfx.types.channel import Channel

    text = Importer(source_uri=data, artifact_type=standard_artifacts.Schema).with_id("text")
    base = Resolver(
        strategy_class=LatestBlessedModelStrategy,
        model=Channel(type=standard_artifacts.Model),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing),
    ).with_id("base")
    words = count_words(text=text.outputs["result"], marker=marker, about={"times": times})
    model = train_model(words=words.outputs["words"].future()[0].value, base_model=base.outputs["model"])
    blessing = judge(
        model=model.outputs["model"],
        least=RuntimeParameter(name="least", ptype=int, default=3),
        is_strict=is_strict,
    )
    with Cond(blessing.outputs["blessing"].future()[0].custom_property("blessed") == 1):
        pushed = push(model=model.outputs["model"])
    return Pipeline(
        pipeline_name="small_words",
        pipeline_root=f"{root}/pipelines",
        components=[text, base, words, model, blessing, pushed],
        enable_cache=True,
    )


def exit_handler(place):
    """Return what runs when all else has ended."""
    from tfx.orchestration.kubeflow.decorators import FinalStatusStr

    return tell(status=FinalStatusStr(), place=place)
