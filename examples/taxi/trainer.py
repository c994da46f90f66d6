"""A small Keras model that says whether a trip ends with a big tip."""

import features
import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl.tfxio import dataset_options

BATCH = 64
HIDDEN_UNITS = (100, 50)


def run_fn(fn_args):
    """Fit the model and export it; TFX's Trainer calls this."""
    transform = tft.TFTransformOutput(fn_args.transform_output)
    model = make_model()
    model.fit(
        read(fn_args.train_files, fn_args, transform),
        steps_per_epoch=fn_args.train_steps,
        validation_data=read(fn_args.eval_files, fn_args, transform),
        validation_steps=fn_args.eval_steps,
        verbose=2,
    )
    exported = Exported(model, transform)
    tf.saved_model.save(
        exported,
        fn_args.serving_model_dir,
        signatures={"serving_default": exported.predict, "transform_features": exported.transform_features},
    )


def read(files, fn_args, transform):
    """Return endless batches of (inputs by column, labels of shape (batch, 1))."""
    options = dataset_options.TensorFlowDatasetOptions(
        batch_size=BATCH, label_key=features.LABEL_IN_MODEL, shuffle_seed=1
    )
    schema = transform.transformed_metadata.schema
    return fn_args.data_accessor.tf_dataset_factory(files, options, schema).repeat()


def make_model():
    """Return the compiled model: one scalar input per column, one probability out, shape (batch, 1)."""
    keras.utils.set_random_seed(1)
    numbers = {name: keras.Input((1,), name=name) for name in features.NUMBERS}
    sizes = dict.fromkeys(features.PLACES, features.PLACE_BUCKETS)
    sizes |= dict.fromkeys(features.WORDS, features.WORDS_KEPT + features.WORDS_HASHED)
    sizes |= features.CATEGORIES
    ids = {name: keras.Input((1,), name=name, dtype="int64") for name in sizes}
    vectors = [keras.layers.Flatten()(keras.layers.Embedding(sizes[name], 8)(ids[name])) for name in ids]
    hidden = keras.layers.concatenate([*numbers.values(), *vectors])
    for units in HIDDEN_UNITS:
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
    probability = keras.layers.Dense(1, activation="sigmoid")(hidden)
    model = keras.Model({**numbers, **ids}, probability)
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["binary_accuracy"])
    return model


class Exported(tf.Module):
    """The model with the transformation in front of it."""

    def __init__(self, model, transform):
        super().__init__()
        self.model = model
        self.transform = transform.transform_features_layer()
        self._spec = transform.raw_feature_spec()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def predict(self, examples):
        """Return probabilities, shape (batch, 1), of serialized tf.Examples; they need no label."""
        spec = {name: kind for name, kind in self._spec.items() if name != features.LABEL}
        inputs = self.transform(tf.io.parse_example(examples, spec))
        return {"outputs": self.model(_columns(inputs))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def transform_features(self, examples):
        """Return the model's inputs and the label, for the Evaluator."""
        return self.transform(tf.io.parse_example(examples, self._spec))


def _columns(inputs):
    return {
        name: tf.reshape(value, [-1, 1]) for name, value in inputs.items() if name != features.LABEL_IN_MODEL
    }
