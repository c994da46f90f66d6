"""A pipeline of every kind of node: functions, values passed on, a condition, an importer, a resolver."""

from tfx import v1 as tfx
from tfx.dsl.component.experimental.annotations import OutputDict
from tfx.orchestration.data_types import RuntimeParameter

from mlplatform.orchestration.kubeflow.options import with_options


@tfx.dsl.components.component
def measure_data(
    schema: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.Schema],
    model: tfx.dsl.components.OutputArtifact[tfx.types.standard_artifacts.Model],
    threshold: tfx.dsl.components.Parameter[float],
    title: tfx.dsl.components.Parameter[str],
    is_strict: tfx.dsl.components.Parameter[bool] = False,
    sizes: tfx.dsl.components.Parameter[list[int]] = None,
) -> OutputDict(count=int, name=str):
    """Give numbers, and a model that says whether it is any good."""
    model.set_string_custom_property("title", f"{title} of {sizes}, {schema.uri}")
    model.set_int_custom_property("good", int(threshold < 1 or is_strict))
    return {"count": 7, "name": title}


@tfx.dsl.components.component
def use_numbers(
    count: tfx.dsl.components.Parameter[int],
    name: tfx.dsl.components.Parameter[str],
    baseline: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.Model] = None,
) -> OutputDict(text=str):
    """Take the numbers, and the latest blessed model where there is one."""
    return {"text": f"{name}: {count + 1}, {baseline is not None}"}


@tfx.dsl.components.component
def only_if_good(
    model: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.Model],
) -> OutputDict(uri=str):
    """Run where the model says that it is good."""
    return {"uri": model.uri}


@tfx.orchestration.experimental.exit_handler
def report_end(final_status: tfx.dsl.components.Parameter[str]):
    """Print how the run ended."""
    print(final_status)


def create_pipeline(root, strategy=tfx.dsl.experimental.LatestBlessedModelStrategy, kubernetes=None):
    """Compose the pipeline; `with_exit_handler` adds the handler."""
    schema = tfx.dsl.Importer(
        source_uri="s3://bucket/schema",
        artifact_type=tfx.types.standard_artifacts.Schema,
        custom_properties={"owner": "team"},
    ).with_id("curated_schema")
    measured = measure_data(
        schema=schema.outputs["result"],
        threshold=RuntimeParameter(name="threshold", ptype=float, default=0.5),
        title=RuntimeParameter(name="title", ptype=str),
        is_strict=True,
        sizes=[1, 2],
    )
    blessed = tfx.dsl.Resolver(
        strategy_class=strategy,
        model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
        model_blessing=tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
    ).with_id("latest_blessed")
    used = use_numbers(
        count=measured.outputs["count"].future()[0].value,
        name=measured.outputs["name"].future()[0].value,
        baseline=blessed.outputs["model"],
    )
    with tfx.dsl.Cond(measured.outputs["model"].future()[0].custom_property("good") == 1):
        good = only_if_good(model=measured.outputs["model"])
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="every_kind",
        pipeline_root=f"{root}/pipelines",
        components=[schema, measured, blessed, used, good],
        enable_cache=True,
    )
    return with_options(pipeline, kubernetes)


def with_exit_handler(root, kubernetes=None):
    """Compose the pipeline with an exit handler."""
    handler = report_end(final_status=tfx.orchestration.experimental.FinalStatusStr())
    return with_options(create_pipeline(root), kubernetes, exit_handler=handler)
