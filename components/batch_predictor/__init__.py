"""Predictions for every record of Examples, as a node of a pipeline."""
