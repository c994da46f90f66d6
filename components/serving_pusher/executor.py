"""Connects the push to TFX: reads the blessings, pushes, says where the model went."""

import json
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import path_utils

from mlplatform.components.serving_pusher.confirm import ServerTls
from mlplatform.components.serving_pusher.errors import NotBlessedError
from mlplatform.components.serving_pusher.metrics import evaluated_metrics
from mlplatform.components.serving_pusher.parameters import check_parameters
from mlplatform.components.serving_pusher.push import push_and_confirm
from mlplatform.registry import ModelStore
from mlplatform.registry.signing import signing_key
from mlplatform.tfx_io.artifacts import fetched, published
from mlplatform.tfx_io.blessings import approved_digest, refusing
from mlplatform.tfx_io.dataset_version import note_use, read_version
from mlplatform.tfx_io.runs import run_id

_GATES, _APPROVAL = ("blessing", "infra_blessing"), "approval"


class Executor(base_executor.BaseExecutor):
    """Pushes the model if its blessings say yes."""

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        name = exec_properties["model_name"]
        servers = json.loads(exec_properties["servers"])
        check_parameters(name, servers, exec_properties["timeout_s"], exec_properties["keep"])
        if refused := refusing(input_dict, (*_GATES, _APPROVAL)):
            raise NotBlessedError(name, refused)

        model = artifact_utils.get_single_instance(input_dict["model"])
        with fetched(model.uri) as folder:
            pushed = push_and_confirm(
                Path(path_utils.serving_model_path(str(folder), path_utils.is_old_model_artifact(model))),
                ModelStore(exec_properties["models_dir"]),
                name,
                servers=servers,
                timeout_s=exec_properties["timeout_s"],
                tls=ServerTls(
                    *(exec_properties.get(name) or "" for name in ("ca_file", "cert_file", "key_file"))
                ),
                keep=exec_properties["keep"],
                why=f"pipeline {self._context.pipeline_info.id}"
                if self._context and self._context.pipeline_info
                else "",
                run=run_id(self._context),
                dataset=_dataset_version(input_dict),
                metrics=_metrics(input_dict),
                allows_withdrawn=bool(exec_properties.get("allow_withdrawn")),
                signing_key=_signing_key(input_dict, exec_properties),
                approved=_approved(input_dict),
            )
        if input_dict.get("dataset"):  # noted once, also where a push was killed before it noted it
            dataset = artifact_utils.get_single_instance(input_dict["dataset"])
            note_use(dataset.uri, "push", f"{name}@{pushed.version.version}", pushed.version.url)
        artifact = artifact_utils.get_single_instance(output_dict["pushed_model"])
        artifact.set_int_custom_property("pushed", 1)
        artifact.set_string_custom_property("pushed_destination", pushed.version.url)
        artifact.set_string_custom_property("pushed_version", str(pushed.version.version))
        facts = {
            "model": name,
            "version": pushed.version.version,
            "path": pushed.version.url,
            "is_new": pushed.is_new,
            "confirmed_by": list(pushed.confirmed_by),
        }
        with published(artifact.uri) as folder:
            (folder / "pushed.json").write_text(json.dumps(facts, indent=2), "utf-8")


def _approved(input_dict: dict[str, list[types.Artifact]]) -> tuple[str, str] | None:
    """Return the model's name and digest that a person agreed to; None where no approval is an input.

    An approval may also stand for the model gate's blessing, as it does for a stock Pusher.
    """
    given = {
        gate: approved_digest(artifact_utils.get_single_instance(input_dict[gate]))
        for gate in (_APPROVAL, _GATES[0])
        if input_dict.get(gate)
    }
    if _APPROVAL in given:
        return given[_APPROVAL] or ("", "")
    return given.get(_GATES[0])


def _dataset_version(input_dict: dict[str, list[types.Artifact]]) -> str:
    if not input_dict.get("dataset"):
        return ""
    facts = read_version(artifact_utils.get_single_uri(input_dict["dataset"]))
    return f"{facts['dataset']}@{facts['version']}"


def _metrics(input_dict: dict[str, list[types.Artifact]]) -> dict[str, float]:
    if not input_dict.get("evaluation"):
        return {}
    with fetched(artifact_utils.get_single_uri(input_dict["evaluation"])) as folder:
        return evaluated_metrics(folder)


def _signing_key(input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any]) -> str:
    """Return the key to sign with; empty where there is none, or not both gates were asked."""
    is_blessed = all(input_dict.get(gate) for gate in _GATES)
    return signing_key(exec_properties.get("signing_key") or "") if is_blessed else ""
