"""Gives the outputs of an earlier run again where the version is not new, so that nothing downstream runs
again.

TFX decides by the identity of its input artifacts whether a node has to run. Its launcher lets a driver name
the output artifacts before it looks into its cache, and publishes them as they are: an artifact that has an
id stays the same artifact. Source: `tfx/orchestration/portable/launcher.py` and `merge_utils.py`, TFX 1.16
and 1.21.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.components.base import base_driver
from tfx.orchestration.portable import base_driver as ir_base_driver
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils

from mlplatform.artifacts import DatasetVersion
from mlplatform.datasets import DatasetStore, Manifest
from mlplatform.errors import MlplatformError
from mlplatform.storage import open_storage
from mlplatform.storage.urls import absolute, parent
from mlplatform.storage.urls import name as name_of
from mlplatform.taxonomy import TaxonomyError
from mlplatform.tfx_io.dataset_version import read_version

OUTPUTS = ("dataset", "examples")
# Exec properties by which the executor learns what happened here.
COMMITTED = "committed_digest"
REFUSED = "refused"


class Driver(base_driver.BaseDriver, ir_base_driver.BaseDriver):
    """Commits, and looks for the artifacts of an earlier run that hold the same version."""

    def __init__(self, metadata_handle: Any) -> None:
        base_driver.BaseDriver.__init__(self, metadata_handle)
        ir_base_driver.BaseDriver.__init__(self, metadata_handle)

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        result = driver_output_pb2.DriverOutput()
        examples = artifact_utils.get_single_instance(execution_info.input_dict["ingested_examples"])
        properties = execution_info.exec_properties
        try:
            committed = commit_artifact(examples, properties)
        except (MlplatformError, OSError) as error:
            logging.info("The executor will meet and report this: %s", error)
            # Part of the key of TFX's cache: without it, the outputs of an earlier run on this input would
            # stand, also where some of its records were forgotten since.
            result.exec_properties[REFUSED].string_value = str(error)
            return result
        result.exec_properties[COMMITTED].string_value = committed.manifest.digest
        if committed.is_new:
            return result
        with self._mlmd_connection as handle:
            earlier = _earlier_outputs(
                handle.store,
                properties["store"],
                committed.manifest,
                examples.id,
            )
        for key, artifact in sorted((earlier or {}).items(), key=lambda one: one[1].id):
            result.output_artifacts[key].artifacts.append(artifact)
            # The launcher publishes in the order of this dictionary, which a protobuf map leaves to chance,
            # and TFX's cache later pairs the events with the artifacts sorted by id: in another order, it
            # would exchange the outputs.
            execution_info.output_dict[key] = execution_info.output_dict.pop(key)
        return result


def commit_artifact(examples: Any, properties: dict[str, Any]) -> Any:
    """Commit an Examples artifact as the exec properties say; quick where its files were committed before."""
    beam_options = properties.get("beam_options")
    return DatasetStore(properties["store"]).commit(
        properties["dataset_name"],
        examples.uri,
        key=json.loads(properties["key"]),
        label=properties.get("label"),
        message=properties.get("message") or "",
        training_splits=json.loads(properties["training_splits"]),
        is_firewall_on=bool(properties["is_firewall_on"]),
        near_duplicates_apart=bool(properties.get("near_duplicates_apart")),
        beam_options=None if beam_options is None else json.loads(beam_options),
        taxonomy=_taxonomy(properties.get("taxonomy")),
    )


def _taxonomy(place: str | None) -> str | None:
    """Return the text of a taxonomy at a path or URL; None where none is named."""
    if not place:
        return None
    folder, name = parent(absolute(place)), name_of(absolute(place))
    try:
        return open_storage(folder).read(name).decode("utf-8")
    except (OSError, ValueError) as error:
        raise TaxonomyError(place, [f"cannot read it: {error}"]) from error


def _earlier_outputs(
    mlmd: Any, store: str, manifest: Manifest, input_id: int
) -> dict[str, metadata_store_pb2.Artifact] | None:
    """Find the newest complete pair of outputs with this version.

    Returns None where there is none, or where it was made from the very same input: then TFX's own cache
    serves.
    """
    of = DatasetStore(store)
    for artifact in sorted(
        mlmd.get_artifacts_by_type(DatasetVersion.TYPE_NAME), key=lambda artifact: -artifact.id
    ):
        if (
            artifact.state != metadata_store_pb2.Artifact.LIVE
            or artifact.custom_properties["digest"].string_value != manifest.digest  # spares a look at each
            or not is_version(read_version(artifact.uri), of, manifest)
        ):
            continue
        events = mlmd.get_events_by_artifact_ids([artifact.id])
        made_by = min(event.execution_id for event in events if event.type == metadata_store_pb2.Event.OUTPUT)
        events = mlmd.get_events_by_execution_ids([made_by])
        if any(
            event.type == metadata_store_pb2.Event.INPUT and event.artifact_id == input_id for event in events
        ):
            return None
        outputs = {
            event.path.steps[0].key: event.artifact_id
            for event in events
            if event.type == metadata_store_pb2.Event.OUTPUT
        }
        if set(outputs) != set(OUTPUTS):
            continue
        found = {found.id: found for found in mlmd.get_artifacts_by_id(list(outputs.values()))}
        earlier = {key: found[number] for key, number in outputs.items()}
        if all(one.state == metadata_store_pb2.Artifact.LIVE for one in earlier.values()) and _is_whole(
            earlier["examples"].uri, artifact.uri
        ):
            return earlier
    return None


def is_version(facts: Mapping[str, Any], store: DatasetStore, manifest: Manifest) -> bool:
    """Return whether the facts of a `version.json` are those of a version in a store, taxonomy included."""
    found = (facts.get("store"), facts.get("dataset"), facts.get("digest"), facts.get("taxonomy", ""))
    return found == (store.url, manifest.dataset, manifest.digest, manifest.taxonomy)


def _is_whole(examples: str, dataset: str) -> bool:
    """Return whether the folders hold what `version.json` says: every split, and every shard of each."""
    there = open_storage(examples).paths("")
    for split in read_version(dataset)["splits"]:
        shards = [name for name in there if name.startswith(f"Split-{split}/data_tfrecord-")]
        counts = {name.rpartition("-of-")[2][:5] for name in shards}
        if len(counts) != 1 or len(shards) != int(counts.pop()):
            return False
    return True
