"""Connects the import to TFX: checks the version out, says which version it is."""

import json
from typing import Any

from tfx import types
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_executor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils

from mlplatform.components.dataset_importer.driver import DIGEST
from mlplatform.datasets import DatasetStore
from mlplatform.tfx_io.dataset_version import check_out_into, version_facts, write_version
from mlplatform.tfx_io.runs import note_dataset_used


class Executor(base_executor.BaseExecutor):
    """Gives a stored version."""

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        dataset = artifact_utils.get_single_instance(output_dict["dataset"])
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        store = DatasetStore(exec_properties["store"])
        # The driver's choice, where there is one.
        version = exec_properties.get(DIGEST) or exec_properties["version"]
        manifest = store.show(exec_properties["dataset_name"], version)
        check_out_into(examples.uri, store, manifest)
        write_version(dataset.uri, store, manifest)
        note_dataset_used(version_facts(store, manifest), self._context, "DatasetImporter")
        examples.split_names = artifact_utils.encode_split_names(sorted(manifest.splits))
        examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
        examples.set_string_custom_property("dataset_version", f"{manifest.dataset}@{manifest.version}")
        dataset.set_string_custom_property("dataset", manifest.dataset)
        dataset.set_string_custom_property("version", manifest.version)
        dataset.set_string_custom_property("digest", manifest.digest)
        records = {name: split.records for name, split in manifest.splits.items()}
        dataset.set_string_custom_property("records", json.dumps(records))
