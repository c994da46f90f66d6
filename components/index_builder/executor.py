"""Connects the build to TFX: artifacts to files, the gate's decision to the run."""

import json
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.util import examples_utils
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import path_utils

from mlplatform.components.index_builder.build import BuildJob, Built, build_index, bundle
from mlplatform.components.index_builder.settings import parse_limits, parse_plan
from mlplatform.files import write_json
from mlplatform.reports.kept import keep_report
from mlplatform.reports.page import write_page
from mlplatform.search.errors import IndexNotGoodEnoughError
from mlplatform.storage.urls import join
from mlplatform.tfx_io import file_systems  # noqa: F401 - lets `fileio` read object storage
from mlplatform.tfx_io.artifacts import where_beam_runs
from mlplatform.tfx_io.beam_executor import BeamExecutor
from mlplatform.tfx_io.dataset_version import read_version
from mlplatform.tfx_io.runs import note_verdict, run_id

_REPORT, _VERDICT = "report.html", "verdict.json"
Artifacts = dict[str, list[types.Artifact]]


class Executor(BeamExecutor):
    """Builds and judges an index."""

    def Do(  # noqa: N802 - TFX's name
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        dataset = (
            read_version(artifact_utils.get_single_uri(input_dict["dataset"]))
            if input_dict.get("dataset")
            else {}
        )
        splits = artifact_utils.decode_split_names(examples.split_names)
        name = exec_properties.get("model_name") or ""
        index = artifact_utils.get_single_instance(output_dict["index"])
        with where_beam_runs(self._beam_pipeline_args or (), input_dict, output_dict):
            model = artifact_utils.get_single_instance(input_dict["base_model"])
            scratch = posixpath.join(index.uri, "work")
            fileio.makedirs(scratch)
            job = BuildJob(
                files={split: examples_utils.get_split_file_patterns([examples], split) for split in splits},
                query_splits=json.loads(exec_properties["query_splits"]),
                model_dir=Path(path_utils.serving_model_path(model.uri)),
                records=sum(about["records"] for about in dataset["splits"].values()) if dataset else None,
                plan=parse_plan(json.loads(exec_properties["plan"])),
                limits=parse_limits(json.loads(exec_properties["thresholds"])),
                columns=json.loads(exec_properties["columns"]),
                dataset=f"{dataset['dataset']}@{dataset['version']}" if dataset else "",
                models_dir=exec_properties.get("models_dir") or "",
                model_name=name,
                cache=exec_properties.get("work_dir") or posixpath.join(scratch, "vectors"),
                scratch=scratch,
            )
            written = Path(scratch) / "index"
            built = build_index(job, self._make_beam_pipeline, written)
            page = self._keep(built, name or "index", exec_properties.get("reports_dir") or "")
            if built.reasons:
                raise IndexNotGoodEnoughError([*built.reasons, *([f"see {page}"] if page else [])])
            target = artifact_utils.get_single_uri(output_dict["model"])
            bundle(job.model_dir, written, Path(path_utils.serving_model_dir(target)))
            for file in sorted(written.iterdir()):
                file.rename(Path(index.uri) / file.name)
            fileio.rmtree(scratch)
        manifest = built.index.manifest
        index.set_int_custom_property("items", manifest.entries)
        index.set_int_custom_property("dimensions", manifest.dimensions)
        index.set_string_custom_property("kind", manifest.kind)
        index.set_string_custom_property("fingerprint", manifest.fingerprint)

    def _keep(self, built: Built, title: str, reports_dir: str) -> str:
        """Keep verdict and page where they outlive the run; return the page, empty where none is kept."""
        if not reports_dir:
            return ""
        facts = {"accepted": not built.reasons, **_facts(built)}

        def write(folder: Path) -> None:
            write_json(folder / _VERDICT, {"reasons": built.reasons, **facts})
            write_page(
                folder / _REPORT,
                "search_index.html",
                title=title,
                reasons=built.reasons,
                tables=_tables(facts),
            )

        page = join(keep_report(reports_dir, "IndexBuilder", write, run=run_id(self._context)), _REPORT)
        note_verdict(
            reports_dir,
            self._context,
            "IndexBuilder",
            is_accepted=not built.reasons,
            reasons=built.reasons,
            report=page,
        )
        return page


def _facts(built: Built) -> dict[str, Any]:
    manifest = built.index.manifest
    return {
        "index": {
            "kind": manifest.kind,
            "items": manifest.entries,
            "dimensions": manifest.dimensions,
            **manifest.parameters,
            "embedding": manifest.fingerprint[:16],
            "dataset": manifest.dataset,
            "library": manifest.library,
        },
        "records": {**manifest.counts.model_dump(), "embedded": built.embedded},
        "measured": manifest.report,
    }


def _tables(facts: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    titles = {"index": "Index", "records": "Records", "measured": "Measured"}
    tables = [(title, _rows(facts[key])) for key, title in titles.items()]
    for key, title in (("by_label", "Recall at 10 by class"), ("filtered", "Recall at 10 under filters")):
        parts = facts["measured"].get(key) or {}
        if parts:
            tables.append((title, [(name, f"{part['recall_at_10']:.4f}") for name, part in parts.items()]))
    return tables


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else f"{value:,}")
        if isinstance(value, int | float)
        else (name.replace("_", " "), str(value))
        for name, value in values.items()
        if not isinstance(value, dict | list)
    ]
