"""Which span and version of a source to read, where its patterns hold `{SPAN}`, a date or `{VERSION}`."""

from tfx.components.example_gen import input_processor
from tfx.proto import example_gen_pb2, range_config_pb2

from mlplatform.components.image_example_gen.errors import SplitsError


class InputProcessor(input_processor.FileBasedInputProcessor):
    """Resolves spans and versions; the stock one also looks at every file, and fails at some names."""

    def resolve_span_and_version(self) -> tuple[int, int | None]:
        if not (self._is_match_span or self._is_match_date):
            return 0, None
        try:
            span, version = super().resolve_span_and_version()
        except ValueError as error:  # no such span, spans that differ, a name that is not UTF-8
            raise SplitsError(
                f"the spans in {self._input_base_uri} cannot be listed: {error}",
                "Every split needs a span of the same number, and files with names in UTF-8.",
            ) from error
        return span, version

    def get_input_fingerprint(self, span: int, version: int | None) -> str:
        return ""  # the driver takes its own


def resolve(
    input_base: str, inputs: example_gen_pb2.Input, range_config: range_config_pb2.RangeConfig | None
) -> tuple[int, int | None]:
    """Put the span and version to read into the patterns of `inputs`, and return them.

    Raises:
        SplitsError: There are none, or they differ between the splits.
    """
    processor = InputProcessor(input_base, inputs.splits, range_config)
    span, version = processor.resolve_span_and_version()
    for split in inputs.splits:
        split.pattern = processor.get_pattern_for_span_version(split.pattern, span, version)
    return span, version
