"""What all our Beam executors share."""

from typing import Any

from tfx.dsl.components.base import base_beam_executor

from mlplatform.beam.runners import runs_in_process


class BeamExecutor(base_beam_executor.BaseBeamExecutor):
    """A Beam executor that sends no package of TFX to workers that run in its own process.

    TFX makes that package for every pipeline with flags, which takes seconds and a writable copy of TFX;
    without it, an executor runs as any user.
    """

    def __init__(self, context: Any = None) -> None:
        flags = list(getattr(context, "beam_pipeline_args", None) or ())
        if flags and runs_in_process(flags):
            context.beam_pipeline_args = []
            super().__init__(context)
            context.beam_pipeline_args = self._beam_pipeline_args = flags
        else:
            super().__init__(context)
