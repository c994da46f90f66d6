"""Rows that are committed as a dataset's version, and a reader of both outputs."""

from pathlib import Path

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.types.standard_artifacts import Examples

from mlplatform.artifacts import DatasetVersion
from mlplatform.components import DatasetVersioner


@component
def Rows(examples: OutputArtifact[Examples]):
    import tensorflow as tf

    examples.split_names = '["train"]'
    split = Path(examples.uri) / "Split-train"
    split.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(split / "data_tfrecord-00000-of-00001.gz"), "GZIP") as writer:
        for row in range(5):
            example = tf.train.Example()
            example.features.feature["id"].bytes_list.value.append(b"item %d" % row)
            writer.write(example.SerializeToString())


@component
def Use(examples: InputArtifact[Examples], dataset: InputArtifact[DatasetVersion]):
    assert (Path(examples.uri) / "Split-train").is_dir()
    assert (Path(dataset.uri) / "version.json").is_file()


def create_pipeline(root, name):
    rows = Rows()
    versioner = DatasetVersioner(
        examples=rows.outputs["examples"], dataset="items", store=f"{root}/store", key=["id"]
    )
    use = Use(examples=versioner.outputs["examples"], dataset=versioner.outputs["dataset"])
    return Pipeline(
        pipeline_name=name,
        pipeline_root=f"{root}/{name}",
        components=[rows, versioner, use],
        metadata_connection_config=metadata.sqlite_metadata_connection_config(f"{root}/mlmd"),
        enable_cache=True,
    )
