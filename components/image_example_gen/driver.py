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
from mlplatform.components.image_example_gen.errors import SplitsError
from mlplatform.components.image_example_gen.settings import IngestSettings

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
        return _InputProcessor(input_base_uri, splits, range_config)

    def resolve_exec_properties(
        self,
        exec_properties: dict[str, Any],
        pipeline_info: data_types.PipelineInfo,
        component_info: data_types.ComponentInfo,
    ) -> dict[str, Any]:
        """Resolve span and version, fingerprint what they select, and choose the number of shards."""
        resolved: dict[str, Any] = super().resolve_exec_properties(
            exec_properties, pipeline_info, component_info
        )
        settings = IngestSettings.model_validate_json(resolved["settings"])
        base = resolved[standard_component_specs.INPUT_BASE_KEY]
        config = example_gen_pb2.Input()
        proto_utils.json_to_proto(resolved[standard_component_specs.INPUT_CONFIG_KEY], config)
        digest, total_bytes = hashlib.sha256(), 0
        for split in config.splits:
            if settings.layout == "folders":
                found = files.matching(base, split.pattern)
            else:
                found = files.all_below(
                    posixpath.dirname(posixpath.join(base, split.pattern)),
                    root=None if settings.follow_links else base,
                )
            for file in files.stats(found):
                name = posixpath.relpath(file.uri, base)
                line = f"{split.name}\0{name}\0{file.size}\0{file.changed_ns}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
                total_bytes += file.size
        resolved[utils.FINGERPRINT_PROPERTY_NAME] = f"files:{digest.hexdigest()}"
        resolved["settings"] = settings.with_shards_for(total_bytes).model_dump_json()
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


class _InputProcessor(input_processor.FileBasedInputProcessor):
    """Resolves spans and versions; the stock one also looks at every file, and fails at some names."""

    def resolve_span_and_version(self) -> tuple[int, int | None]:
        if not (self._is_match_span or self._is_match_date):
            return 0, None
        try:
            span, version = super().resolve_span_and_version()
        except ValueError as error:  # no such span, spans that differ, a name that is not UTF-8
            raise SplitsError(
                f"the spans in {self._input_base_uri} cannot be told: {error}",
                "Every split needs a span of the same number, and files with names in UTF-8.",
            ) from error
        return span, version

    def get_input_fingerprint(self, span: int, version: int | None) -> str:
        return ""  # the driver takes its own
