"""Where a Beam pipeline runs."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

# The runner within a process. DirectRunner would first try Prism, a program that it downloads.
IN_PROCESS = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
_IN_PROCESS = frozenset({"directrunner", "direct"})
_FOLLOWED = {
    runner: f"mlplatform.beam.remote_jobs.{followed}"
    for kind, followed in (("portable", "FollowedPortableRunner"), ("prism", "FollowedPrismRunner"))
    for runner in (kind, f"{kind}runner")
}


class EngineOptions(PipelineOptions):
    """Arguments of ours among those of Beam."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument("--engine_page", default=None, help="Address of the engine's own page.")


def runs_in_process(beam_pipeline_args: Sequence[object]) -> bool:
    """Return whether Beam runs in the process that starts it, or on its machine, and sees what it sees."""
    return _runner(tuple(map(str, beam_pipeline_args))) in _IN_PROCESS


def is_one_process(beam_pipeline_args: Sequence[object]) -> bool:
    """Return whether Beam works in the process that starts it, and one piece of work after the other."""
    if not runs_in_process(beam_pipeline_args):
        return False
    options = PipelineOptions(list(map(str, beam_pipeline_args))).view_as(DirectOptions)
    return bool(options.direct_running_mode == "in_memory" and options.direct_num_workers == 1)


def followed(beam_pipeline_args: Sequence[object]) -> list[str]:
    """Return Beam's arguments with runners behind a job server replaced by those of `remote_jobs`.

    Args:
        beam_pipeline_args: Beam's arguments.
    """
    arguments = [*map(str, beam_pipeline_args)]
    runner = _FOLLOWED.get(_runner(tuple(arguments)))
    return [*arguments, f"--runner={runner}"] if runner else arguments


def pipeline_options(beam_pipeline_args: Sequence[str]) -> PipelineOptions:
    """Return Beam's options for its arguments; without a runner, or with DirectRunner, it works in process.

    Jobs behind a job server are followed.

    Args:
        beam_pipeline_args: Beam's arguments.
    """
    if runs_in_process(beam_pipeline_args):
        return PipelineOptions([*beam_pipeline_args, f"--runner={IN_PROCESS}"])
    return PipelineOptions(followed(beam_pipeline_args))


@cache  # Beam parses all of its flags for it
def _runner(beam_pipeline_args: tuple[str, ...]) -> str:
    options = PipelineOptions(list(beam_pipeline_args))
    runner = options.view_as(StandardOptions).runner or StandardOptions.DEFAULT_RUNNER
    return str(runner.rpartition(".")[2].lower())
