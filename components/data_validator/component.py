"""`DataValidator`: what it takes and gives."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import channel, component_spec, standard_artifacts

from mlplatform.artifacts import DatasetVersion, DataVerdict
from mlplatform.components.data_validator import executor
from mlplatform.components.data_validator.policy import Policy
from mlplatform.config import Config, check_config, parse_config
from mlplatform.roles import READ, WRITTEN
from mlplatform.storage.urls import absolute
from mlplatform.tfx_io.parameters import Late, converted, is_late, late_names
from mlplatform.waivers import today


class _Settings(Config):
    train_split: str = Field(min_length=1)
    drift_threshold: float = Field(ge=0, le=1)
    image_feature: str = Field(min_length=1)
    label_feature: str = Field(min_length=1)
    id_feature: str = Field(min_length=1)
    serving_features: list[str] | None


class DataValidatorSpec(component_spec.ComponentSpec):
    """Interface of `DataValidator`."""

    PARAMETERS = {  # noqa: RUF012 - TFX reads the class attribute
        "schema_path": component_spec.ExecutionParameter(type=str),
        "policy": component_spec.ExecutionParameter(type=str),
        "train_split": component_spec.ExecutionParameter(type=str),
        "drift_threshold": component_spec.ExecutionParameter(type=float),
        "serving_logs": component_spec.ExecutionParameter(type=str),
        "serving_features": component_spec.ExecutionParameter(type=str),
        "image_feature": component_spec.ExecutionParameter(type=str),
        "label_feature": component_spec.ExecutionParameter(type=str),
        "id_feature": component_spec.ExecutionParameter(type=str),
        "reports_dir": component_spec.ExecutionParameter(type=str),
    }
    PARAMETER_ROLES = {"schema_path": READ, "serving_logs": READ, "reports_dir": WRITTEN}  # noqa: RUF012 - the local runner reads it
    INPUTS = {  # noqa: RUF012
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "dataset": component_spec.ChannelParameter(type=DatasetVersion, optional=True),
        # Not "schema": TFX wants the names of inputs and outputs to differ.
        "curated_schema": component_spec.ChannelParameter(type=standard_artifacts.Schema, optional=True),
        "baseline": component_spec.ChannelParameter(type=standard_artifacts.ExampleStatistics, optional=True),
    }
    OUTPUTS = {  # noqa: RUF012
        "statistics": component_spec.ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema),
        "anomalies": component_spec.ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "verdict": component_spec.ChannelParameter(type=DataVerdict),
    }


class DataValidator(base_beam_component.BaseBeamComponent):
    """Lets data pass that fits its schema, and stops the run for data that does not.

    Stands for StatisticsGen, SchemaGen and ExampleValidator, with their artifacts as outputs; but what the
    policy blocks fails the run with `DataRejectedError`, which names the offending values and records.
    """

    SPEC_CLASS = DataValidatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        examples: channel.BaseChannel,
        dataset: channel.BaseChannel | None = None,
        schema: channel.BaseChannel | None = None,
        schema_path: str | Late | None = None,
        baseline: channel.BaseChannel | None = None,
        policy: Mapping[str, Any] | Late | None = None,
        train_split: str | Late = "train",
        drift_threshold: float | Late = 0.1,
        serving_logs: str | Late | None = None,
        serving_features: Sequence[str] | Late | None = None,
        image_feature: str | Late = "image/encoded",
        label_feature: str | Late = "label",
        id_feature: str | Late = "item_id",
        reports_dir: str | Late | None = None,
    ) -> None:
        """Declare the gate.

        Each parameter may be a `RuntimeParameter`: `policy` then is a JSON object, `serving_features` a JSON
        list.

        Args:
            examples: Examples of any kind: photos, or rows of a table.
            dataset: DatasetVersion that the examples are. The verdict is noted with the version, and the last
                other version of the dataset that was accepted is the baseline, unless one is given.
            schema: Curated Schema. Without it and `schema_path`, one is inferred from the training split, and
                the other splits must fit it.
            schema_path: File of a curated schema (a text proto, such as `schema.pbtxt`).
            baseline: ExampleStatistics of data that was good, to find drift of the training split.
            policy: `block`, `warn` or `ignore` by kind of problem, below `features` by feature and kind, and
                `waivers` that count until a day; see `docs/how-to/validate-data.md`.
            train_split: The split that is trained on.
            drift_threshold: Jensen-Shannon divergence, 0 to 1, above which a feature has drifted, or is
                skewed in service, where the schema has no comparator of its own.
            serving_logs: Folder or URL of a model server's request log (files of PredictionLog), to find
                skew: what the model is asked in service and differs from the training split.
            serving_features: The features that a request must hold. Default: those of the training split that
                the schema has in the environment `SERVING`, all if it has no environments; but not the
                label, the id, and what describes a photo (`image/height`).
            image_feature: The feature that holds an encoded photo, if there is one.
            label_feature: The feature that holds the class, if there is one.
            id_feature: The feature that names a record, if there is one.
            reports_dir: Folder or URL that keeps verdict and report, also of a run that is stopped.

        Raises:
            ConfigError: The policy has an unknown kind or action, or a value is out of its range.
        """
        if not is_late(policy):
            # A waiver that is over is no part of the declaration: results that it let through are not reused.
            parsed = parse_config(Policy, policy or {}, source="DataValidator.policy").on(today())
            policy = parsed.model_dump_json()
        settings = {
            "train_split": train_split,
            "drift_threshold": drift_threshold,
            "image_feature": image_feature,
            "label_feature": label_feature,
            "id_feature": id_feature,
            "serving_features": converted(serving_features, list),
        }
        check_config(_Settings, settings, source="DataValidator", later=late_names(settings))
        super().__init__(
            spec=DataValidatorSpec(
                examples=examples,
                dataset=dataset,
                curated_schema=schema,
                baseline=baseline,
                schema_path=schema_path or "",
                policy=policy,
                serving_logs=converted(serving_logs or "", lambda logs: absolute(logs) if logs else ""),
                reports_dir=converted(reports_dir or ""),
                **{
                    **settings,
                    "drift_threshold": converted(drift_threshold, float),
                    "serving_features": converted(settings["serving_features"], json.dumps) or "null",
                },
                statistics=channel.Channel(type=standard_artifacts.ExampleStatistics),
                schema=channel.Channel(type=standard_artifacts.Schema),
                anomalies=channel.Channel(type=standard_artifacts.ExampleAnomalies),
                verdict=channel.Channel(type=DataVerdict),
            )
        )
