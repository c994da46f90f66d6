"""Connects the ingest to TFX: reads the source, writes Examples and rejects."""

import os
import posixpath
from typing import Any

import apache_beam as beam
from tfx import types
from tfx.components.example_gen import base_example_gen_executor, utils, write_split
from tfx.components.util import examples_utils
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2, range_config_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from mlplatform import progress
from mlplatform.beam.accounting import WriteCounts, read_counts
from mlplatform.beam.shards import WriteShards
from mlplatform.components.image_example_gen import entries, files, listing, rejects
from mlplatform.components.image_example_gen.errors import NoEntriesError
from mlplatform.components.image_example_gen.given_splits import check_split_by, require_class_folders
from mlplatform.components.image_example_gen.ingest import Ingested, ingest
from mlplatform.components.image_example_gen.settings import IngestSettings
from mlplatform.components.image_example_gen.spans import resolve
from mlplatform.storage.urls import is_local
from mlplatform.tfx_io.artifacts import where_beam_runs
from mlplatform.tfx_io.beam_executor import BeamExecutor
from mlplatform.tfx_io.runs import note_verdict, run_id

REJECTS_KEY = "rejects"


class Executor(BeamExecutor, base_example_gen_executor.BaseExampleGenExecutor):
    """Runs the ingest on Beam, balances its books and decides whether it may pass."""

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        with where_beam_runs(self._beam_pipeline_args or (), {}, output_dict):
            self._ingest(output_dict, exec_properties)

    def _ingest(self, output_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any]) -> None:
        settings = IngestSettings.of(exec_properties)
        source = _PhotoSource(exec_properties, settings)
        examples = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        rejected = artifact_utils.get_single_instance(output_dict[REJECTS_KEY])
        examples.split_names = artifact_utils.encode_split_names(list(source.splits))
        if source.span is not None:  # where no driver noted it
            examples.span, examples.version = source.span, source.version or 0
        counts_file = posixpath.join(rejected.uri, "counts.json")

        with self._make_beam_pipeline() as pipeline:
            made = source.ingest(pipeline)
            counted = {rejects.ENTRIES: made.entries, rejects.TURNED: made.turned}
            for split, records in made.examples.items():
                folder = artifact_utils.get_split_uri([examples], split)
                prefix = posixpath.join(folder, write_split.DEFAULT_TF_RECORD_FILE_NAME)
                shards = WriteShards(prefix, source.shards)
                written = records | f"WriteExamples[{split}]" >> shards
                counted[rejects.ACCEPTED + split] = written | f"Written[{split}]" >> beam.Values()
            for name, collection in ((rejects.REJECTS, made.rejects), (rejects.WARNINGS, made.warnings)):
                _ = collection | f"Write[{name}]" >> rejects.WriteRejects(posixpath.join(rejected.uri, name))
            _ = counted | "Count" >> WriteCounts(counts_file)

        counts = read_counts(counts_file)
        if source.rows is not None:  # counted before Beam read it
            counts[rejects.ENTRIES] = source.rows
        summary = rejects.summarise(counts, list(source.splits), rejected.uri)
        fileio.remove(counts_file)
        rejects.write_summary(posixpath.join(rejected.uri, rejects.SUMMARY), summary)
        if not summary.entries:
            raise NoEntriesError(source.name, source.looked_for, "nothing")
        refused, odd = (
            rejects.read_rejects(posixpath.join(rejected.uri, name))
            for name in (rejects.REJECTS, rejects.WARNINGS)
        )
        allowed, page = settings.max_reject_fraction, ""
        if settings.reports_dir:
            run = run_id(self._context)
            page = rejects.keep_page(summary, refused, odd, allowed, source.name, settings.reports_dir, run)
            note_verdict(
                settings.reports_dir,
                self._context,
                "ImageExampleGen",
                is_accepted=not rejects.is_too_much(summary, allowed),
                reasons=[f"{reason}: {count}" for reason, count in summary.rejected.items()],
                report=page,
            )
        rejects.check_summary(summary, refused, allowed, source.name, page)
        if refused or odd or summary.turned:
            progress.report_line(rejects.one_line(summary, page))
        rejected.set_int_custom_property("count", summary.rejects)
        examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)

    def GenerateExamplesByBeam(  # noqa: N802 - TFX's name
        self, pipeline: beam.Pipeline, exec_properties: dict[str, Any]
    ) -> dict[str, beam.pvalue.PCollection]:
        """Return the serialized Examples of each split, without their item ids."""
        settings = IngestSettings.of(exec_properties)
        made = _PhotoSource(exec_properties, settings).ingest(pipeline)
        return {
            split: records | f"Values[{split}]" >> beam.Values() for split, records in made.examples.items()
        }

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:  # noqa: N802 - TFX's name
        """Not used: an entry knows its split, so `GenerateExamplesByBeam` makes all splits at once."""
        raise NotImplementedError("ImageExampleGen makes all splits in GenerateExamplesByBeam")


