"""TensorFlow's thread pools and Python's garbage collector, set for serving."""

import gc
import logging

import tensorflow as tf

log = logging.getLogger(__name__)

_NEW_OBJECTS = 50_000  # between two collections of the youngest; Python's own number is 700


def limit_threads(intra_op: int, inter_op: int) -> None:
    """Size TensorFlow's pools; where it has started already (in a notebook, say), they stay as they are."""
    threading = tf.config.threading
    if (
        threading.get_intra_op_parallelism_threads() == intra_op
        and threading.get_inter_op_parallelism_threads() == inter_op
    ):
        return
    try:
        threading.set_intra_op_parallelism_threads(intra_op)
        threading.set_inter_op_parallelism_threads(inter_op)
    except RuntimeError:
        log.info("TensorFlow has started already: its thread pools stay as they are")


def spare_collector() -> None:
    """Take what is loaded by now out of garbage collection.

    TensorFlow alone tracks 300,000 objects; a full collection, which large JSON requests set off, would stop
    every request for a sixth of a second. The small collections come after so many new objects that an image
    as lists of numbers causes one at most. For the process of a server; not for one that does other things.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)
