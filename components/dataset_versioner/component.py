"""`DatasetVersioner`: what it takes and gives."""

import json
from collections.abc import Sequence
from typing import Any

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel, component_spec, standard_artifacts

from mlplatform.artifacts import DatasetVersion
from mlplatform.components.dataset_versioner import driver, executor
from mlplatform.datasets.line import forgotten_folder
from mlplatform.roles import READ, WRITTEN
from mlplatform.storage.urls import join
from mlplatform.tfx_io.parameters import Late, converted, is_late


class DatasetVersionerSpec(component_spec.ComponentSpec):
    """Interface of `DatasetVersioner`."""

    # A name stands for one thing only in a ComponentSpec: input and parameter have names of their own.
    PARAMETERS = {  # noqa: RUF012 - TFX reads the class attribute
        "dataset_name": component_spec.ExecutionParameter(type=str),
        "store": component_spec.ExecutionParameter(type=str),
        "key": component_spec.ExecutionParameter(type=str),
        "label": component_spec.ExecutionParameter(type=str, optional=True),
        "message": component_spec.ExecutionParameter(type=str, optional=True),
        "training_splits": component_spec.ExecutionParameter(type=str),
        "is_firewall_on": component_spec.ExecutionParameter(type=int),
        "near_duplicates_apart": component_spec.ExecutionParameter(type=int, optional=True),
        "beam_options": component_spec.ExecutionParameter(type=str, optional=True),
        "taxonomy": component_spec.ExecutionParameter(type=str, optional=True),
        # Where the store notes what was erased: part of what a cache knows this node's result by, so that an
        # unchanged run meets what is still in its source.
        "erasures": component_spec.ExecutionParameter(type=str, optional=True),
    }
    PARAMETER_ROLES = {"store": WRITTEN, "erasures": READ, "taxonomy": READ}  # noqa: RUF012 - the local runner reads it
    ENGINE_PARAMETER = "beam_options"
    INPUTS = {  # noqa: RUF012
        "ingested_examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS = {  # noqa: RUF012
        "dataset": component_spec.ChannelParameter(type=DatasetVersion),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
    }


class DatasetVersioner(base_component.BaseComponent):
    """Commits the Examples that it is given as a version of a dataset, and gives that version on.

    The same records in the same splits are the same version, whatever their order, shards and encoding. Then
    the outputs are the artifacts of the run that made the version, and nothing downstream runs again. A
    record that was held out for evaluation in an earlier version and would be trained on now fails the run
    with `SplitFirewallError`, which names it. So does an item that was erased, with `ForgottenRecordError`,
    also where nothing else changed.
    """

    SPEC_CLASS = DatasetVersionerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)
    DRIVER_CLASS = driver.Driver

    def __init__(
        self,
        examples: channel.BaseChannel,
        dataset: str | Late,
        store: str | Late,
        key: Sequence[str] | Late | None = None,
        label: str | Late | None = "label",
        message: str | Late | None = None,
        training_splits: Sequence[str] | Late | None = None,
        is_firewall_on: bool | Late = True,
        near_duplicates_apart: bool | Late = False,
        beam_options: Sequence[str] | Late | None = None,
        taxonomy: str | Late | None = None,
    ) -> None:
        """Declare the commit.

        Each parameter may be a `RuntimeParameter`; those that are lists then are JSON lists.

        Args:
            examples: Examples, as any ExampleGen gives them.
            dataset: The dataset's name.
            store: Folder or fsspec URL of the dataset store.
            key: Features that identify an item, such as `["item_id"]`; None keeps what the version before
                declared. A key that no record has fails the run.
            label: Feature that holds the class, for counts per class.
            message: Why this version is made, for the log.
            training_splits: Splits that are trained on; the items of all others are held out. None keeps what
                the version before declared, `train` for the first.
            is_firewall_on: Fail where an item that was held out once would be trained on.
            near_duplicates_apart: Fail where a photo would be trained on that looks like a held-out one.
            beam_options: Flags of a Beam pipeline that does the commit, such as `["--runner=FlinkRunner"]`,
                for data beyond one machine; none at all runs Beam in this process, None does without Beam.
                A parameter, because the driver has to know the version and TFX gives it no flags.
            taxonomy: Path or URL of the design of the classes, a YAML file, which becomes a part of the
                version; None keeps what the version before declared.
        """
        super().__init__(
            spec=DatasetVersionerSpec(
                ingested_examples=examples,
                dataset_name=dataset,
                store=converted(store),
                key=_json(key),
                label=label,
                message=message,
                training_splits=_json(training_splits),
                is_firewall_on=converted(is_firewall_on, int),
                near_duplicates_apart=converted(near_duplicates_apart, int),
                beam_options=converted(beam_options, _json),
                taxonomy=converted(taxonomy),
                erasures=_erasures(store, dataset),
                dataset=channel.Channel(type=DatasetVersion),
                examples=channel.Channel(type=standard_artifacts.Examples),
            )
        )


def _json(values: Sequence[str] | Late | None) -> Any:
    return values if is_late(values) else json.dumps(None if values is None else list(values))


def _erasures(store: str | Late, dataset: str | Late) -> str | None:
    """Return where the store notes what was erased; None where that is known only at run time."""
    if is_late(store) or is_late(dataset):
        return None
    return join(str(store), forgotten_folder(dataset))