class _PhotoSource:
    """Class folders or a listing, and the splits to make of them.

    Attributes:
        splits: Names and weights of the splits.
        span: The span that is read, and its version; None where there are none, or the driver resolved them.
    """

    def __init__(self, exec_properties: dict[str, Any], settings: IngestSettings) -> None:
        self._settings = settings
        self._base = exec_properties[standard_component_specs.INPUT_BASE_KEY]
        input_config, output_config = example_gen_pb2.Input(), example_gen_pb2.Output()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.INPUT_CONFIG_KEY], input_config)
        proto_utils.json_to_proto(exec_properties[standard_component_specs.OUTPUT_CONFIG_KEY], output_config)
        self.span: int | None = None
        self.version: int | None = None
        if any("{" in split.pattern for split in input_config.splits):  # there was no driver
            self.span, self.version = resolve(self._base, input_config, _range_config(exec_properties))
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
        self._folders: list[entries.ClassFolder] = []
        self._listed: listing.Listing | None = None
        self._look()

    @property
    def rows(self) -> int | None:
        """How many rows the listing has; None for class folders."""
        return self._listed.rows if self._listed else None

    @property
    def shards(self) -> int:
        """How many files each split gets."""
        if self._settings.shards is not None:  # given, or noted by the driver
            return self._settings.shards
        of_all = (files.of_split(self._base, split.pattern, self._settings) for split in self._inputs)
        return self._settings.shards_for(sum(file.size for found in of_all for file in found))

    def _look(self) -> None:
        """Look at the source before any worker does, so that a wrong one is one clear error."""
        if not fileio.isdir(self._base):
            found = "a file of this name" if fileio.exists(self._base) else "no such folder"
            raise NoEntriesError(self._base, self.looked_for, found)
        if self._settings.layout == "listing":
            needed = [listing.PATH, self._settings.label_feature]
            if not self._are_hashed:
                needed.append(listing.SPLIT)
            elif self._settings.split_by != listing.ITEM_ID:
                needed.append(self._settings.split_by)
            self._listed = listing.check_listing(self._listing, tuple(needed))
            return
        self._folders = [
            folder
            for split in self._inputs
            for folder in entries.class_folders(
                self._base, split.pattern, None if self._are_hashed else split.name
            )
        ]
        if not self._folders:
            raise NoEntriesError(self._base, self.looked_for, "no class folders")
        if self._are_hashed:
            check_split_by(self._settings.split_by)
            require_class_folders(folder.uri for folder in self._folders)

    def ingest(self, pipeline: beam.Pipeline) -> Ingested:
        if self._listed is not None:
            found = (
                pipeline
                | "Listing" >> beam.Create([self._listing])
                | "ReadListing" >> beam.ParDo(entries.ReadListing())
                | "ByItemId" >> beam.GroupByKey()
                | "FollowRows"
                >> beam.ParDo(
                    entries.FollowRows(
                        posixpath.dirname(self._listing),
                        self._settings.labels,
                        None if self._are_hashed else list(self.splits),
                        self._settings.split_by,
                        self._listed.kinds,
                        self._settings.label_feature,
                        self._settings.also_feature,
                        leave_out_unlabelled=self._settings.leave_out_unlabelled,
                    )
                ).with_outputs(entries.REJECTED, main="entries")
            )
        else:
            found = (
                pipeline
                | "ClassFolders" >> beam.Create(self._folders)
                | "ListFolders"
                >> beam.ParDo(
                    entries.ListFolder(self._settings.labels, self._settings.split_by)
                ).with_outputs(entries.REJECTED, main="entries")
            )
        is_confined = is_local(self._base) and not self._settings.follow_links
        root = os.path.realpath(self._base) if is_confined else None
        return ingest(found["entries"], found[entries.REJECTED], self._settings, self.splits, root)


def _range_config(exec_properties: dict[str, Any]) -> range_config_pb2.RangeConfig | None:
    given = exec_properties.get(standard_component_specs.RANGE_CONFIG_KEY)
    if not given:
        return None
    config = range_config_pb2.RangeConfig()
    proto_utils.json_to_proto(given, config)
    return config
