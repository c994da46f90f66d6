"""What TFX asserts of its own local runner, and what ours promises beyond it, on tiny pipelines."""

import io
import os
import re
import signal
from pathlib import Path

import pytest

from mlplatform.errors import GateError
from mlplatform.home import Home
from mlplatform.orchestration.local.active_run import ActiveRun
from mlplatform.orchestration.local.display import Lines
from mlplatform.orchestration.local.errors import (
    InputsNotResolvedError,
    NodeFailedError,
    NothingToReuseError,
    RuntimeParameterError,
)

pytestmark = pytest.mark.e2e


def states(record):
    return {node.id: node.state for node in record.nodes}


def value_of(record, node, key="out"):
    [artifact] = record.node(node).outputs[key]
    with open(artifact.uri) as file:
        return file.read()


@pytest.fixture
def diamond(pipeline, trace):
    """Return a function that makes a -> (b, c) -> d, of which c waits for b, and d -> e."""

    def make(text="hi", **options):
        import steps

        t = str(trace)
        a = steps.Make(trace=t, text=text).with_id("a")
        b = steps.Upper(trace=t, source=a.outputs["out"]).with_id("b")
        c = steps.Length(trace=t, source=a.outputs["out"]).with_id("c")
        c.add_upstream_node(b)
        d = steps.Join(trace=t, left=a.outputs["out"], right=b.outputs["out"]).with_id("d")
        e = steps.Show(trace=t, source=d.outputs["out"]).with_id("e")
        return pipeline(d, c, a, b, e, **options)

    return make


class TestOrder:
    def test_every_node_runs_once_after_those_it_needs(self, runner, diamond, calls):
        record = runner.run(diamond())
        done = calls()
        assert sorted(done) == sorted(["make hi", "upper hi", "length hi", "join hi HI", "show hi+HI"])
        assert done.index("make hi") < done.index("upper hi") < done.index("length hi")
        assert done.index("join hi HI") < done.index("show hi+HI")
        assert record.state == "done"
        assert set(states(record).values()) == {"done"}

    def test_a_compiled_pipeline_runs(self, runner, diamond, calls):
        from tfx.dsl.compiler import compiler

        compiled = compiler.Compiler().compile(diamond(enable_cache=False))
        first = runner.run_with_ir(compiled)
        assert len(calls()) == 5
        again = runner.run_with_ir(compiled)
        assert len(calls()) == 5
        assert {node.execution_id for node in first.nodes}.isdisjoint(n.execution_id for n in again.nodes)

    def test_ml_metadata_holds_what_tfx_writes(self, runner, diamond, store):
        record = runner.run(diamond())
        metadata = store()
        context = metadata.get_context_by_type_and_name("pipeline_run", record.run_id)
        executions = metadata.get_executions_by_context(context.id)
        assert len(executions) == 5
        assert {execution.last_known_state for execution in executions} == {3}  # COMPLETE
        [artifact] = record.node("b").outputs["out"]
        [stored] = metadata.get_artifacts_by_id([artifact.id])
        assert (stored.uri, stored.state) == (artifact.uri, 2)  # LIVE

    def test_the_stock_runner_takes_up_where_ours_left_and_back(self, runner, diamond, store):
        from tfx.orchestration.local.local_dag_runner import LocalDagRunner

        runner.run(diamond())
        LocalDagRunner().run(diamond())
        record = runner.run(diamond())
        assert set(states(record).values()) == {"cached"}
        assert all(e.last_known_state in (3, 5) for e in store().get_executions())  # COMPLETE or CACHED


