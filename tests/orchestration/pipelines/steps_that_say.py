"""Two components whose artifacts hold a text."""

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import String


@component
def Write(text: Parameter[str], out: OutputArtifact[String]):
    out.write(text)


@component
def Double(text: InputArtifact[String], out: OutputArtifact[String]):
    out.write(2 * text.read())
