"""Components that run Beam."""

import copy
import json

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, TypeOptions
from apache_beam.transforms.userstate import CombiningValueStateSpec
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


@component(use_beam=True)
def JoinAndCount(out: OutputArtifact[String], beam_pipeline: BeamComponentParameter[beam.Pipeline] = None):
    """Uses what Beam has of side inputs, state and options; writes what came out."""
    options = beam_pipeline.options
    options.view_as(TypeOptions).runtime_type_check = True
    apart = copy.deepcopy(options)
    apart.view_as(TypeOptions).runtime_type_check = False
    views = [each.view_as(TypeOptions).runtime_type_check for each in (options, apart)]
    with beam_pipeline as pipeline:
        words = pipeline | beam.Create([("a", 1), ("b", 2), ("a", 3), ("c", 4)])
        totals = words | beam.CombinePerKey(sum)
        joined = words | beam.Map(
            lambda word, by_key, all_of, one: (*word, by_key[word[0]], sorted(all_of), one),
            by_key=beam.pvalue.AsDict(totals),
            all_of=beam.pvalue.AsList(words | "numbers" >> beam.Values()),
            one=beam.pvalue.AsSingleton(words | beam.combiners.Count.Globally()),
        )
        numbered = words | beam.ParDo(Number())
        _ = (
            ((joined, numbered) | beam.Flatten())
            | beam.combiners.ToList()
            | beam.Map(lambda rows: out.write(json.dumps([views, sorted(rows, key=str)])))
        )


class Number(beam.DoFn):
    """Numbers the values of each key."""

    SEEN = CombiningValueStateSpec("seen", sum)

    def process(self, word, seen=beam.DoFn.StateParam(SEEN)):  # noqa: B008 - as Beam has it
        seen.add(1)
        yield [word[0], seen.read()]
