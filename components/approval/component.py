"""`Approval`: what it takes and gives."""

import json
from collections.abc import Sequence

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel, component_spec, standard_artifacts

from mlplatform.artifacts import DatasetVersion
from mlplatform.components.approval import executor
from mlplatform.components.approval.parameters import check_parameters
from mlplatform.components.approval.settings import DEFAULT_POLL_S, DEFAULT_TIME_LIMIT_H
from mlplatform.roles import WRITTEN
from mlplatform.tfx_io.parameters import Late, converted


class ApprovalSpec(component_spec.ComponentSpec):
    """Interface of `Approval`."""

    PARAMETERS = {  # noqa: RUF012 - TFX reads the class attribute
        "models_dir": component_spec.ExecutionParameter(type=str),
        "model_name": component_spec.ExecutionParameter(type=str),
        "approvers": component_spec.ExecutionParameter(type=str),
        "time_limit_h": component_spec.ExecutionParameter(type=float),
        "poll_s": component_spec.ExecutionParameter(type=float),
    }
    PARAMETER_ROLES = {"models_dir": WRITTEN}  # noqa: RUF012 - the local runner reads it
    INPUTS = {  # noqa: RUF012
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
        "infra_blessing": component_spec.ChannelParameter(
            type=standard_artifacts.InfraBlessing, optional=True
        ),
        "dataset": component_spec.ChannelParameter(type=DatasetVersion, optional=True),
    }
    OUTPUTS = {  # noqa: RUF012
        "approval": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class Approval(base_component.BaseComponent):
    """Asks people whether a model may be pushed, and waits for a yes or no with a reason.

    The answer (`mlplatform approve`, or a button of the dashboard) is an event in the ledger that belongs to
    the digest of the model's files: it holds for a run that was killed while it waited and is started again,
    and never for another model. A no, and a time limit without an answer, fail the run as a gate does. The
    blessing is one that a stock Pusher takes as well.
    """

    SPEC_CLASS = ApprovalSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        model: channel.BaseChannel,
        models_dir: str | Late,
        model_name: str | Late,
        blessing: channel.BaseChannel | None = None,
        infra_blessing: channel.BaseChannel | None = None,
        dataset: channel.BaseChannel | None = None,
        approvers: Sequence[str] | Late = (),
        time_limit_h: float | Late = DEFAULT_TIME_LIMIT_H,
        poll_s: float | Late = DEFAULT_POLL_S,
    ) -> None:
        """Declare the question.

        Each parameter may be a `RuntimeParameter`; `approvers` then is a JSON list.

        Args:
            model: Model, a SavedModel as a trainer exports it.
            models_dir: Folder or URL of all pushed models, as the pusher has it: its ledger keeps the answer.
            model_name: The name that the model is pushed under.
            blessing: ModelBlessing of a gate before: nobody is asked about a model that it refuses.
            infra_blessing: InfraBlessing, likewise.
            dataset: DatasetVersion that the model was trained on, to be shown to those who are asked.
            approvers: Names of those who may answer; none lets everybody.
            time_limit_h: Hours until the waiting ends, above 0.
            poll_s: Seconds between two looks for the answer, above 0.

        Raises:
            InvalidModelNameError: `model_name` cannot be a folder that a model server reads.
            ConfigError: Another parameter is out of range.
        """
        check_parameters(model_name, approvers, time_limit_h, poll_s)
        super().__init__(
            spec=ApprovalSpec(
                model=model,
                blessing=blessing,
                infra_blessing=infra_blessing,
                dataset=dataset,
                models_dir=converted(models_dir),
                model_name=model_name,
                approvers=converted(approvers, lambda given: json.dumps(list(given))),
                time_limit_h=converted(time_limit_h, float),
                poll_s=converted(poll_s, float),
                approval=channel.Channel(type=standard_artifacts.ModelBlessing),
            )
        )
