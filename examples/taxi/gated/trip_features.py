"""What TensorFlow Transform does with the raw columns, in training and in serving alike."""

import tensorflow as tf
import tensorflow_transform as tft
import trip_columns


def preprocessing_fn(inputs, custom_config):
    """Turn raw columns into the model's inputs and its label; TFX's Transform calls this.

    Args:
        inputs: Column name to a tensor, shape (batch, 1); sparse where some trips lack it.
        custom_config: `label`: which model it is for.

    Returns:
        Column name to a dense tensor, shape (batch,): float32 for numbers, int64 for all others. `big_tipper`
        is 1 where the tip was more than a fifth of the fare.
    """
    label = custom_config["label"]
    outputs = {}
    for name in trip_columns.numbers(label):
        outputs[name] = tft.scale_to_z_score(tf.cast(_dense(inputs[name]), tf.float32))
    for name in trip_columns.PLACES:
        outputs[name] = tft.bucketize(_dense(inputs[name]), trip_columns.PLACE_BUCKETS)
    for name in trip_columns.WORDS:
        outputs[name] = tft.compute_and_apply_vocabulary(
            _dense(inputs[name]),
            top_k=trip_columns.WORDS_KEPT,
            num_oov_buckets=trip_columns.WORDS_HASHED,
        )
    for name, size in trip_columns.CATEGORIES.items():
        outputs[name] = tf.clip_by_value(tf.cast(_dense(inputs[name]), tf.int64), 0, size - 1)
    fare = tf.cast(_dense(inputs["fare"]), tf.float32)
    tips = tf.cast(_dense(inputs["tips"]), tf.float32)
    outputs[label] = fare if label == "fare" else tf.cast(tips > 0.2 * fare, tf.int64)
    return outputs


def _dense(column):
    """Return a column as a dense tensor, shape (batch,); what is missing is 0 or empty.

    Columns that no trip of the training split lacks are dense already.
    """
    if isinstance(column, tf.SparseTensor):
        missing = "" if column.dtype == tf.string else 0
        shaped = tf.SparseTensor(column.indices, column.values, [column.dense_shape[0], 1])
        column = tf.sparse.to_dense(shaped, missing)
    return tf.squeeze(column, axis=1)
