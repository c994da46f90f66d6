"""Call a model in process at batch 32, on demand: `floor.py FOLDER SIGNATURE INPUTS.npz`.

Each line on stdin is a number of seconds; a line `FLOOR` with the CPU milliseconds per row answers it. So the
benchmark measures the floor in turns with the server, and the machine's drift falls on both.
"""

import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

ROWS = 32


def main() -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    function = tf.saved_model.load(str(Path(sys.argv[1]))).signatures[sys.argv[2]]
    plain = np.load(sys.argv[3])["plain"]
    ((alias, spec),) = function.structured_input_signature[1].items()
    if spec.dtype == tf.string:
        batch = tf.constant([plain.tobytes()] * ROWS)
    else:
        batch = tf.constant(np.repeat(plain, ROWS, axis=0))
    for _ in range(3):
        function(**{alias: batch})
    print("READY", flush=True)
    for line in sys.stdin:
        calls, cpu, until = 0, time.process_time(), time.perf_counter() + float(line)
        while time.perf_counter() < until:
            function(**{alias: batch})
            calls += 1
        print(f"FLOOR {1000 * (time.process_time() - cpu) / calls / ROWS}", flush=True)


if __name__ == "__main__":
    main()
