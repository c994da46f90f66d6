"""Beam inside a node's process: no package of what is there anyway, no question asked twice, progress seen.

What is replaced is replaced in this process alone, which ends with its node.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

from mlplatform.beam.metrics import records_in
from mlplatform.beam.runners import runs_in_process
from mlplatform.private_names import Patch, apply_patches
from mlplatform.progress import Task, track

ASK_EVERY_S = 1.0
SAMPLE_EVERY_MS = 10


def prepare() -> None:
    """Prepare this process for Beam, as far as Beam is as we know it."""
    apply_patches(PATCHES)


def _stay_in_process() -> None:
    """Keep the DirectRunner to Python: newer ones try Prism first, a Go program that they download.

    Prism does not do interactive pipelines, so a DirectRunner that is told to be interactive leaves it alone;
    the attribute has no other use.
    """
    from apache_beam.runners.direct import direct_runner

    direct_runner.SwitchingDirectRunner._is_interactive = True


def _build_no_packages() -> None:
    """Spare TFX the package of itself for Beam's workers where these run in this process."""
    from tfx.dsl.components.base import base_beam_executor

    dependency_utils = base_beam_executor.dependency_utils
    pack = dependency_utils.make_beam_dependency_flags
    dependency_utils.make_beam_dependency_flags = lambda args: args if runs_in_process(args) else pack(args)


def _remember_signatures() -> None:
    """Answer Beam from memory when it asks for a function's arguments again.

    While it builds and translates a graph it asks some hundred times for each method of each DoFn, and
    reading a signature takes long: a tenth of Transform's time.
    """
    from apache_beam.transforms import core

    read: Callable[[Any], tuple[list[str], list[Any]]] = core.get_function_args_defaults
    known: dict[tuple[Any, bool], tuple[list[str], list[Any]]] = {}

    def remembered(function: Any) -> tuple[list[str], list[Any]]:
        is_bound = isinstance(function, MethodType)
        plain = function.__func__ if is_bound else function
        if not isinstance(plain, FunctionType):
            return read(function)
        if (plain, is_bound) not in known:
            known[plain, is_bound] = read(function)
        names, defaults = known[plain, is_bound]
        return list(names), list(defaults)

    core.get_function_args_defaults = remembered


def _remember_options() -> None:
    """Answer Beam from memory when it asks for the same view of a pipeline's options again.

    It asks twice for each transform, and each time declares and parses all flags anew. A view holds nothing
    of its own: all views of one pipeline's options share the dictionary of their values.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    read = PipelineOptions.view_as
    known: dict[tuple[int, type], PipelineOptions] = {}

    def remembered(options: PipelineOptions, kind: type[PipelineOptions]) -> PipelineOptions:
        key = (id(options._all_options), kind)  # a view keeps its dictionary, so no other gets this id
        if key not in known:
            known[key] = read(options, kind)
        return known[key]

    PipelineOptions.view_as = remembered


def _weigh_side_inputs_alone() -> None:
    """Let Beam weigh the side inputs that it caches without a look at all modules of this process.

    For each side input of each bundle it would gather the globals of thousands of modules, to leave them out
    of the weight; but it never comes to them, since it counts no modules and no functions.
    """
    from apache_beam.runners.worker import statecache

    statecache.objsize.traverse._iter_modules_globals = tuple


def _end_bundles_at_once() -> None:
    """Let no bundle wait long, when it ends, for the thread that samples what it spends its time on.

    That thread sleeps for up to 200 ms between two samples.
    """
    from apache_beam.runners.worker import statesampler

    class Sampler(statesampler.StateSampler):
        def __init__(self, prefix: str, counter_factory: Any, period_ms: int = SAMPLE_EVERY_MS) -> None:
            super().__init__(prefix, counter_factory, period_ms)

    statesampler.StateSampler = Sampler


def _describe_bundles_by_what_they_use() -> None:
    """Describe a bundle to Beam's worker with the collections that it uses, not with all of the pipeline.

    The description is copied twice for each of its bundles.
    """
    from apache_beam.runners.portability.fn_api_runner import execution

    build = execution.BundleContextManager._build_process_bundle_descriptor

    def build_narrowly(manager: Any) -> Any:
        whole = manager.execution_context
        used = {name for t in manager.stage.transforms for name in (*t.inputs.values(), *t.outputs.values())}
        components = whole.pipeline_components
        manager.execution_context = SimpleNamespace(
            pipeline_components=SimpleNamespace(
                pcollections={n: c for n, c in components.pcollections.items() if n in used},
                coders=components.coders,
                windowing_strategies=components.windowing_strategies,
                environments=components.environments,
            ),
            worker_handler_manager=whole.worker_handler_manager,
        )
        try:
            return build(manager)
        finally:
            manager.execution_context = whole

    execution.BundleContextManager._build_process_bundle_descriptor = build_narrowly


def _follow_bundles() -> None:
    """Report how many records Beam's stages have handled, also while a stage runs."""
    from apache_beam.runners.portability.fn_api_runner import fn_runner

    follower = _Follower()
    execute = fn_runner.FnApiRunner._execute_bundle
    run_stages = fn_runner.FnApiRunner.run_stages

    class Requester(fn_runner.ProgressRequester):
        def __init__(self, worker_handler: Any, instruction_id: str, frequency: float | None) -> None:
            super().__init__(worker_handler, instruction_id, frequency or ASK_EVERY_S, follower.within)
            self._is_over = threading.Event()

        def run(self) -> None:  # a bundle shorter than the interval is not asked at all
            if not self._is_over.wait(ASK_EVERY_S):
                super().run()

        def stop(self) -> None:
            self._is_over.set()
            super().stop()

    def execute_bundle(*args: Any, **kwargs: Any) -> Any:
        result = execute(*args, **kwargs)
        follower.after(result.process_bundle.monitoring_infos)
        return result

    def run_all_stages(self: Any, context: Any, stages: Sequence[Any]) -> Any:
        with track("Beam", unit="records") as task:
            follower.start(task, len(stages))
            return run_stages(self, context, stages)

    fn_runner.ProgressRequester = Requester
    fn_runner.FnApiRunner._execute_bundle = execute_bundle
    fn_runner.FnApiRunner.run_stages = run_all_stages


