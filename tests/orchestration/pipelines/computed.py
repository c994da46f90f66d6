"""A pipeline whose module imports its helper under a computed name; edited by the tests, in a copy."""

import importlib

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.types.standard_artifacts import String

helper = importlib.import_module("_".join(["helper", "of", "computed"]))


@component
def Say(out: OutputArtifact[String]):
    out.write(helper.TEXT)


@component
def Repeat(text: InputArtifact[String], out: OutputArtifact[String]):
    out.write(text.read())


def create_pipeline(root):
    say = Say()
    return Pipeline(
        pipeline_name="computed",
        pipeline_root=f"{root}/artifacts",
        components=[say, Repeat(text=say.outputs["out"])],
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(f"{root}/metadata.sqlite"),
    )
