"""Commits the Examples of a pipeline as an immutable dataset version."""