class TestParallel:
    @pytest.mark.parametrize("parallelism", [1, 2])
    def test_independent_nodes_run_at_the_same_time_as_far_as_allowed(
        self, runner, pipeline, trace, calls, parallelism, monkeypatch
    ):
        import steps

        def node():
            if parallelism == 2:
                return steps.Meet(trace=str(trace), count=2)
            return steps.Sleep(trace=str(trace), seconds=0.5)

        nodes = [node().with_id(f"s{i}") for i in range(2)]
        monkeypatch.setattr(runner, "_parallelism", parallelism)
        runner.run(pipeline(*nodes, enable_cache=False))
        kinds = [line.split()[0] for line in calls()]
        assert kinds == (["start", "start", "end", "end"] if parallelism == 2 else ["start", "end"] * 2)

    def test_progress_and_words_of_a_node_reach_the_display(self, runner, pipeline, trace, monkeypatch):
        import steps

        screen = io.StringIO()
        monkeypatch.setattr(runner, "_display", Lines(screen))
        nap = steps.Sleep(trace=str(trace), seconds=0.5).with_id("nap")
        record = runner.run(pipeline(nap, enable_cache=False))
        assert "nap: sleep: " in screen.getvalue()
        assert "/ 10 naps" in screen.getvalue()
        assert "\n  nap: slept well\n" in screen.getvalue()
        log = runner._home.runs / record.run_id / "logs" / "nap.log"
        assert "slept well\n" in log.read_text()


class TestCache:
    def test_an_unchanged_pipeline_takes_every_result(self, runner, diamond, calls, store):
        first = runner.run(diamond())
        calls()
        second = runner.run(diamond())
        assert calls() == []
        assert set(states(second).values()) == {"cached"}
        assert second.node("d").outputs == first.node("d").outputs
        assert first.run_id in second.node("d").why
        cached = store().get_executions_by_id([second.node("d").execution_id])
        assert cached[0].last_known_state == 5  # CACHED

    def test_a_parameter_makes_a_miss_and_what_comes_after_follows(self, runner, diamond, calls):
        runner.run(diamond())
        calls()
        record = runner.run(diamond(text="ho"))
        assert len(calls()) == 5
        assert record.node("a").why == "parameter text: hi -> ho"
        assert record.node("b").why == "input source has other content"

    def test_equal_content_stops_the_change(self, runner, pipeline, trace, calls):
        import steps

        def chain(text):
            make = steps.Make(trace=str(trace), text=text)
            upper = steps.Upper(trace=str(trace), source=make.outputs["out"])
            return pipeline(make, upper, steps.Show(trace=str(trace), source=upper.outputs["out"]))

        runner.run(chain("same"))
        calls()
        record = runner.run(chain("Same"))
        assert calls() == ["make Same", "upper Same"]
        assert states(record) == {"Make": "done", "Upper": "done", "Show": "cached"}

    def test_outputs_that_were_touched_or_lost_are_made_again(self, runner, diamond, calls):
        first = runner.run(diamond())
        calls()
        [b] = first.node("b").outputs["out"]
        with open(b.uri, "a") as file:
            file.write("!")
        record = runner.run(diamond())
        assert record.node("b").why == "its earlier outputs are gone or were changed"
        assert calls() == ["upper hi"]

    def test_force_runs_a_node_and_only_what_then_changes(self, runner, diamond, calls, monkeypatch):
        runner.run(diamond())
        calls()
        monkeypatch.setattr(runner, "_force", ("b",))
        record = runner.run(diamond())
        assert calls() == ["upper hi"]
        assert record.node("b").why == "forced"

    def test_a_pipeline_that_does_not_cache_runs_again(self, runner, diamond, calls):
        runner.run(diamond(enable_cache=False))
        record = runner.run(diamond(enable_cache=False))
        assert len(calls()) == 10
        assert record.node("a").why == "the pipeline does not cache it"


