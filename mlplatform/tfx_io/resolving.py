"""A resolver strategy for TFX's Resolver, beside TFX's own: the model that was pushed last."""

from typing import Any

from tfx.dsl.components.common import resolver
from tfx.types import standard_artifacts


class LatestPushedModelStrategy(resolver.ResolverStrategy):
    """Gives the newest model of which the pipeline has pushed a copy: what to warm-start a training from.

    ```python
    pushed = Resolver(
        strategy_class=LatestPushedModelStrategy,
        model=Channel(type=Model),
        pushed_model=Channel(type=PushedModel),
    ).with_id("pushed")
    ModelTrainer(..., base_model=pushed.outputs["model"])
    ```

    On one machine it asks ML Metadata, on Kubeflow the ledger of the root; there, a model that was rolled
    back since is skipped.
    """

    def resolve_artifacts(self, store: Any, input_dict: dict[str, list[Any]]) -> dict[str, list[Any]] | None:
        """Return the newest pushed model, and the model that it is a copy of.

        Args:
            store: ML Metadata.
            input_dict: All models and all pushed models of the pipeline.
        """
        from ml_metadata.proto import metadata_store_pb2

        pushed = {
            one.id: (key, one)
            for key, some in input_dict.items()
            for one in some
            if isinstance(one, standard_artifacts.PushedModel)
        }
        models = {
            one.id: (key, one)
            for key, some in input_dict.items()
            for one in some
            if isinstance(one, standard_artifacts.Model)
        }
        outputs = (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.DECLARED_OUTPUT)
        for newest in sorted(pushed, reverse=True):
            made = {e.execution_id for e in store.get_events_by_artifact_ids([newest]) if e.type in outputs}
            taken = store.get_events_by_execution_ids(made) if made else []
            for event in taken:
                if event.artifact_id in models and event.type not in outputs:
                    found = {key: [one] for key, one in (models[event.artifact_id], pushed[newest])}
                    return {key: found.get(key, []) for key in input_dict}
        return {key: [] for key in input_dict}
