"""`ServingPusher`: what it takes and gives."""

import json
from collections.abc import Sequence

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel, component_spec, standard_artifacts

from mlplatform.artifacts import DatasetVersion
from mlplatform.components.serving_pusher import executor
from mlplatform.components.serving_pusher.parameters import check_parameters
from mlplatform.config_file import ConfigError
from mlplatform.roles import WRITTEN
from mlplatform.tfx_io.parameters import Late, converted


class ServingPusherSpec(component_spec.ComponentSpec):
    """Interface of `ServingPusher`."""

    PARAMETERS = {  # noqa: RUF012 - TFX reads the class attribute
        "models_dir": component_spec.ExecutionParameter(type=str),
        "model_name": component_spec.ExecutionParameter(type=str),
        "servers": component_spec.ExecutionParameter(type=str),
        "timeout_s": component_spec.ExecutionParameter(type=float),
        "keep": component_spec.ExecutionParameter(type=int),
        "ca_file": component_spec.ExecutionParameter(type=str, optional=True),
        "cert_file": component_spec.ExecutionParameter(type=str, optional=True),
        "key_file": component_spec.ExecutionParameter(type=str, optional=True),
        "allow_withdrawn": component_spec.ExecutionParameter(type=int, optional=True),
        "signing_key": component_spec.ExecutionParameter(type=str, optional=True),
    }
    PARAMETER_ROLES = {"models_dir": WRITTEN}  # noqa: RUF012 - the local runner reads it
    INPUTS = {  # noqa: RUF012
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
        "infra_blessing": component_spec.ChannelParameter(
            type=standard_artifacts.InfraBlessing, optional=True
        ),
        "approval": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation, optional=True),
        "dataset": component_spec.ChannelParameter(type=DatasetVersion, optional=True),
    }
    OUTPUTS = {  # noqa: RUF012
        "pushed_model": component_spec.ChannelParameter(type=standard_artifacts.PushedModel),
    }


class ServingPusher(base_component.BaseComponent):
    """Pushes a blessed model to `<models_dir>/<model_name>/<version>/` and sees it serving.

    The version becomes visible in one step, checked by digest. With `servers`, the push is done only when
    each of them has the version AVAILABLE and answers the requests that the model carries for its own
    warm-up; when one cannot, the push is rolled back and the run fails. A model that a blessing refuses fails
    the run with `NotBlessedError`, and the servers keep what they have.
    """

    SPEC_CLASS = ServingPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        model: channel.BaseChannel,
        models_dir: str | Late,
        model_name: str | Late,
        blessing: channel.BaseChannel | None = None,
        infra_blessing: channel.BaseChannel | None = None,
        dataset: channel.BaseChannel | None = None,
        servers: Sequence[str] | Late = (),
        timeout_s: float | Late = 60.0,
        keep: int | Late = 0,
        evaluation: channel.BaseChannel | None = None,
        ca_file: str | Late | None = None,
        cert_file: str | Late | None = None,
        key_file: str | Late | None = None,
        allow_withdrawn: bool | Late = False,
        signing_key: str | Late | None = None,
        approval: channel.BaseChannel | None = None,
    ) -> None:
        """Declare the push.

        Each parameter may be a `RuntimeParameter`; `servers` then is a JSON list.

        Args:
            model: Model, a SavedModel as a trainer exports it.
            models_dir: Folder or URL of all pushed models; `<models_dir>/<model_name>` is a server's base
                path.
            model_name: The model's name.
            blessing: ModelBlessing; without it the quality of the model is not asked for.
            infra_blessing: InfraBlessing; without it its safety is not asked for.
            dataset: DatasetVersion that the model was trained on, for the ledger.
            servers: Addresses of servers that must serve the version: HOST:PORT for gRPC, a URL for REST, or
                `kubernetes://NAMESPACE/SERVICE:PORT`: every ready pod of a service, whose port speaks gRPC.
            timeout_s: Seconds that a server has to load the version.
            keep: How many of the newest versions stay (labelled ones always do); 0 keeps all. Older ones are
                removed when the new one is confirmed.
            evaluation: ModelEvaluation of a ModelValidator, whose figures `mlplatform models` then lists.
            ca_file: PEM file of the authority that signed the servers' certificates.
            cert_file: PEM file of the certificate to show, where servers want one. For gRPC each of the three
                files turns TLS on.
            key_file: PEM file of its key, where `cert_file` does not hold it.
            allow_withdrawn: Push also a model that was rolled back; else such a push fails the run.
            signing_key: PEM file of the private key to sign the version with; default: what
                `$MLPLATFORM_SIGNING_KEY` holds, a path or the PEM text. A signature says that both gates
                blessed the model, so both blessings must be given.
            approval: What an Approval with the same `models_dir` and `model_name` gave: the model that it is
                about is pushed, and no other.

        Raises:
            InvalidModelNameError: `model_name` cannot be a folder that a model server reads.
            ServerAddressError: One of `servers` is not an address.
            ConfigError: `timeout_s` or `keep` is out of range, or a model without blessings is to be signed.
        """
        check_parameters(model_name, servers, timeout_s, keep)
        problems = []
        if signing_key and not (blessing and infra_blessing):
            problems += [
                "signing_key needs blessing and infra_blessing: a signature says that both gates agreed"
            ]
        if key_file and not cert_file:
            problems += [f"key_file is {key_file}: it needs the cert_file that it belongs to"]
        if problems:
            raise ConfigError("ServingPusher", problems)
        super().__init__(
            spec=ServingPusherSpec(
                model=model,
                blessing=blessing,
                infra_blessing=infra_blessing,
                approval=approval,
                evaluation=evaluation,
                dataset=dataset,
                models_dir=converted(models_dir),
                model_name=model_name,
                servers=converted(servers, lambda given: json.dumps(list(given))),
                timeout_s=converted(timeout_s, float),
                keep=converted(keep, int),
                ca_file=converted(ca_file or ""),
                cert_file=converted(cert_file or ""),
                key_file=converted(key_file or ""),
                allow_withdrawn=converted(allow_withdrawn, int),
                signing_key=converted(signing_key or ""),
                pushed_model=channel.Channel(type=standard_artifacts.PushedModel),
            )
        )