class TestPartialRuns:
    def test_to_nodes(self, runner, diamond, calls):
        from tfx.orchestration.pipeline import RunOptions

        record = runner.run(diamond(), run_options=RunOptions(to_nodes=["c"]))
        assert calls() == ["make hi", "upper hi", "length hi"]
        assert states(record) == {"a": "done", "b": "done", "c": "done", "d": "skipped", "e": "skipped"}

    def test_to_nodes_of_a_compiled_pipeline(self, runner, diamond, calls):
        from tfx.dsl.compiler import compiler
        from tfx.proto.orchestration import pipeline_pb2

        options = pipeline_pb2.RunOptions()
        options.partial_run.to_nodes.append("c")
        options.partial_run.snapshot_settings.latest_pipeline_run_strategy.SetInParent()
        runner.run_with_ir(compiler.Compiler().compile(diamond()), options)
        assert calls() == ["make hi", "upper hi", "length hi"]

    def test_from_nodes_takes_the_rest_from_the_latest_run(self, runner, diamond, calls):
        runner.run(diamond(enable_cache=False))
        calls()
        record = runner.run(diamond(enable_cache=False), from_nodes=["d"])
        assert calls() == ["join hi HI", "show hi+HI"]
        assert states(record)["a"] == "skipped"

    def test_from_nodes_without_an_earlier_run_is_an_error(self, runner, diamond):
        with pytest.raises(NothingToReuseError, match=r"lacks a, b\. Run it in full, or up to node b"):
            runner.run(diamond(), from_nodes=["d"])

    def test_from_nodes_goes_past_runs_that_did_not_come_so_far(self, runner, pipeline, trace, calls):
        import steps

        def chain(how):
            make = steps.Make(trace=str(trace), text="hi")
            fail = steps.Fail(trace=str(trace), how=how, source=make.outputs["out"])
            show = steps.Show(trace=str(trace), source=fail.outputs["out"])
            return pipeline(make, fail, show, enable_cache=False)

        with pytest.raises(ValueError, match="a value"):
            runner.run(chain("value"))
        with pytest.raises(NothingToReuseError, match="lacks Fail"):
            runner.run(chain("no"), from_nodes=["Show"])
        runner.run(chain("no"))
        with pytest.raises(ValueError, match="a value"):
            runner.run(chain("value"))
        calls()
        record = runner.run(chain("no"), from_nodes=["Show"])
        assert calls() == ["show hi"]
        assert states(record) == {"Make": "skipped", "Fail": "skipped", "Show": "done"}

    def test_the_base_run_can_be_named(self, runner, pipeline, trace, calls):
        import steps
        from tfx.dsl.compiler import compiler
        from tfx.proto.orchestration import pipeline_pb2

        def chain(text):
            make = steps.Make(trace=str(trace), text=text)
            return pipeline(make, steps.Show(trace=str(trace), source=make.outputs["out"]))

        base = runner.run(chain("base"))
        runner.run(chain("newer"))
        calls()
        options = pipeline_pb2.RunOptions()
        options.partial_run.from_nodes.append("Show")
        strategy = options.partial_run.snapshot_settings.base_pipeline_run_strategy
        strategy.base_run_id = base.run_id
        runner.run_with_ir(compiler.Compiler().compile(chain("x")), options)
        assert calls() == []  # Show of `base` was run in `base`: a hit

    def test_an_unknown_node_is_named_with_those_there_are(self, runner, diamond):
        with pytest.raises(Exception, match=r"no node 'dd'; its nodes are a, b, c, d, e"):
            runner.run(diamond(), from_nodes=["dd"])


