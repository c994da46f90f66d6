"""A Beam pipeline that is run by its file's name, with its helper module beside it."""

import beam_steps
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline


def create_pipeline(root, mode="in_memory"):
    return Pipeline(
        pipeline_name="beam_by_name",
        pipeline_root=f"{root}/artifacts",
        components=[beam_steps.Count(n=100)],
        beam_pipeline_args=[f"--direct_running_mode={mode}", "--direct_num_workers=2"],
        metadata_connection_config=metadata.sqlite_metadata_connection_config(f"{root}/metadata.sqlite"),
    )
