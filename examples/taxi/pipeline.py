"""A tabular pipeline of stock TFX components only: taxi trips in, a pushed model out."""

import os
from pathlib import Path

import tensorflow_model_analysis as tfma
from tfx import v1 as tfx

HERE = Path(__file__).parent
NAME = "taxi"


def create_pipeline(data, root, train_steps=500, eval_steps=50, min_accuracy=0.6):
    """Compose the pipeline.

    Args:
        data: Folder with CSV files of trips.
        root: Folder for artifacts, ML Metadata and pushed models.
        train_steps: Batches to train on.
        eval_steps: Batches to validate on while training.
        min_accuracy: Lowest accuracy of a model that is pushed.
    """
    root = Path(root).absolute()
    examples = tfx.components.CsvExampleGen(input_base=os.path.abspath(data))  # noqa: PTH100 - data may be a URL
    statistics = tfx.components.StatisticsGen(examples=examples.outputs["examples"])
    schema = tfx.components.SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=False)
    check = tfx.components.ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"]
    )
    transform = tfx.components.Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        module_file=str(HERE / "preprocessing.py"),
    )
    trainer = tfx.components.Trainer(
        module_file=str(HERE / "trainer.py"),
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema.outputs["schema"],
        train_args=tfx.proto.TrainArgs(num_steps=train_steps),
        eval_args=tfx.proto.EvalArgs(num_steps=eval_steps),
    )
    blessed = tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.LatestBlessedModelStrategy,
        model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
        model_blessing=tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
    ).with_id("latest_blessed_model")
    evaluator = tfx.components.Evaluator(
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
        baseline_model=blessed.outputs["model"],
        eval_config=evaluation(min_accuracy),
    )
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(root / "models" / NAME))
        ),
    )
    return tfx.dsl.Pipeline(
        pipeline_name=NAME,
        pipeline_root=str(root / "pipelines" / NAME),
        components=[examples, statistics, schema, check, transform, trainer, blessed, evaluator, pusher],
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(root / "metadata" / "metadata.sqlite")
        ),
        beam_pipeline_args=["--direct_running_mode=in_memory", "--direct_num_workers=1"],
        enable_cache=True,
    )


def evaluation(min_accuracy):
    """Return what the Evaluator measures, and what it asks of a model."""
    threshold = tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(lower_bound={"value": min_accuracy}),
        change_threshold=tfma.GenericChangeThreshold(
            direction=tfma.MetricDirection.HIGHER_IS_BETTER, absolute={"value": -0.02}
        ),
    )
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                signature_name="serving_default",
                label_key="is_big_tip",
                preprocessing_function_names=["transform_features"],
            )
        ],
        slicing_specs=[tfma.SlicingSpec()],
        metrics_specs=[
            tfma.MetricsSpec(metrics=[tfma.MetricConfig(class_name="BinaryAccuracy", threshold=threshold)])
        ],
    )
