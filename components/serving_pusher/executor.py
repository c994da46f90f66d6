"""Connects the push to TFX: reads the blessings, pushes, says where the model went."""

import json
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from mlplatform.components.serving_pusher.confirm import ServerTls
from mlplatform.components.serving_pusher.errors import NotBlessedError
from mlplatform.components.serving_pusher.metrics import evaluated_metrics
from mlplatform.components.serving_pusher.push import push_and_confirm
from mlplatform.home import local_path
from mlplatform.registry import ModelStore
from mlplatform.registry.signing import signing_key
from mlplatform.tfx_io.dataset_version import note_use

_GATES = ("blessing", "infra_blessing")


class Executor(base_executor.BaseExecutor):
    """Pushes the model if its blessings say yes."""

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        name = exec_properties["model_name"]
        refused = [
            gate
            for gate in _GATES
            if input_dict.get(gate) and not _is_blessed(artifact_utils.get_single_instance(input_dict[gate]))
        ]
        if refused:
            raise NotBlessedError(name, refused)

        model = artifact_utils.get_single_instance(input_dict["model"])
        serving_dir = path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))
        model_dir = local_path(serving_dir, "the model")
        pushed = push_and_confirm(
            model_dir,
            ModelStore(Path(exec_properties["models_dir"])),
            name,
            servers=json.loads(exec_properties["servers"]),
            timeout_s=exec_properties["timeout_s"],
            tls=ServerTls(
                *(exec_properties.get(name) or "" for name in ("ca_file", "cert_file", "key_file"))
            ),
            keep=exec_properties["keep"],
            why=f"pipeline {self._context.pipeline_info.id}"
            if self._context and self._context.pipeline_info
            else "",
            run=(self._context.pipeline_run_id or "") if self._context else "",
            dataset=_dataset_version(input_dict),
            metrics=_metrics(input_dict),
            allows_withdrawn=bool(exec_properties.get("allow_withdrawn")),
            signing_key=_signing_key(input_dict, exec_properties),
        )
        if input_dict.get("dataset"):  # noted once, also where a push was killed before it noted it
            dataset = artifact_utils.get_single_instance(input_dict["dataset"])
            note_use(dataset.uri, "push", f"{name}@{pushed.version.version}", str(pushed.version.path))
        artifact = artifact_utils.get_single_instance(output_dict["pushed_model"])
        artifact.set_int_custom_property("pushed", 1)
        artifact.set_string_custom_property("pushed_destination", str(pushed.version.path))
        artifact.set_string_custom_property("pushed_version", str(pushed.version.version))
        facts = {
            "model": name,
            "version": pushed.version.version,
            "path": str(pushed.version.path),
            "is_new": pushed.is_new,
            "confirmed_by": list(pushed.confirmed_by),
        }
        io_utils.write_string_file(str(Path(artifact.uri) / "pushed.json"), json.dumps(facts, indent=2))


def _is_blessed(blessing: types.Artifact) -> bool:
    # Both blessings say it so (tfx.components.util.model_utils, which loads every stock component).
    return bool(blessing.get_int_custom_property("blessed") == 1)


def _dataset_version(input_dict: dict[str, list[types.Artifact]]) -> str:
    if not input_dict.get("dataset"):
        return ""
    dataset = artifact_utils.get_single_instance(input_dict["dataset"])
    return f"{dataset.dataset}@{dataset.version}"


def _metrics(input_dict: dict[str, list[types.Artifact]]) -> dict[str, float]:
    if not input_dict.get("evaluation"):
        return {}
    evaluation = artifact_utils.get_single_instance(input_dict["evaluation"])
    return evaluated_metrics(local_path(evaluation.uri, "the evaluation"))


def _signing_key(input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any]) -> str:
    """Return the key to sign with; empty where there is none, or not both gates were asked."""
    is_blessed = all(input_dict.get(gate) for gate in _GATES)
    return signing_key(exec_properties.get("signing_key") or "") if is_blessed else ""
