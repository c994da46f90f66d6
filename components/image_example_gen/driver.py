"""The stock file-based driver, with a fingerprint that sees every change of the photos."""

import hashlib
import posixpath
from collections.abc import Iterable
from typing import Any

from tfx import types
from tfx.components.example_gen import driver, input_processor, utils
from tfx.dsl.components.base import base_driver
from tfx.orchestration import data_types
from tfx.proto import example_gen_pb2, range_config_pb2
from tfx.types import standard_component_specs
from tfx.utils import proto_utils

from mlplatform.components.image_example_gen import files
from mlplatform.components.image_example_gen.settings import SHARDS_KEY, IngestSettings
from mlplatform.components.image_example_gen.spans import InputProcessor

EXAMPLES = standard_component_specs.EXAMPLES_KEY


class Driver(driver.FileBasedDriver):
    """Resolves spans and versions as the stock driver does, and takes the names of the files into account.

    The stock fingerprint adds up sizes and whole seconds of modification times: it does not see that a photo
    moved to another class folder. With a listing it sees the listing alone.
    """

    def get_input_processor(
        self,
        splits: Iterable[example_gen_pb2.Input.Split],
        range_config: range_config_pb2.RangeConfig | None = None,
        input_base_uri: str | None = None,
    ) -> input_processor.InputProcessor:
        """Return a processor that resolves spans and versions, and leaves the fingerprint to us."""
        assert input_base_uri
        return InputProcessor(input_base_uri, splits, range_config)

    def resolve_exec_properties(
        self,
        exec_properties: dict[str, Any],
        pipeline_info: data_types.PipelineInfo,
        component_info: data_types.ComponentInfo,
    ) -> dict[str, Any]:
        """Resolve span and version, fingerprint what they select, and note the number of shards.

        The executor would choose the same number: here the files are looked at anyway.
        """
        resolved: dict[str, Any] = super().resolve_exec_properties(
            exec_properties, pipeline_info, component_info
        )
        settings = IngestSettings.of(resolved)
        base = resolved[standard_component_specs.INPUT_BASE_KEY]
        config = example_gen_pb2.Input()
        proto_utils.json_to_proto(resolved[standard_component_specs.INPUT_CONFIG_KEY], config)
        digest, total_bytes = hashlib.sha256(), 0
        for split in config.splits:
            for file in files.of_split(base, split.pattern, settings):
                name = posixpath.relpath(file.uri, base)
                line = f"{split.name}\0{name}\0{file.size}\0{file.changed_ns}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
                total_bytes += file.size
        resolved[utils.FINGERPRINT_PROPERTY_NAME] = f"files:{digest.hexdigest()}"
        resolved[SHARDS_KEY] = settings.shards_for(total_bytes)
        return resolved

    def _prepare_output_artifacts(
        self, input_artifacts: Any, output_dict: Any, *others: Any, **named: Any
    ) -> dict[str, list[types.Artifact]]:
        """Prepare all outputs for TFX's notebook context; the stock driver knows only the Examples."""
        further = {name: channel for name, channel in output_dict.items() if name != EXAMPLES}
        return {
            **base_driver.BaseDriver._prepare_output_artifacts(
                self, input_artifacts, further, *others, **named
            ),
            **super()._prepare_output_artifacts(input_artifacts, output_dict, *others, **named),
        }
