"""A pipeline that is run by its file's name: it reads a settings file and a data folder."""

from pathlib import Path

import settings_of_by_name
import steps
from tfx.orchestration import metadata
from tfx.orchestration.data_types import RuntimeParameter
from tfx.orchestration.pipeline import Pipeline


def create_pipeline(data, root, how="not at all", seconds=0.2, model=None):
    root, data = Path(root), Path(data)
    trace = str(root)
    text = (data / "text.txt").read_text().strip() + settings_of_by_name.SUFFIX
    make = steps.Make(trace=trace, text=text)
    sleep = steps.Sleep(trace=trace, seconds=seconds)
    fail = steps.Fail(trace=trace, how=how, source=make.outputs["out"])
    show = steps.Show(trace=trace, source=fail.outputs["out"])
    show.add_upstream_node(sleep)
    times = steps.Repeat(trace=trace, times=(model or {}).get("times", 1))
    return Pipeline(
        pipeline_name="by_name",
        pipeline_root=str(root / "artifacts"),
        components=[make, sleep, fail, show, times],
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(root / "metadata.sqlite")),
    )


def without_data(root):
    return create_pipeline("nowhere", root)


def with_parameter(root):
    times = RuntimeParameter(name="times", ptype=int)
    return Pipeline(
        pipeline_name="with_parameter",
        pipeline_root=f"{root}/artifacts",
        components=[steps.Repeat(trace=root, times=times)],
        metadata_connection_config=metadata.sqlite_metadata_connection_config(f"{root}/metadata.sqlite"),
    )
