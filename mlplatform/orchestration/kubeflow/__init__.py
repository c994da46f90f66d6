"""Kubeflow Pipelines: the same pipeline object as a package for a cluster, and what its containers run."""
