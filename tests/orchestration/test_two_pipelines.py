"""Two pipelines that commit the same version: the second gets the outputs of the first, each by its name."""

import pytest

pytestmark = pytest.mark.e2e


@pytest.fixture
def in_order(monkeypatch):
    """Return a function that sets the order of a node's outputs, which TFX takes from a protobuf map."""
    from tfx.orchestration.portable import outputs_utils

    generate = outputs_utils.generate_output_artifacts

    def set_order(*, is_reversed):
        monkeypatch.setattr(
            outputs_utils,
            "generate_output_artifacts",
            lambda **arguments: dict(sorted(generate(**arguments).items(), reverse=is_reversed)),
        )

    return set_order


def test_under_the_stock_runner_in_whatever_order_its_outputs_are(tmp_path, in_order):
    import ml_metadata
    import versioned
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner

    for name, is_reversed in (("first", False), ("second", True), ("third", False)):
        in_order(is_reversed=is_reversed)
        for _ in range(2):  # the second time from TFX's cache
            pipeline = versioned.create_pipeline(str(tmp_path), name)
            LocalDagRunner().run(pipeline)
    store = ml_metadata.MetadataStore(pipeline.metadata_connection_config)
    executions = store.get_executions()  # a node whose inputs are not there fails, and TFX goes on
    assert len(executions) == 18
    assert {e.last_known_state for e in executions} == {executions[0].COMPLETE, executions[0].CACHED}


def test_under_ours_also_where_another_runner_published_in_another_order(runner, tmp_path):
    import ml_metadata
    import versioned

    pipeline = versioned.create_pipeline(str(tmp_path), "p")
    first = runner.run(pipeline)
    store = ml_metadata.MetadataStore(pipeline.metadata_connection_config)
    [made] = store.get_executions_by_id([first.node("DatasetVersioner").execution_id])
    events = store.get_events_by_execution_ids([made.id])
    artifacts = {a.id: a for a in store.get_artifacts_by_id([e.artifact_id for e in events])}
    contexts = store.get_contexts_by_execution(made.id)
    made.ClearField("id")
    made.name = "the same in another order"
    pairs = [(artifacts[event.artifact_id], event) for event in reversed(events)]
    for _, event in pairs:
        event.ClearField("execution_id")
    store.put_execution(made, pairs, contexts, reuse_context_if_already_exist=True)
    again = runner.run(pipeline)
    assert {node.state for node in again.nodes} == {"cached"}
    assert again.node("Use").inputs == first.node("Use").inputs
