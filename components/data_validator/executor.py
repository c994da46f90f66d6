"""Connects the data gate to TFX: reads Examples and schema, writes what was learned, stops the run."""

import dataclasses
import json
import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.example_validator import executor as example_validator
from tfx.components.statistics_gen import executor as statistics_gen
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.components.util import examples_utils
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, writer_utils

from mlplatform import progress
from mlplatform.beam.accounting import check_all_left
from mlplatform.components.data_validator.baseline import (
    BRIGHTNESS_FILE,
    Baseline,
    Version,
    last_accepted,
    read_brightness,
)
from mlplatform.components.data_validator.errors import DataRejectedError
from mlplatform.components.data_validator.policy import Policy
from mlplatform.components.data_validator.report import write_report
from mlplatform.components.data_validator.schema import read_schema
from mlplatform.components.data_validator.validate import Data, Statistics, Validated, measure, validate
from mlplatform.components.data_validator.verdict import Verdict
from mlplatform.config import parse_config
from mlplatform.reports.kept import keep_report
from mlplatform.serving.logged_requests import RequestLogError, log_files
from mlplatform.storage.urls import is_local, join
from mlplatform.taxonomy import Taxonomy
from mlplatform.tfx_io import file_systems  # noqa: F401 - lets `fileio` read object storage
from mlplatform.tfx_io.artifacts import fetched, where_beam_runs
from mlplatform.tfx_io.beam_executor import BeamExecutor
from mlplatform.tfx_io.dataset_version import read_taxonomy_of
from mlplatform.tfx_io.runs import note_verdict, run_id
from mlplatform.waivers import today

SCHEMA_FILE, VERDICT_FILE, REPORT_FILE = "schema.pbtxt", "verdict.json", "report.html"
Artifacts = dict[str, list[types.Artifact]]


