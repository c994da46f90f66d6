"""Running pipelines: on this machine (`local`)."""
