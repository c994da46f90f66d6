"""The stock file-based driver, with a fingerprint that sees every change of the photos."""

import glob
import hashlib
import posixpath
from typing import Any

from tfx.components.example_gen import driver, utils
from tfx.dsl.io import fileio
from tfx.orchestration import data_types
from tfx.proto import example_gen_pb2
from tfx.types import standard_component_specs
from tfx.utils import proto_utils

from mlplatform.components.image_example_gen.settings import IngestSettings


class Driver(driver.FileBasedDriver):
    """Resolves spans and versions as the stock driver does, and takes the names of the files into account.

    The stock fingerprint adds up sizes and whole seconds of modification times: it does not see that a photo
    moved to another class folder. With a listing it sees the listing alone.
    """

    def resolve_exec_properties(
        self,
        exec_properties: dict[str, Any],
        pipeline_info: data_types.PipelineInfo,
        component_info: data_types.ComponentInfo,
    ) -> dict[str, Any]:
        """Resolve span and version, and fingerprint what they select."""
        resolved: dict[str, Any] = super().resolve_exec_properties(
            exec_properties, pipeline_info, component_info
        )
        settings = IngestSettings.model_validate_json(resolved["settings"])
        base = resolved[standard_component_specs.INPUT_BASE_KEY]
        config = example_gen_pb2.Input()
        proto_utils.json_to_proto(resolved[standard_component_specs.INPUT_CONFIG_KEY], config)
        digest = hashlib.sha256()
        for split in config.splits:
            if settings.layout == "folders":
                files = fileio.glob(posixpath.join(glob.escape(base), split.pattern))
            else:
                files = _all_below(posixpath.dirname(posixpath.join(base, split.pattern)))
            for file in sorted(files):
                stat = fileio.stat(file)
                line = f"{split.name}\0{posixpath.relpath(file, base)}\0{stat.length}\0{stat.mtime_nsec}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
        resolved[utils.FINGERPRINT_PROPERTY_NAME] += f"\nfiles:{digest.hexdigest()}"
        return resolved


def _all_below(folder: str) -> list[str]:
    return [posixpath.join(parent, name) for parent, _, names in fileio.walk(folder) for name in names]
