"""Trains a model from Examples; see README.md."""
