"""Ingest photos as Examples; what cannot be used is a counted reject with file and reason."""
