"""Decides whether a model is good enough and safe to serve; see README.md."""