class TestDynamicPipelines:
    @pytest.mark.parametrize(("text", "shown"), [("yes", True), ("no", False)])
    def test_a_condition_decides(self, runner, pipeline, trace, calls, text, shown):
        import steps
        from tfx.dsl.experimental.conditionals.conditional import Cond

        make = steps.Make(trace=str(trace), text=text)
        with Cond(make.outputs["out"].future().value == "yes"):
            upper = steps.Upper(trace=str(trace), source=make.outputs["out"])
            show = steps.Show(trace=str(trace), source=upper.outputs["out"])
        record = runner.run(pipeline(make, upper, show))
        assert states(record)["Upper"] == ("done" if shown else "skipped")
        assert states(record)["Show"] == ("done" if shown else "skipped")
        assert record.state == "done"
        assert calls() == (["make yes", "upper yes", "show YES"] if shown else ["make no"])

    def test_a_condition_within_a_condition(self, runner, pipeline, trace, calls):
        import steps
        from tfx.dsl.experimental.conditionals.conditional import Cond

        make = steps.Make(trace=str(trace), text="yes")
        with Cond(make.outputs["out"].future().value == "yes"):
            outer = steps.Upper(trace=str(trace), source=make.outputs["out"])
            with Cond(outer.outputs["out"].future().value == "NO"):
                inner = steps.Show(trace=str(trace), source=outer.outputs["out"])
        record = runner.run(pipeline(make, outer, inner))
        assert states(record) == {"Make": "done", "Upper": "done", "Show": "skipped"}

    def test_an_execution_property_comes_from_an_artifact(self, runner, pipeline, trace, calls):
        import steps

        make = steps.Make(trace=str(trace), text="four")
        length = steps.Length(trace=str(trace), source=make.outputs["out"])
        repeat = steps.Repeat(trace=str(trace), times=length.outputs["out"].future().value)
        record = runner.run(pipeline(make, length, repeat))
        assert value_of(record, "Repeat") == "xxxx"

    def test_a_runtime_parameter_takes_its_value_or_its_default(self, runner, pipeline, trace, calls):
        import steps
        from tfx.orchestration.data_types import RuntimeParameter

        def make():
            text = RuntimeParameter(name="text", ptype=str, default="default")
            return pipeline(steps.Make(trace=str(trace), text=text))

        runner.run(make())
        runner.run(make(), parameters={"text": "given"})
        assert calls() == ["make default", "make given"]

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({}, "no value is given for times; its runtime parameters are pipeline-root, times"),
            ({"times": 2, "tims": 3}, "no runtime parameter tims"),
            ({"times": 2.5}, "times is 2.5, not int"),
            ({"times": "many"}, "times is 'many', not int"),
        ],
    )
    def test_a_wrong_runtime_parameter_is_told_before_anything_runs(
        self, runner, pipeline, trace, calls, given, said
    ):
        import steps
        from tfx.orchestration.data_types import RuntimeParameter

        times = RuntimeParameter(name="times", ptype=int)
        repeat = pipeline(steps.Make(trace=str(trace), text="x"), steps.Repeat(trace=str(trace), times=times))
        with pytest.raises(RuntimeParameterError, match=re.escape(said)):
            runner.run(repeat, parameters=given)
        assert calls() == []
        runner.run(repeat, parameters={"times": "3"})
        assert "repeat 3" in calls()

    def test_for_each_over_several_artifacts_says_that_tfx_cannot(self, runner, pipeline, trace, calls):
        import steps
        from tfx.dsl.control_flow.for_each import ForEach
        from tfx.types.channel_utils import union

        makes = [steps.Make(trace=str(trace), text=f"m{i}").with_id(f"m{i}") for i in range(2)]
        with ForEach(union([make.outputs["out"] for make in makes])) as each:
            show = steps.Show(trace=str(trace), source=each)
        with pytest.raises(
            InputsNotResolvedError, match="it is within a ForEach over more than one artifact"
        ):
            runner.run(pipeline(*makes, show))

    def test_for_each_runs_over_one_artifact(self, runner, pipeline, trace, calls):
        import steps
        from tfx.dsl.control_flow.for_each import ForEach

        make = steps.Make(trace=str(trace), text="one")
        with ForEach(make.outputs["out"]) as each:
            upper = steps.Upper(trace=str(trace), source=each)
        runner.run(pipeline(make, upper))
        assert calls() == ["make one", "upper one"]


