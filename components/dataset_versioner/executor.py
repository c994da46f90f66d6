"""Connects the commit to TFX: commits the input, lays the version out, says which version it is."""

import json
from typing import Any

from tfx import types
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

from mlplatform.components.dataset_versioner.driver import COMMITTED, commit_artifact, is_version
from mlplatform.datasets import DatasetStore
from mlplatform.tfx_io.dataset_version import check_out_into, read_version, version_facts, write_version
from mlplatform.tfx_io.runs import note_dataset_used


class Executor(base_executor.BaseExecutor):
    """Commits the Examples and gives them on as the version that they are."""

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        dataset = artifact_utils.get_single_instance(output_dict["dataset"])
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        source = artifact_utils.get_single_instance(input_dict["ingested_examples"])
        store = DatasetStore(exec_properties["store"])
        if exec_properties.get(COMMITTED):  # by the driver, where there is one
            manifest = store.show(exec_properties["dataset_name"], exec_properties[COMMITTED])
        else:
            manifest = commit_artifact(source, exec_properties).manifest
        # Else the driver gave the outputs of an earlier run, which are this version already.
        if not is_version(read_version(dataset.uri), store, manifest):
            check_out_into(examples.uri, store, manifest)
            write_version(dataset.uri, store, manifest)
        note_dataset_used(version_facts(store, manifest), self._context, "DatasetVersioner")
        examples.split_names = artifact_utils.encode_split_names(sorted(manifest.splits))
        examples_utils.set_payload_format(examples, examples_utils.get_payload_format(source))
        examples.set_string_custom_property("dataset_version", f"{manifest.dataset}@{manifest.version}")
        dataset.set_string_custom_property("dataset", manifest.dataset)
        dataset.set_string_custom_property("version", manifest.version)
        dataset.set_string_custom_property("digest", manifest.digest)
        dataset.set_string_custom_property("records", json.dumps(_records(manifest.splits)))


def _records(splits: dict[str, Any]) -> dict[str, int]:
    return {name: split.records for name, split in splits.items()}
