"""What TensorFlow Transform does with the raw columns, in training and in serving alike."""

import features
import tensorflow as tf
import tensorflow_transform as tft


def preprocessing_fn(inputs):
    """Turn raw columns into the model's inputs; TFX's Transform calls this.

    Args:
        inputs: Column name to a sparse tensor, shape (batch, at most 1).

    Returns:
        Column name to a dense tensor, shape (batch,): float32 for numbers, int64 for all others.
    """
    outputs = {}
    for name in features.NUMBERS:
        outputs[name] = tft.scale_to_z_score(tf.cast(_dense(inputs[name]), tf.float32))
    for name in features.PLACES:
        outputs[name] = tft.bucketize(_dense(inputs[name]), features.PLACE_BUCKETS)
    for name in features.WORDS:
        outputs[name] = tft.compute_and_apply_vocabulary(
            _dense(inputs[name]), top_k=features.WORDS_KEPT, num_oov_buckets=features.WORDS_HASHED
        )
    for name in features.CATEGORIES:
        outputs[name] = _dense(inputs[name])
    fare = tf.cast(_dense(inputs[features.FARE]), tf.float32)
    tips = tf.cast(_dense(inputs[features.LABEL]), tf.float32)
    outputs[features.LABEL_IN_MODEL] = tf.cast(tips > 0.2 * fare, tf.int64)
    return outputs


def _dense(column):
    """Return a column as a dense tensor; what is missing is 0 or empty."""
    missing = "" if column.dtype == tf.string else 0
    shaped = tf.SparseTensor(column.indices, column.values, [column.dense_shape[0], 1])
    return tf.squeeze(tf.sparse.to_dense(shaped, missing), axis=1)