class TestSystemNodes:
    def test_a_resolver_finds_the_latest_artifact_of_earlier_runs(self, runner, pipeline, trace, calls):
        import steps
        from tfx.dsl.components.common.resolver import Resolver
        from tfx.dsl.input_resolution.strategies.latest_artifact_strategy import LatestArtifactStrategy
        from tfx.types import Channel
        from tfx.types.standard_artifacts import String

        runner.run(pipeline(steps.Make(trace=str(trace), text="old")))
        newest = runner.run(pipeline(steps.Make(trace=str(trace), text="new")))
        resolver = Resolver(strategy_class=LatestArtifactStrategy, found=Channel(type=String)).with_id(
            "latest"
        )
        show = steps.Show(trace=str(trace), source=resolver.outputs["found"])
        record = runner.run(pipeline(resolver, show))
        assert calls()[-1] == "show new"
        assert record.node("latest").outputs["found"][0].id == newest.node("Make").outputs["out"][0].id

    def test_a_resolver_that_finds_nothing_fails_who_needs_it(self, runner, pipeline, trace, calls):
        import steps
        from tfx.dsl.components.common.resolver import Resolver
        from tfx.dsl.input_resolution.strategies.latest_artifact_strategy import LatestArtifactStrategy
        from tfx.types import Channel
        from tfx.types.standard_artifacts import String

        resolver = Resolver(strategy_class=LatestArtifactStrategy, found=Channel(type=String)).with_id(
            "latest"
        )
        show = steps.Show(trace=str(trace), source=resolver.outputs["found"])
        with pytest.raises(InputsNotResolvedError) as raised:
            runner.run(pipeline(resolver, show))
        assert (raised.value.node, raised.value.skipped) == ("Show", ("latest",))
        assert "latest before it gave no outputs" in str(raised.value)
        found = runner.record.node("latest")
        assert (found.state, found.why) == (
            "skipped",
            "it found nothing: Error while resolving inputs for latest: "
            "LatestArtifactStrategy returned None.",
        )
        assert calls() == []

    def test_an_optional_input_goes_without_what_a_resolver_did_not_find(
        self, runner, pipeline, trace, calls
    ):
        """A warm start: the first run has no earlier model, the second has one."""
        import steps
        from tfx.dsl.components.common.resolver import Resolver
        from tfx.dsl.input_resolution.strategies.latest_artifact_strategy import LatestArtifactStrategy
        from tfx.types import Channel
        from tfx.types.standard_artifacts import String

        def run():
            resolver = Resolver(strategy_class=LatestArtifactStrategy, found=Channel(type=String))
            resolver = resolver.with_id("latest")
            warm = steps.WarmStart(trace=str(trace), base=resolver.outputs["found"])
            return runner.run(pipeline(resolver, warm))

        first = run()
        assert {node.id: node.state for node in first.nodes} == {"latest": "skipped", "WarmStart": "done"}
        second = run()
        assert second.node("latest").outputs["found"][0].id == first.node("WarmStart").outputs["out"][0].id
        assert calls() == ["start from nothing", "start from trained"]

    def test_an_input_from_other_pipelines_looks_back_without_a_resolver_too(
        self, runner, pipeline, trace, calls
    ):
        import steps
        from tfx.types import Channel
        from tfx.types.standard_artifacts import String

        show = steps.Show(trace=str(trace), source=Channel(type=String))
        last = steps.Make(trace=str(trace), text="here").with_id("A")
        record = runner.run(pipeline(last, show))
        assert record.node("Show").upstream == ["A"]  # it starts when the stock runner would start it
        assert calls() == ["make here", "show here"]

    def test_an_importer_registers_what_lies_somewhere(self, runner, pipeline, trace, calls, tmp_path):
        import steps
        from tfx.dsl.components.common.importer import Importer
        from tfx.types.standard_artifacts import String

        (tmp_path / "given").write_text("from outside")
        importer = Importer(source_uri=str(tmp_path / "given"), artifact_type=String).with_id("given")
        show = steps.Show(trace=str(trace), source=importer.outputs["result"])
        runner.run(pipeline(importer, show))
        assert calls() == ["show from outside"]

    @pytest.mark.parametrize("reimport", [False, True])
    def test_an_importer_registers_again_only_where_it_is_told_to(self, runner, pipeline, tmp_path, reimport):
        from tfx.dsl.components.common.importer import Importer
        from tfx.types.standard_artifacts import String

        (tmp_path / "given").write_text("from outside")
        ids = set()
        for _ in range(2):
            importer = Importer(
                source_uri=str(tmp_path / "given"), artifact_type=String, reimport=reimport
            ).with_id("given")
            ids.add(runner.run(pipeline(importer)).node("given").outputs["result"][0].id)
        assert len(ids) == (2 if reimport else 1)


