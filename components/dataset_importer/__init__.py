"""Gives a stored dataset version as the Examples of a pipeline."""
