"""TensorFlow Transform inside a node's process."""

import json

import pytest

EXPORT = """
import json, sys
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils
from mlplatform.orchestration.local.patches import tft_in_process

folder = sys.argv[1]
rows = [{"x": float(x), "s": s} for x, s in ((1, "a"), (2, "b"), (3, "a"))]
spec = {"x": tf.io.FixedLenFeature([], tf.float32), "s": tf.io.FixedLenFeature([], tf.string)}
metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))

def preprocessing_fn(inputs):
    return {"x": tft.scale_to_0_1(inputs["x"]), "s": tft.compute_and_apply_vocabulary(inputs["s"])}

with tft_beam.Context(temp_dir=folder + "/temporary"):
    transform_fn = (rows, metadata) | tft_beam.AnalyzeDataset(preprocessing_fn)
    transform_fn | tft_beam.WriteTransformFn(folder + "/transformed")

class Exported(tf.Module):
    def __init__(self):
        super().__init__()
        self.layer = tft.TFTransformOutput(folder + "/transformed").transform_features_layer()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def predict(self, examples):
        inputs = tf.io.parse_example(examples, spec)
        if tf.shape(examples)[0] == 0:  # the user's own code is AutoGraph's to rewrite
            inputs["x"] = inputs["x"] + 1.0
        return self.layer(inputs)

def example(x, s):
    features = {
        "x": tf.train.Feature(float_list=tf.train.FloatList(value=[x])),
        "s": tf.train.Feature(bytes_list=tf.train.BytesList(value=[s])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

def export(name):
    from tensorflow.python.autograph.impl import api
    before = set(api._TRANSPILER._cache._cache)
    module = Exported()
    tf.saved_model.save(module, folder + name, signatures=module.predict)
    loaded = tf.saved_model.load(folder + name).signatures["serving_default"]
    found = loaded(tf.constant([example(3.0, b"b"), example(1.0, b"a")]))
    graph = module.predict.get_concrete_function().graph.as_graph_def()
    return {
        "answers": {key: value.numpy().tolist() for key, value in sorted(found.items())},
        "operations": [node.op for node in graph.node],
        "rewritten": len(set(api._TRANSPILER._cache._cache) - before),
    }

tft_in_process.prepare()
ours = export("/ours")
tft.TransformFeaturesLayer.__call__ = tft.TransformFeaturesLayer.__mro__[1].__call__
print(json.dumps({"ours": ours, "stock": export("/stock")}))
"""


@pytest.mark.e2e
@pytest.mark.slow
def test_a_model_that_is_exported_with_its_transformation_is_the_same_as_stock(warm_python, tmp_path):
    script = tmp_path / "export.py"  # AutoGraph reads source from files only
    script.write_text(EXPORT)
    done = warm_python(script, tmp_path)
    assert done.code == 0, done.err
    found = json.loads(done.out.splitlines()[-1])
    ours, stock = found["ours"], found["stock"]
    assert ours["answers"] == stock["answers"] == {"s": [1, 0], "x": [1.0, 0.0]}
    assert ours["operations"] == stock["operations"]
    assert ours["rewritten"] < stock["rewritten"]