class TestFailures:
    @pytest.fixture
    def failing(self, pipeline, trace):
        def make(how):
            import steps

            t = str(trace)
            first = steps.Make(trace=t, text="hi")
            slow = steps.Sleep(trace=t, seconds=2.0)
            fail = steps.Fail(trace=t, how=how, source=first.outputs["out"])
            return pipeline(first, slow, fail, steps.Show(trace=t, source=fail.outputs["out"]))

        return make

    def test_the_nodes_own_error_is_raised_with_its_line_and_its_log(self, runner, failing, store):
        with pytest.raises(ValueError, match="a value is wrong") as raised:
            runner.run(failing("value"))
        failed = raised.value.__cause__
        assert isinstance(failed, NodeFailedError)
        assert str(failed).startswith("Fail failed: ValueError: a value is wrong\n  at ")
        assert "steps.py" in str(failed)
        assert 'raise ValueError("a value is wrong")' in str(failed)
        with open(failed.log) as log:
            assert "Traceback" in log.read()
        assert [e.last_known_state for e in store().get_executions() if e.type.endswith("Fail")] == [
            4
        ]  # FAILED

    def test_what_runs_beside_it_finishes_and_what_comes_after_does_not_start(self, runner, failing, calls):
        with pytest.raises(ValueError, match="a value"):
            runner.run(failing("value"))
        # Two start together, in either order; one fails while the other still works, and that one finishes.
        ran = [line.split()[0] for line in calls()]
        assert sorted(ran) == ["end", "fail", "make", "start"]
        assert ran.index("make") < ran.index("fail") < ran.index("end")
        assert ran.index("start") < ran.index("end")

    def test_the_next_run_goes_on_where_it_failed(self, runner, failing, calls):
        with pytest.raises(ValueError, match="a value"):
            runner.run(failing("value"))
        calls()
        record = runner.run(failing("not at all"))
        assert calls() == ["fail not at all", "show hi"]
        assert states(record) == {"Make": "cached", "Sleep": "cached", "Fail": "done", "Show": "done"}

    def test_two_that_fail_are_both_told(self, runner, pipeline, trace):
        import steps

        first = steps.Make(trace=str(trace), text="hi")
        fails = [
            steps.Fail(trace=str(trace), how=how, source=first.outputs["out"]).with_id(how)
            for how in ("value", "gate")
        ]
        with pytest.raises((ValueError, GateError)) as raised:
            runner.run(pipeline(first, *fails))  # both are ready at once, and start together
        failed = raised.value.__cause__
        assert isinstance(failed, NodeFailedError)
        assert "value failed: ValueError: a value is wrong" in str(failed)
        assert "gate failed: found 1, needed 2" in str(failed)
        assert str(failed).count("  log: ") == 2

    @pytest.mark.parametrize(
        ("how", "said"), [("leave", "it called sys.exit(0)"), ("stop", "KeyboardInterrupt")]
    )
    def test_what_would_end_a_process_is_a_failure_of_the_node(self, runner, failing, how, said):
        with pytest.raises(NodeFailedError, match=re.escape(said)):
            runner.run(failing(how))

    def test_a_gate_stays_a_gate(self, runner, failing):
        with pytest.raises(GateError, match="found 1, needed 2") as raised:
            runner.run(failing("gate"))
        assert (raised.value.found, raised.value.needed) == (1, 2)
        assert raised.value.__cause__.exit_code == 3

    @pytest.mark.parametrize(("how", "said"), [("kill", "was killed"), ("exit", "exit status 7")])
    def test_a_process_that_dies_leaves_nothing_half_done(self, runner, failing, store, tmp_path, how, said):
        with pytest.raises(NodeFailedError, match=said):
            runner.run(failing(how))
        assert [e.last_known_state for e in store().get_executions() if e.type.endswith("Fail")] == [
            4
        ]  # FAILED
        assert list((tmp_path / "artifacts").rglob("half")) == []

    def test_an_error_that_cannot_cross_processes_is_still_told(self, runner, failing):
        with pytest.raises(NodeFailedError, match="Unpicklable"):
            runner.run(failing("unpicklable"))

    def test_a_pipeline_without_metadata_says_so(self, runner, pipeline, trace):
        import steps
        from tfx.orchestration.pipeline import Pipeline

        bare = Pipeline(
            pipeline_name="bare", pipeline_root="/nowhere", components=[steps.Make(trace="t", text="x")]
        )
        with pytest.raises(Exception, match="metadata_connection_config"):
            runner.run(bare)


def test_a_warm_runner_imports_once_for_all_runs(runner, pipeline):
    import steps

    servers = set()
    for number in range(2):
        record = runner.run(pipeline(steps.Server(number=number)))
        assert record.node("Server").state == "done"
        servers.add(Path(record.node("Server").outputs["out"][0].uri).read_text())
    assert len(servers) == 1


def test_a_run_ends_no_nohup(tmp_path):
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ActiveRun(Home.at(tmp_path), "x", 1, Lines(io.StringIO())):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, earlier)
