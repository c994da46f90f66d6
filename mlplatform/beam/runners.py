"""Where a Beam pipeline runs."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

# The runner within a process. DirectRunner would first try Prism, a program that it downloads.
IN_PROCESS = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
_IN_PROCESS = frozenset({"directrunner", "direct"})


class EngineOptions(PipelineOptions):
    """Arguments of ours among those of Beam."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument("--engine_page", default=None, help="Address of the engine's own page.")


def runs_in_process(beam_pipeline_args: Sequence[object]) -> bool:
    """Return whether Beam runs in the process that starts it, or on its machine, and sees what it sees."""
    return _runs_in_process(tuple(map(str, beam_pipeline_args)))


def is_one_process(beam_pipeline_args: Sequence[object]) -> bool:
    """Return whether Beam works in the process that starts it, and one piece of work after the other."""
    if not runs_in_process(beam_pipeline_args):
        return False
    options = PipelineOptions(list(map(str, beam_pipeline_args))).view_as(DirectOptions)
    return bool(options.direct_running_mode == "in_memory" and options.direct_num_workers == 1)


def pipeline_options(beam_pipeline_args: Sequence[str]) -> PipelineOptions:
    """Return Beam's options for its arguments; without a runner, or with DirectRunner, it works in process.

    Jobs behind a job server are followed from then on (`follow_jobs`).

    Args:
        beam_pipeline_args: Beam's arguments.
    """
    if runs_in_process(beam_pipeline_args):
        return PipelineOptions([*beam_pipeline_args, f"--runner={IN_PROCESS}"])
    from mlplatform.beam.remote_jobs import follow_jobs

    follow_jobs(beam_pipeline_args)
    return PipelineOptions([*beam_pipeline_args])


@cache  # Beam parses all of its flags for it
def _runs_in_process(beam_pipeline_args: tuple[str, ...]) -> bool:
    options = PipelineOptions(list(beam_pipeline_args))
    runner = options.view_as(StandardOptions).runner or StandardOptions.DEFAULT_RUNNER
    return runner.rpartition(".")[2].lower() in _IN_PROCESS
