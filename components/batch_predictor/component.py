"""`BatchPredictor`: what it takes and gives."""

import json
from collections.abc import Sequence
from typing import Any

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import channel, component_spec, standard_artifacts

from mlplatform.components.batch_predictor import executor
from mlplatform.config_file import ConfigError
from mlplatform.tfx_io.parameters import Late, converted, is_late


class BatchPredictorSpec(component_spec.ComponentSpec):
    """Interface of `BatchPredictor`."""

    PARAMETERS = {  # noqa: RUF012 - TFX reads the class attribute
        "splits": component_spec.ExecutionParameter(type=str),
        "form": component_spec.ExecutionParameter(type=str),
        "signature": component_spec.ExecutionParameter(type=str),
        "model_name": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {  # noqa: RUF012
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
    }
    OUTPUTS = {  # noqa: RUF012
        "predictions": component_spec.ChannelParameter(type=standard_artifacts.InferenceResult),
    }


class BatchPredictor(base_beam_component.BaseBeamComponent):
    """Asks a model about every record of Examples and writes a row for each, on Beam's engine.

    A row holds the record's key, the model, the dataset version of the Examples, and the model's outputs. A
    record that the model does not answer is a reject: `rejects.json` beside the rows counts them by reason.
    """

    SPEC_CLASS = BatchPredictorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        model: channel.BaseChannel,
        examples: channel.BaseChannel,
        splits: Sequence[str] | Late = ("eval",),
        form: str = "parquet",
        signature: str | Late = "serving_default",
        model_name: str | Late = "model",
        blessing: channel.BaseChannel | None = None,
    ) -> None:
        """Declare the predictions.

        Args:
            model: Model, a SavedModel.
            examples: Examples to predict for; their artifact lies on a path that every worker sees.
            splits: Their splits; a file of rows is written for each.
            form: Of the files: `parquet` or `tfrecord`.
            signature: The model's signature to ask.
            model_name: What the rows call the model.
            blessing: ModelValidator's `blessing`: the node then waits for the model to be accepted.

        Raises:
            ConfigError: `form` is another one, or `splits` is empty.
        """
        if form not in ("parquet", "tfrecord"):
            raise ConfigError("BatchPredictor", [f"form is {form!r}: take 'parquet' or 'tfrecord'"])
        if not is_late(splits) and not splits:
            raise ConfigError("BatchPredictor", ["splits is empty: name at least one split"])
        optional: dict[str, Any] = {} if blessing is None else {"blessing": blessing}
        super().__init__(
            spec=BatchPredictorSpec(
                model=model,
                examples=examples,
                splits=converted(splits, lambda names: json.dumps(list(names))),
                form=form,
                signature=signature,
                model_name=model_name,
                predictions=channel.Channel(type=standard_artifacts.InferenceResult),
                **optional,
            )
        )
