"""Call a model in process: `in_process.py FOLDER INT8_FOLDER SIGNATURE LITE_SIGNATURE SECONDS INPUTS.npz`.

`INPUTS.npz` holds one row as `plain` (for SIGNATURE, its bytes as uint8 where it takes texts) and as `lite`.
Prints CPU and latency at batch 1 and 32 of the signature as TensorFlow users call it, of the other signature
as they call it and as the server computes it in each of its forms, and the answers.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mlplatform.serving.saved_model import load
from mlplatform.serving.servable import signature_not_found


def measure(call: Callable[[], Any], rows: int, seconds: float) -> dict[str, float]:
    for _ in range(3):
        call()
    taken, cpu, started = [], time.process_time(), time.perf_counter()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        call()
        taken.append(time.perf_counter() - before)
    cpu = time.process_time() - cpu
    return {"cpu_ms": 1000 * cpu / len(taken) / rows, "p50_ms": 1000 * float(np.median(taken))}


def main() -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    folder, int8_folder, name, lite_name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    seconds, inputs = float(sys.argv[5]), np.load(sys.argv[6])
    function = tf.saved_model.load(str(folder)).signatures[name]
    ((alias, spec),) = function.structured_input_signature[1].items()
    found: dict[str, Any] = {}
    for rows in (1, 32):
        if spec.dtype == tf.string:
            batch = tf.constant([inputs["plain"].tobytes()] * rows)
        else:
            batch = tf.constant(np.repeat(inputs["plain"], rows, axis=0))
        found[f"batch {rows}"] = measure(lambda batch=batch: function(**{alias: batch}), rows, seconds)
    found["scores"] = function(**{alias: batch[:1]})["scores"].numpy().ravel().tolist()
    function = tf.saved_model.load(str(folder)).signatures[lite_name]
    one = {next(iter(function.structured_input_signature[1])): tf.constant(inputs["lite"])}
    found["plain call"] = measure(lambda: function(**one), 1, seconds)
    forms = {"SavedModel": folder, "float": folder, "int8": int8_folder}
    for form, path in forms.items():
        servable = load(path, "m", 1, prefers_tflite=form != "SavedModel")
        signature = servable.signature(lite_name, signature_not_found)
        assert signature.engine == ("tensorflow" if form == "SavedModel" else "tflite")
        array = {next(iter(signature.inputs)): inputs["lite"]}
        found[form] = measure(lambda s=signature, array=array: s.run(array), 1, seconds)
        found[f"{form} scores"] = signature.run(array)["scores"].ravel().tolist()
    print("FOUND " + json.dumps(found))


if __name__ == "__main__":
    main()
