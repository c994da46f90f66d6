"""Small Keras models of taxi trips: whether a trip ends with a big tip, and what it costs."""

import keras
import tensorflow as tf
import tensorflow_transform as tft
import trip_columns

BATCH = 64
HIDDEN_UNITS = (64, 32)


def train(task):
    """Fit the model that `hyperparameters` name and export it; ModelTrainer calls this."""
    label, epochs = task.hyperparameters["label"], task.hyperparameters["epochs"]
    transform = tft.TFTransformOutput(str(task.transform_dir))
    model = make_model(label)
    model.fit(
        read(task.train_files, transform, label).shuffle(10_000, seed=1).batch(BATCH),
        epochs=epochs,
        validation_data=read(task.eval_files, transform, label).batch(BATCH),
        verbose=2,
    )
    exported = Exported(model, transform, label)
    tf.saved_model.save(exported, str(task.model_dir), signatures={"serving_default": exported.predict})


def read(files, transform, label):
    """Return pairs of inputs by column and the label."""
    spec = transform.transformed_feature_spec()
    records = tf.data.TFRecordDataset(list(files), compression_type="GZIP")

    def parse(record):
        columns = tf.io.parse_single_example(record, spec)
        answer = columns.pop(label)
        return columns, tf.cast(answer, tf.float32)

    return records.map(parse)


def make_model(label):
    """Return the compiled model: one scalar input per column, one number out, shape (batch, 1)."""
    keras.utils.set_random_seed(1)
    numbers = {name: keras.Input((), name=name) for name in trip_columns.numbers(label)}
    ids = {name: keras.Input((), name=name, dtype="int64") for name in trip_columns.sizes()}
    vectors = [keras.layers.Embedding(size, 8)(ids[name]) for name, size in trip_columns.sizes().items()]
    columns = [keras.layers.Reshape((1,))(column) for column in numbers.values()]
    hidden = keras.layers.concatenate([*columns, *vectors])
    for units in HIDDEN_UNITS:
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
    is_class = label == "big_tipper"
    answer = keras.layers.Dense(1, activation="sigmoid" if is_class else None)(hidden)
    model = keras.Model({**numbers, **ids}, answer)
    loss = "binary_crossentropy" if is_class else "mean_squared_error"
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    return model


class Exported(tf.Module):
    """The model with the transformation in front of it: raw columns in, an answer out."""

    def __init__(self, model, transform, label):
        super().__init__()
        self.model, self._label = model, label
        self.transform = transform.transform_features_layer()
        self._spec = {
            name: kind
            for name, kind in transform.raw_feature_spec().items()
            if name not in trip_columns.ANSWERS[label]
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def predict(self, examples):
        """Answer serialized tf.Examples, which need no label."""
        columns = self.transform(tf.io.parse_example(examples, self._spec))
        columns.pop(self._label, None)
        answer = self.model(columns)
        if self._label == "big_tipper":
            return {"probabilities": tf.concat([1 - answer, answer], axis=1)}
        return {"predictions": answer}
