"""Components that run Beam."""

import json

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import String


@component(use_beam=True)
def Options(out: OutputArtifact[String], beam_pipeline: BeamComponentParameter[beam.Pipeline] = None):
    """Writes how many workers Beam was told to use, and how."""
    with beam_pipeline as pipeline:
        options = pipeline.options.view_as(DirectOptions)
        out.write(json.dumps([options.direct_num_workers, options.direct_running_mode]))


@component(use_beam=True)
def Count(
    n: Parameter[int],
    out: OutputArtifact[String],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
):
    """Doubles numbers with the function of a module that lies beside this one."""
    import neighbour

    with beam_pipeline as pipeline:
        numbers = pipeline | beam.Create(range(n)) | beam.Reshuffle()
        _ = numbers | beam.Map(neighbour.twice) | beam.combiners.Count.Globally() | beam.Map(print)
    out.write("counted")