class _Follower:
    """Adds up the records of bundles that are over and of the one that runs."""

    def __init__(self) -> None:
        self._task = Task("Beam")
        self._stages = self._bundles = self._settled = 0
        self._lock = threading.Lock()

    def start(self, task: Task, stages: int) -> None:
        with self._lock:
            self._task, self._stages, self._bundles, self._settled = task, stages, 0, 0

    def within(self, progress: Any) -> None:
        with self._lock:
            self._show(self._settled + records_in(progress.monitoring_infos))

    def after(self, infos: Iterable[Any]) -> None:
        with self._lock:
            self._bundles += 1
            self._settled += records_in(infos)
            self._show(self._settled)

    def _show(self, records: int) -> None:
        note = f"stage {min(self._bundles + 1, self._stages)} of {self._stages}"
        self._task.advance(max(records - self._task.done, 0), note)


_FN_RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner"
PATCHES = (
    Patch(
        _stay_in_process,
        ("apache_beam.runners.direct.direct_runner:SwitchingDirectRunner._is_interactive",),
    ),
    Patch(
        _build_no_packages,
        ("tfx.dsl.components.base.base_beam_executor:dependency_utils.make_beam_dependency_flags",),
    ),
    Patch(_remember_signatures, ("apache_beam.transforms.core:get_function_args_defaults",)),
    Patch(_remember_options, ("apache_beam.options.pipeline_options:PipelineOptions.view_as",)),
    Patch(
        _weigh_side_inputs_alone,
        ("apache_beam.runners.worker.statecache:objsize.traverse._iter_modules_globals",),
    ),
    Patch(_end_bundles_at_once, ("apache_beam.runners.worker.statesampler:StateSampler.__init__",)),
    Patch(
        _describe_bundles_by_what_they_use,
        (
            "apache_beam.runners.portability.fn_api_runner.execution"
            ":BundleContextManager._build_process_bundle_descriptor",
        ),
    ),
    Patch(
        _follow_bundles,
        (
            f"{_FN_RUNNER}:FnApiRunner._execute_bundle",
            f"{_FN_RUNNER}:FnApiRunner.run_stages",
            f"{_FN_RUNNER}:ProgressRequester.__init__",
            f"{_FN_RUNNER}:ProgressRequester.run",
        ),
    ),
)
