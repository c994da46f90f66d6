"""Helps teams to test their pipelines."""
