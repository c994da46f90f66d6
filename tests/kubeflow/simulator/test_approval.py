"""Approval on a cluster: the node finds the answer in the root, which a person's machine writes to."""

import threading
from datetime import datetime, timezone
from pathlib import Path

import fsspec
from click.testing import CliRunner

from mlplatform.cli.main import cli
from mlplatform.registry import ModelStore
from mlplatform.registry.approvals import ApprovalRequest, Approvals
from mlplatform.registry.ledger import Ledger
from mlplatform.testing.kubeflow import SimulatedRun, Simulator

PRELOAD = ("tfx.types.standard_artifacts", "mlplatform.components.approval.executor", "fsspec", "s3fs")


def package(root: str) -> str:
    """Compile a pipeline that asks before it pushes a model."""
    from tfx.dsl.components.common.importer import Importer
    from tfx.orchestration.pipeline import Pipeline
    from tfx.types import standard_artifacts

    from mlplatform.components import Approval, ServingPusher
    from mlplatform.orchestration.kubeflow.compile import compile_pipeline

    model = Importer(source_uri=f"{root}/given", artifact_type=standard_artifacts.Model).with_id("model")
    to = {"models_dir": f"{root}/models", "model_name": "items"}
    approval = Approval(model=model.outputs["result"], approvers=["ann", "bob"], poll_s=0.05, **to)
    pusher = ServingPusher(model=model.outputs["result"], approval=approval.outputs["approval"], **to)
    pipeline = Pipeline("approving", f"{root}/pipelines/approving", components=[model, approval, pusher])
    return compile_pipeline(pipeline, root=root, options={"image": "team:1"}).text


def asked(approvals: Approvals, run: threading.Thread) -> ApprovalRequest:
    """Wait until the run asks."""
    while not (waiting := approvals.waiting(datetime.now(timezone.utc))):
        assert run.is_alive(), "the run ended and asked nobody"
        run.join(0.1)
    return waiting[0]


def test_the_answer_is_polled_from_the_root(s3: str, tmp_path: Path) -> None:
    root = f"{s3}/approving"
    fsspec.filesystem("s3").pipe_file(f"{root}/given/Format-Serving/saved_model.pb", b"a model")
    approvals, ended = Approvals(Ledger(f"{root}/ledger")), list[SimulatedRun]()
    with Simulator(f"{root}/pipelines", tmp_path / "cluster", mode="fork", preload=PRELOAD) as simulator:
        text = package(root)
        run = threading.Thread(target=lambda: ended.append(simulator.run(text)))
        run.start()
        request = asked(approvals, run)
        assert (request.node, request.approvers) == ("Approval", ("ann", "bob"))
        assert ModelStore(f"{root}/models").names() == []
        words = ["approve", request.run, "--by", "ann", "--why", "seen it", "--root", root]
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, done.output
        run.join()
    assert ended[0].state == "SUCCEEDED", ended[0].failures()
    assert request.run == ended[0].id
    [version] = ModelStore(f"{root}/models").versions("items")
    assert version.push is not None
    assert version.push.digest == request.digest
