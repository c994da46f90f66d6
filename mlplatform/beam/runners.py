"""Where a Beam pipeline runs."""

from collections.abc import Sequence
from functools import cache

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

_IN_PROCESS = frozenset({"directrunner", "direct"})


def runs_in_process(beam_pipeline_args: Sequence[object]) -> bool:
    """Return whether Beam runs in the process that starts it, or on its machine, and sees what it sees."""
    return _runs_in_process(tuple(map(str, beam_pipeline_args)))


@cache  # Beam parses all of its flags for it
def _runs_in_process(beam_pipeline_args: tuple[str, ...]) -> bool:
    options = PipelineOptions(list(beam_pipeline_args))
    runner = options.view_as(StandardOptions).runner or StandardOptions.DEFAULT_RUNNER
    return runner.rpartition(".")[2].lower() in _IN_PROCESS
