"""`DatasetImporter`: what it takes and gives."""

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel, component_spec, standard_artifacts

from mlplatform.artifacts import DatasetVersion
from mlplatform.components.dataset_importer import driver, executor
from mlplatform.datasets.line import forgotten_folder, is_version_number
from mlplatform.roles import READ, VALUE
from mlplatform.storage.urls import join
from mlplatform.tfx_io.parameters import Late, converted, is_late


class DatasetImporterSpec(component_spec.ComponentSpec):
    """Interface of `DatasetImporter`."""

    PARAMETERS = {  # noqa: RUF012 - TFX reads the class attribute
        "dataset_name": component_spec.ExecutionParameter(type=str),
        "version": component_spec.ExecutionParameter(type=str),
        "store": component_spec.ExecutionParameter(type=str),
        # Where the store notes what was erased: part of what a cache knows this node's result by.
        "erasures": component_spec.ExecutionParameter(type=str, optional=True),
        # Where it notes what is declared for a version later; and for a name that may come to mean another
        # version, the versions and the tags.
        "declared": component_spec.ExecutionParameter(type=str, optional=True),
        "versions": component_spec.ExecutionParameter(type=str, optional=True),
        "tags": component_spec.ExecutionParameter(type=str, optional=True),
    }
    PARAMETER_ROLES = {  # noqa: RUF012 - the local runner reads it
        "store": VALUE,
        "erasures": READ,
        "declared": READ,
        "versions": READ,
        "tags": READ,
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}  # noqa: RUF012
    OUTPUTS = {  # noqa: RUF012
        "dataset": component_spec.ChannelParameter(type=DatasetVersion),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
    }


class DatasetImporter(base_component.BaseComponent):
    """Gives a version of a dataset that is in the store: nothing is ingested, and no version is made.

    Its outputs are those of `DatasetVersioner`, so that the same components follow.
    """

    SPEC_CLASS = DatasetImporterSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)
    DRIVER_CLASS = driver.Driver

    def __init__(self, dataset: str | Late, store: str | Late, version: str | Late = "latest") -> None:
        """Declare the import.

        Each parameter may be a `RuntimeParameter`.

        Args:
            dataset: The dataset's name.
            store: Folder or fsspec URL of the dataset store.
            version: `v3`, a tag, the beginning of a digest, or `latest`: looked up when the pipeline runs.
        """
        is_known = not is_late(store) and not is_late(dataset)
        is_fixed = isinstance(version, str) and is_version_number(version)
        noted = ("declared",) if is_fixed else ("declared", "versions", "tags")
        places = {name: join(str(store), str(dataset), name) for name in noted if is_known}
        super().__init__(
            spec=DatasetImporterSpec(
                dataset_name=dataset,
                version=version,
                store=converted(store),
                erasures=join(str(store), forgotten_folder(str(dataset))) if is_known else None,
                **places,
                dataset=channel.Channel(type=DatasetVersion),
                examples=channel.Channel(type=standard_artifacts.Examples),
            )
        )
