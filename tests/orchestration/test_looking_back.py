"""Which nodes take artifacts of other runs, and so wait for what the stock runner would have run before."""

import pytest

pytestmark = pytest.mark.e2e


@pytest.fixture
def plan(tmp_path, pipeline):
    def make(*components):
        from mlplatform.orchestration.local.compiling import compile_pipeline

        made = compile_pipeline(pipeline(*components), run_id="r", ir_path=str(tmp_path / "ir.pb"))
        return {node.id: node for node in made.nodes}

    return make


@pytest.fixture
def make(trace):
    import steps

    return steps.Make(trace=str(trace), text="hi")


def test_inputs_of_the_own_run_do_not(plan, make, trace):
    import steps

    show = steps.Show(trace=str(trace), source=make.outputs["out"])
    assert not any(node.looks_back for node in plan(make, show).values())


def test_for_each_does_not(plan, make, trace):
    import steps
    from tfx.dsl.control_flow.for_each import ForEach

    with ForEach(make.outputs["out"]) as each:
        show = steps.Show(trace=str(trace), source=each)
    assert not plan(make, show)["Show"].looks_back


def test_a_channel_without_a_producer_does(plan, make, trace):
    import steps
    from tfx.types import Channel
    from tfx.types.standard_artifacts import String

    node = plan(make, steps.Show(trace=str(trace), source=Channel(type=String)))["Show"]
    assert node.looks_back
    assert node.upstream == ("Make",)


def test_a_function_that_resolves_inputs_does(plan, make, trace):
    import steps
    from tfx.dsl.input_resolution import resolver_function
    from tfx.dsl.input_resolution.ops import ops

    @resolver_function.resolver_function
    def latest(channel):
        return ops.LatestCreateTime(channel, n=1)

    source = latest(make.outputs["out"])
    assert plan(make, steps.Show(trace=str(trace), source=source))["Show"].looks_back


def test_another_pipeline_does(plan, make, trace):
    import steps
    from tfx.types.channel import ExternalPipelineChannel
    from tfx.types.standard_artifacts import String

    channel = ExternalPipelineChannel(
        artifact_type=String, owner="o", pipeline_name="other", producer_component_id="c", output_key="out"
    )
    assert plan(make, steps.Show(trace=str(trace), source=channel))["Show"].looks_back