class Executor(BeamExecutor):
    """Runs the gate."""

    def Do(  # noqa: N802 - TFX's name
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        version = _version(input_dict)
        statistics = artifact_utils.get_single_uri(output_dict["statistics"])
        schema_source = _schema_source(input_dict, exec_properties)
        with where_beam_runs(self._beam_pipeline_args or (), input_dict, output_dict):
            found = self._validate(input_dict, output_dict, exec_properties, version, schema_source)
            _check_records(found, input_dict, version)
            _write_standard_artifacts(found, input_dict, output_dict)
            _write_verdict_artifact(found, artifact_utils.get_single_instance(output_dict["verdict"]))
            verdict, report = found.verdict, self._kept(found, exec_properties)
            if report:
                reasons = [str(problem) for problem in verdict.blocking]
                note_verdict(
                    exec_properties["reports_dir"],
                    self._context,
                    "DataValidator",
                    is_accepted=verdict.accepted,
                    reasons=reasons,
                    report=report,
                    waivers=verdict.waiver_facts,
                )
            if not verdict.accepted:
                if version is not None:
                    version.record(is_accepted=False, detail=report)
                raise DataRejectedError([str(problem) for problem in verdict.blocking], report, verdict)
        if version is not None:  # now that its statistics lie where the next gate looks for them
            version.record(is_accepted=True, detail=statistics)
        if verdict.warnings:
            progress.report_line(_accepted_with_warnings(verdict, report))

    def _kept(self, found: Validated, exec_properties: dict[str, Any]) -> str:
        """Keep verdict and report where they outlive the run; return the page, empty where none is."""
        if not exec_properties.get("reports_dir"):
            return ""
        kept = keep_report(
            exec_properties["reports_dir"],
            "DataValidator",
            lambda folder: _write_verdict(found, folder),
            run=run_id(self._context),
        )
        return join(kept, REPORT_FILE)

    def _validate(
        self,
        input_dict: Artifacts,
        output_dict: Artifacts,
        exec_properties: dict[str, Any],
        version: Version | None,
        schema_source: str,
    ) -> Validated:
        work_dir = posixpath.join(artifact_utils.get_single_uri(output_dict["verdict"]), "work")
        fileio.makedirs(work_dir)  # where every Beam worker can write
        try:
            with _logs(exec_properties.get("serving_logs") or "") as logs:
                return self._validated(input_dict, exec_properties, version, schema_source, logs, work_dir)
        finally:
            fileio.rmtree(work_dir)

    def _validated(
        self,
        input_dict: Artifacts,
        exec_properties: dict[str, Any],
        version: Version | None,
        schema_source: str,
        logs: Sequence[str],
        work_dir: str,
    ) -> Validated:
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        train_split = exec_properties["train_split"]
        data = Data(
            {
                split: _files(examples, split)
                for split in artifact_utils.decode_split_names(examples.split_names)
            },
            exec_properties["image_feature"],
            exec_properties["label_feature"],
            exec_properties["id_feature"],
            logs,
            json.loads(exec_properties["serving_features"]),
        )

        def measured(folder: str) -> tuple[Statistics, Statistics]:
            """Return the statistics of a version that was checked out, and of its photos' brightness."""
            files = {train_split: [posixpath.join(folder, f"Split-{train_split}", "*")]}
            other = dataclasses.replace(data, files=files, serving_logs=())
            place = posixpath.join(work_dir, "of-baseline")
            fileio.makedirs(place)
            return measure(other, self._make_beam_pipeline, place)[train_split]

        baseline = _given_baseline(input_dict, train_split)
        if baseline is None and version is not None:
            checkout = posixpath.join(work_dir, "baseline")
            baseline = last_accepted(version, train_split, checkout, measured)
        return validate(
            data,
            self._make_beam_pipeline,
            work_dir,
            schema=_given_schema(input_dict, exec_properties),
            schema_source=schema_source,
            baseline=baseline,
            policy=_policy(exec_properties),
            train_split=train_split,
            drift_threshold=exec_properties["drift_threshold"],
            taxonomy=_taxonomy(input_dict),
        )


def _policy(exec_properties: dict[str, Any]) -> Policy:
    """Return the policy of today: a waiver may be over since the pipeline was composed."""
    given = json.loads(exec_properties["policy"])
    return parse_config(Policy, given, source="DataValidator.policy").on(today())


def _version(input_dict: Artifacts) -> Version | None:
    if not input_dict.get("dataset"):
        return None
    return Version.read(artifact_utils.get_single_uri(input_dict["dataset"]))


def _check_records(found: Validated, input_dict: Artifacts, version: Version | None) -> None:
    """Check that the statistics are of as many records as the version has, where the Examples are its own."""
    examples = artifact_utils.get_single_instance(input_dict["examples"])
    if version is None or examples.get_string_custom_property("dataset_version") != version.name:
        return
    for split, records in version.records.items():
        what = f"data validation, split {split} of {version.name}"
        check_all_left(what, records, found.verdict.records.get(split, 0))


def _taxonomy(input_dict: Artifacts) -> Taxonomy | None:
    dataset = input_dict.get("dataset")
    return read_taxonomy_of(artifact_utils.get_single_uri(dataset)) if dataset else None


def _files(examples: types.Artifact, split: str) -> Sequence[str]:
    patterns: list[str] = examples_utils.get_split_file_patterns([examples], split)
    return patterns


@contextmanager
def _logs(folder: str) -> Iterator[Sequence[str]]:
    """Give the files of a request log; those at a URL as copies."""
    if not folder:
        yield ()
    elif is_local(folder):
        yield log_files(folder)
    else:
        try:
            with fetched(folder) as copies:
                yield log_files(str(copies))
        except FileNotFoundError as error:
            raise RequestLogError(folder, "there is nothing") from error


def _schema_source(input_dict: Artifacts, exec_properties: dict[str, Any]) -> str:
    """Return what the schema is, for the verdict."""
    if input_dict.get("curated_schema"):
        return f"the pipeline's schema ({artifact_utils.get_single_uri(input_dict['curated_schema'])})"
    return exec_properties.get("schema_path") or "inferred from the training split"


def _given_schema(input_dict: Artifacts, exec_properties: dict[str, Any]) -> Any:
    if input_dict.get("curated_schema"):
        folder = artifact_utils.get_single_uri(input_dict["curated_schema"])
        return read_schema(io_utils.get_only_uri_in_dir(folder))
    return read_schema(exec_properties["schema_path"]) if exec_properties.get("schema_path") else None


def _given_baseline(input_dict: Artifacts, train_split: str) -> Baseline | None:
    if not input_dict.get("baseline"):
        return None
    artifact = artifact_utils.get_single_instance(input_dict["baseline"])
    statistics = stats_artifact_utils.load_statistics(artifact, train_split).proto()
    brightness = posixpath.join(artifact_utils.get_split_uri([artifact], train_split), BRIGHTNESS_FILE)
    return Baseline("the pipeline's baseline", statistics, read_brightness(brightness))


def _write_standard_artifacts(found: Validated, input_dict: Artifacts, output_dict: Artifacts) -> None:
    """Write statistics, schema and anomalies as stock StatisticsGen, SchemaGen and ExampleValidator do."""
    examples = artifact_utils.get_single_instance(input_dict["examples"])
    statistics = artifact_utils.get_single_instance(output_dict["statistics"])
    anomalies = artifact_utils.get_single_instance(output_dict["anomalies"])
    for artifact in (statistics, anomalies):
        artifact.split_names = examples.split_names
        artifact.span = examples.span
    for split in found.statistics:
        folder = artifact_utils.get_split_uri([statistics], split)
        fileio.makedirs(folder)
        with fileio.open(posixpath.join(folder, statistics_gen.DEFAULT_FILE_NAME), "wb") as file:
            file.write(found.statistics[split].SerializeToString(deterministic=True))
        with fileio.open(posixpath.join(folder, BRIGHTNESS_FILE), "wb") as file:
            file.write(found.brightness[split].SerializeToString(deterministic=True))
        path = posixpath.join(
            artifact_utils.get_split_uri([anomalies], split), example_validator.DEFAULT_FILE_NAME
        )
        writer_utils.write_anomalies(path, found.anomalies[split])
    blessed = {
        split: int(not (some.anomaly_info or some.HasField("dataset_anomaly_info")))
        for split, some in found.anomalies.items()
    }
    anomalies.set_json_value_custom_property(example_validator.ARTIFACT_PROPERTY_BLESSED_KEY, blessed)
    schema_dir = artifact_utils.get_single_uri(output_dict["schema"])
    io_utils.write_pbtxt_file(posixpath.join(schema_dir, SCHEMA_FILE), found.schema)


def _write_verdict_artifact(found: Validated, artifact: types.Artifact) -> None:
    """Write verdict and report to a folder or URL: the page is made as a local file."""
    with tempfile.TemporaryDirectory(prefix="mlplatform-") as folder:
        _write_verdict(found, Path(folder))
        for file in sorted(Path(folder).iterdir()):
            fileio.copy(str(file), posixpath.join(artifact.uri, file.name), overwrite=True)
    artifact.set_int_custom_property("accepted", int(found.verdict.accepted))


def _write_verdict(found: Validated, folder: Path) -> None:
    io_utils.write_string_file(str(folder / VERDICT_FILE), found.verdict.as_json())
    write_report(folder / REPORT_FILE, found)


def _accepted_with_warnings(verdict: Verdict, report: str) -> str:
    """Return one line: what of the accepted data is not as it should be."""
    kinds = [f"{p.kind} of {p.feature}" if p.feature else p.kind for p in verdict.warnings]
    shown = ", ".join(list(dict.fromkeys(kinds))[:4]) + (", ..." if len(set(kinds)) > 4 else "")
    total, waived = len(verdict.warnings), len(verdict.waived)
    where = f": {report}" if report else ""
    of_them = f", {waived} of them waived" if waived else ""
    return f"accepted, with {total} warning{'s' if total > 1 else ''}{of_them} ({shown}){where}"
