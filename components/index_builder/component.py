"""`IndexBuilder`: what it takes and gives."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import channel, component_spec, standard_artifacts

from mlplatform.artifacts import DatasetVersion, EmbeddingIndex
from mlplatform.components.index_builder import executor
from mlplatform.components.index_builder.settings import parse_limits, parse_plan
from mlplatform.roles import WRITTEN
from mlplatform.tfx_io.parameters import Late, converted, is_late


class IndexBuilderSpec(component_spec.ComponentSpec):
    """Interface of `IndexBuilder`."""

    PARAMETERS = {  # noqa: RUF012 - TFX reads the class attribute
        "query_splits": component_spec.ExecutionParameter(type=str),
        "plan": component_spec.ExecutionParameter(type=str),
        "thresholds": component_spec.ExecutionParameter(type=str),
        "columns": component_spec.ExecutionParameter(type=str),
        "models_dir": component_spec.ExecutionParameter(type=str, optional=True),
        "model_name": component_spec.ExecutionParameter(type=str, optional=True),
        "work_dir": component_spec.ExecutionParameter(type=str, optional=True),
        "reports_dir": component_spec.ExecutionParameter(type=str, optional=True),
    }
    PARAMETER_ROLES = {  # noqa: RUF012 - the local runner reads it
        "models_dir": WRITTEN,
        "work_dir": WRITTEN,
        "reports_dir": WRITTEN,
    }
    # A name stands for one thing only in a ComponentSpec: the model that comes out carries the index.
    INPUTS = {  # noqa: RUF012
        "base_model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
        "dataset": component_spec.ChannelParameter(type=DatasetVersion, optional=True),
    }
    OUTPUTS = {  # noqa: RUF012
        "index": component_spec.ChannelParameter(type=EmbeddingIndex),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
    }


class IndexBuilder(base_beam_component.BaseBeamComponent):
    """Embeds photos with a model, builds a search index of them, judges it, and puts both together.

    A photo that a model has embedded is not embedded again, whatever ended the run before. What was added to
    and removed from the index that serves (`mlplatform search add`, `remove`) counts in the new one. An index
    that finds too little, lost items, or costs too much fails the run with `IndexNotGoodEnoughError`.
    """

    SPEC_CLASS = IndexBuilderSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        model: channel.BaseChannel,
        examples: channel.BaseChannel,
        blessing: channel.BaseChannel | None = None,
        dataset: channel.BaseChannel | None = None,
        query_splits: Sequence[str] | Late = ("eval",),
        plan: Mapping[str, Any] | Late | None = None,
        thresholds: Mapping[str, Any] | Late | None = None,
        columns: Sequence[str] | Late | None = None,
        models_dir: str | Late | None = None,
        model_name: str | Late | None = None,
        work_dir: str | Late | None = None,
        reports_dir: str | Late | None = None,
    ) -> None:
        """Declare the build.

        Each parameter may be a `RuntimeParameter`: lists then are JSON lists, mappings JSON objects.

        Args:
            model: Model with the signature `embed_image_bytes`.
            examples: Examples with `image/encoded` and `item_id`; all splits are indexed.
            blessing: ModelBlessing, so that an index is built of a good model alone.
            dataset: DatasetVersion that the examples are: all of its records must be accounted for.
            query_splits: Splits whose photos the index is measured with, each itself left out.
            plan: How it is built: keys of `settings.IndexSettings`.
            thresholds: What it must reach: keys of `mlplatform.search.gate.IndexLimits`.
            columns: Features that searches can be filtered by; None for all that have one value.
            models_dir: Folder or URL of pushed models, with the index that serves now.
            model_name: The model's name there.
            work_dir: Folder or URL where vectors are kept from run to run; default: for the run alone.
            reports_dir: Folder or URL that keeps verdict and page, also of a run that is stopped.

        Raises:
            ConfigError: A key of `plan` or `thresholds` is unknown, or a value does not fit.
        """
        if not is_late(plan):
            parse_plan(plan or {})
        if not is_late(thresholds):
            parse_limits(thresholds or {})
        super().__init__(
            spec=IndexBuilderSpec(
                base_model=model,
                examples=examples,
                blessing=blessing,
                dataset=dataset,
                query_splits=converted(query_splits, lambda names: json.dumps(list(names))),
                plan=_object(plan),
                thresholds=_object(thresholds),
                columns=columns
                if is_late(columns)
                else json.dumps(None if columns is None else list(columns)),
                models_dir=converted(models_dir),
                model_name=model_name,
                work_dir=converted(work_dir),
                reports_dir=converted(reports_dir),
                index=channel.Channel(type=EmbeddingIndex),
                model=channel.Channel(type=standard_artifacts.Model),
            )
        )


def _object(values: Mapping[str, Any] | Late | None) -> Any:
    return values if is_late(values) else json.dumps(dict(values or {}), sort_keys=True)
