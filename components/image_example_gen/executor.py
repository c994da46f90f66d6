"""Connects the ingest to TFX: reads the source that the driver resolved, writes Examples and rejects."""

import posixpath
from typing import Any

import apache_beam as beam
from tfx import types
from tfx.components.example_gen import base_example_gen_executor, utils, write_split
from tfx.components.util import examples_utils
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from mlplatform.beam.accounting import WriteCounts, read_counts
from mlplatform.beam.shards import WriteShards
from mlplatform.components.image_example_gen import entries, listing, rejects
from mlplatform.components.image_example_gen.errors import NoEntriesError
from mlplatform.components.image_example_gen.ingest import Ingested, ingest
from mlplatform.components.image_example_gen.settings import IngestSettings

REJECTS_KEY, SETTINGS_KEY = "rejects", "settings"


class Executor(base_example_gen_executor.BaseExampleGenExecutor):
    """Runs the ingest on Beam, balances its books and decides whether it may pass."""

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        settings = IngestSettings.model_validate_json(exec_properties[SETTINGS_KEY])
        source = _Source(exec_properties, settings)
        source.check()
        examples = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        rejected = artifact_utils.get_single_instance(output_dict[REJECTS_KEY])
        examples.split_names = artifact_utils.encode_split_names(list(source.splits))
        counts_file = posixpath.join(rejected.uri, "counts.json")

        with self._make_beam_pipeline() as pipeline:
            made = source.ingest(pipeline)
            for split, records in made.examples.items():
                folder = artifact_utils.get_split_uri([examples], split)
                prefix = posixpath.join(folder, write_split.DEFAULT_TF_RECORD_FILE_NAME)
                _ = records | f"WriteExamples[{split}]" >> WriteShards(prefix, settings.shards)
            for name, collection in ((rejects.REJECTS, made.rejects), (rejects.WARNINGS, made.warnings)):
                _ = collection | f"Write[{name}]" >> rejects.WriteRejects(posixpath.join(rejected.uri, name))
            counted = {rejects.ACCEPTED + split: records for split, records in made.examples.items()}
            _ = {rejects.ENTRIES: made.entries, **counted} | "Count" >> WriteCounts(counts_file)

        summary = rejects.summarise(read_counts(counts_file), list(source.splits), rejected.uri)
        fileio.remove(counts_file)
        rejects.write_summary(posixpath.join(rejected.uri, rejects.SUMMARY), summary)
        rejects.check_summary(
            summary,
            rejects.read_rejects(posixpath.join(rejected.uri, rejects.REJECTS)),
            settings.max_reject_fraction,
            source.name,
            source.looked_for,
            settings.reports_dir,
        )
        rejected.count = summary.rejects
        examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)

    def GenerateExamplesByBeam(  # noqa: N802 - TFX's name
        self, pipeline: beam.Pipeline, exec_properties: dict[str, Any]
    ) -> dict[str, beam.pvalue.PCollection]:
        """Return the serialized Examples of each split, without their item ids."""
        settings = IngestSettings.model_validate_json(exec_properties[SETTINGS_KEY])
        made = _Source(exec_properties, settings).ingest(pipeline)
        return {
            split: records | f"Values[{split}]" >> beam.Values() for split, records in made.examples.items()
        }

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:  # noqa: N802 - TFX's name
        """Not used: an entry knows its split, so `GenerateExamplesByBeam` makes all splits at once."""
        raise NotImplementedError("ImageExampleGen makes all splits in GenerateExamplesByBeam")


class _Source:
    """What the driver resolved: class folders or a listing, and the splits to make of them."""

    def __init__(self, exec_properties: dict[str, Any], settings: IngestSettings) -> None:
        self._settings = settings
        self._base = exec_properties[standard_component_specs.INPUT_BASE_KEY]
        input_config, output_config = example_gen_pb2.Input(), example_gen_pb2.Output()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.INPUT_CONFIG_KEY], input_config)
        proto_utils.json_to_proto(exec_properties[standard_component_specs.OUTPUT_CONFIG_KEY], output_config)
        self._inputs = list(input_config.splits)
        weights = {split.name: split.hash_buckets for split in output_config.split_config.splits}
        self._are_hashed = bool(weights)
        self.splits: dict[str, int] = {
            name: weights.get(name, 1)
            for name in utils.generate_output_split_names(input_config, output_config)
        }
        self._listing = posixpath.join(self._base, self._inputs[0].pattern)
        is_listing = settings.layout == "listing"
        self.name = self._listing if is_listing else self._base
        self.looked_for = " and ".join(split.pattern for split in self._inputs)

    def check(self) -> None:
        """Look at the source before any worker does, so that a wrong one is one clear error."""
        if not fileio.isdir(self._base):
            found = "a file of this name" if fileio.exists(self._base) else "no such folder"
            raise NoEntriesError(self._base, self.looked_for, found)
        if self._settings.layout == "listing":
            needed = [*listing.REQUIRED]
            if not self._are_hashed:
                needed.append(listing.SPLIT)
            elif self._settings.split_by != listing.ITEM_ID:
                needed.append(self._settings.split_by)
            listing.check_listing(self._listing, tuple(needed))
        elif not self._folders():
            raise NoEntriesError(self._base, self.looked_for, "no class folders")

    def ingest(self, pipeline: beam.Pipeline) -> Ingested:
        if self._settings.layout == "listing":
            splits = None if self._are_hashed else list(self.splits)
            found = (
                pipeline
                | "Listing" >> beam.Create([self._listing])
                | "ReadListing" >> beam.ParDo(entries.ReadListing())
                | "ByItemId" >> beam.GroupByKey()
                | "FollowRows"
                >> beam.ParDo(
                    entries.FollowRows(posixpath.dirname(self._listing), self._settings.labels, splits)
                ).with_outputs(entries.REJECTED, main="entries")
            )
        else:
            found = (
                pipeline
                | "ClassFolders" >> beam.Create(self._folders())
                | "ListFolders"
                >> beam.ParDo(entries.ListFolder(self._settings.labels)).with_outputs(
                    entries.REJECTED, main="entries"
                )
            )
        return ingest(found["entries"], found[entries.REJECTED], self._settings, self.splits)

    def _folders(self) -> list[entries.ClassFolder]:
        return [
            folder
            for split in self._inputs
            for folder in entries.class_folders(
                self._base, split.pattern, None if self._are_hashed else split.name
            )
        ]
