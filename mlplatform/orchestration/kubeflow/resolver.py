"""What resolvers look up on Kubeflow: artifacts of earlier runs, by the ledger of the root.

TFX's own strategies ask ML Metadata, which open-source Kubeflow keeps to itself and is about to remove.
"""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from mlplatform.orchestration.kubeflow.entrypoint_errors import StrategyConfigError, UnknownStrategyError
from mlplatform.orchestration.kubeflow.task import RESOLVED, UNRESOLVED, PodTask
from mlplatform.registry.artifacts import BLESSING, MODEL, PastArtifact, PastRuns, Wanted
from mlplatform.registry.ledger import Ledger
from mlplatform.storage.urls import is_local

log = logging.getLogger(__name__)

Found = dict[str, list[PastArtifact]]
Strategy = Callable[[PastRuns, Mapping[str, Wanted], Mapping[str, Any], Found], Found]


def resolve(task: PodTask, ledger: Ledger | None) -> dict[str, Any]:
    """Look up what a resolver asks for, and return what its launcher wants to know.

    Args:
        task: The resolver's task.
        ledger: The ledger of its root; None for none: nothing is found.

    Raises:
        UnknownStrategyError: There is no such lookup.
        StrategyConfigError: Its settings do not fit it.
        LedgerAccessError: The ledger cannot be read.
    """
    asked = task.resolver or {}
    path = str(asked.get("strategy", ""))
    strategy = STRATEGIES.get(path)
    if strategy is None:
        raise UnknownStrategyError(path, sorted(STRATEGIES))
    producers = asked.get("producers", {})
    wanted = {
        key: Wanted(
            title.removeprefix("tfx."),
            producers.get(key, {}).get("node", ""),
            producers.get(key, {}).get("key", ""),
        )
        for key, title in asked["outputs"].items()
    }
    given: Found = {
        key: [PastArtifact(one.type_name, one.uri, one.metadata, task.run, id=one.name) for one in some]
        for key, some in task.inputs.items()
    }
    found: Found = {}
    if ledger is not None:
        past = PastRuns(
            ledger,
            str(task.node.get("pipeline", "")),
            without=task.run,
            only_urls=not is_local(str(task.node.get("root", ""))),
        )
        found = strategy(past, wanted, asked.get("config") or {}, given)
    for key in task.outputs:
        for artifact in found.get(key, []):
            log.info("%s: %s of run %s, %s", task.id, key, artifact.run, artifact.uri)
        if not found.get(key):
            log.info("%s: no %s in earlier runs", task.id, key)
    artifacts = {key: {"artifacts": [_facts(found.get(key, []))]} for key in task.outputs}
    return {"artifacts": artifacts, "parameterValues": {}}


def _facts(found: list[PastArtifact]) -> dict[str, Any]:
    """Return what stands for the artifacts, as the entry points of the tasks behind read it.

    The output keeps its own URI: the launcher fails a task with an output outside of its run's folder.
    """
    if not found:
        return {"metadata": {UNRESOLVED: 1}}
    every = [{"uri": one.uri, "name": one.id, "metadata": _without_nulls(one)} for one in found]
    return {"metadata": {**_without_nulls(found[0]), RESOLVED: json.dumps(every)}}


def _without_nulls(artifact: PastArtifact) -> dict[str, Any]:
    return {name: value for name, value in artifact.properties.items() if value is not None}


def _latest_artifact(
    past: PastRuns, wanted: Mapping[str, Wanted], config: Mapping[str, Any], given: Found
) -> Found:
    count = config.get("desired_num_of_artifacts", 1)
    if not isinstance(count, (int, float)) or count < 1:
        raise StrategyConfigError(LATEST_ARTIFACT, f"desired_num_of_artifacts is {count!r}, not 1 or more")
    found = {}
    for key, each in wanted.items():
        now = given.get(key, [])
        found[key] = (now + past.latest(each, int(count)))[: int(count)]
    return found


def _latest_blessed_model(
    past: PastRuns, wanted: Mapping[str, Wanted], _: Mapping[str, Any], __: Found
) -> Found:
    found = past.latest_blessed_model()
    if found is None:
        return {}
    of = dict(zip((MODEL, BLESSING), found, strict=True))
    return {key: [of[each.type]] for key, each in wanted.items() if each.type in of}


def _latest_pushed_model(
    past: PastRuns, wanted: Mapping[str, Wanted], _: Mapping[str, Any], __: Found
) -> Found:
    model = past.latest_pushed_model()
    return {key: [model] for key, each in wanted.items() if each.type == MODEL} if model is not None else {}


def _span_range(
    past: PastRuns, wanted: Mapping[str, Wanted], config: Mapping[str, Any], given: Found
) -> Found:
    is_in_range = _range(config.get("range_config"))
    return {key: past.spans(each, is_in_range, given.get(key, [])) for key, each in wanted.items()}


def _range(config: object) -> Callable[[int, int], bool]:
    """Return a test of spans, as TFX's strategy of the name makes it; it takes a span and the highest one.

    Args:
        config: A `RangeConfig` as JSON: `static_range` or `rolling_range`.

    Raises:
        StrategyConfigError: It is neither.
    """
    try:
        read: Any = json.loads(config) if isinstance(config, str) else config
        named = {key.replace("_", "").lower(): value for key, value in dict(read).items()}
        kind, of = next((k, named[k]) for k in ("staticrange", "rollingrange") if k in named)
        settings = {key.replace("_", "").lower(): int(value) for key, value in dict(of).items()}
    except (TypeError, ValueError, StopIteration) as error:
        raise StrategyConfigError(SPAN_RANGE, f"range_config {config!r} holds no range of spans") from error
    first = settings.get("startspannumber", 0)
    if kind == "staticrange":
        last = settings.get("endspannumber", 0)
        return lambda span, _: first <= span <= last
    count = settings.get("numspans", 0)
    if count <= 0:
        raise StrategyConfigError(SPAN_RANGE, f"num_spans of the rolling range is {count}, not 1 or more")
    return lambda span, highest: max(first, highest - count + 1) <= span


_STRATEGIES = "tfx.dsl.input_resolution.strategies"
LATEST_ARTIFACT = f"{_STRATEGIES}.latest_artifact_strategy.LatestArtifactStrategy"
SPAN_RANGE = f"{_STRATEGIES}.span_range_strategy.SpanRangeStrategy"

# The strategies that there are lookups for, by the path of their class.
STRATEGIES: Mapping[str, Strategy] = {
    LATEST_ARTIFACT: _latest_artifact,
    f"{_STRATEGIES}.latest_blessed_model_strategy.LatestBlessedModelStrategy": _latest_blessed_model,
    SPAN_RANGE: _span_range,
    "mlplatform.tfx_io.resolving.LatestPushedModelStrategy": _latest_pushed_model,
}
