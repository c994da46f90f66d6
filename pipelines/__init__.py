"""Per-model pipelines, one folder each."""
