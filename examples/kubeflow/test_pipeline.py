"""The cluster takes the pipeline: its compiler's checks, and the server's own."""

from pathlib import Path

import yaml
from team_items.pipeline import create_pipeline

from mlplatform.orchestration.kubeflow.compile import compile_pipeline
from mlplatform.testing.kubeflow import submit


def test_the_cluster_takes_it() -> None:
    """With the options that it is run with."""
    options = yaml.safe_load((Path(__file__).parent / "cluster.yaml").read_text())
    pipeline = create_pipeline("s3://bucket/photos", "s3://bucket/team", **options)
    package = compile_pipeline(pipeline, root="s3://bucket/team")
    assert not package.warnings
    submitted = submit(package.text)
    assert set(submitted.spec["root"]["dag"]["tasks"]) >= {"pushed", "ModelTrainer", "ServingPusher"}
