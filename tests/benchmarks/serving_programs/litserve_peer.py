"""The model behind LitServe: `litserve_peer.py PORT FOLDER SIGNATURE INPUT text|numbers`.

Runs in an environment of its own, with LitServe and TensorFlow alone.
"""

import base64
import sys
from typing import Any

import litserve as ls
import numpy as np


class Peer(ls.LitAPI):
    def setup(self, device: str) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.tf, self.name, self.is_text = tf, sys.argv[4], sys.argv[5] == "text"
        self.loaded = tf.saved_model.load(sys.argv[2])
        self.signature = self.loaded.signatures[sys.argv[3]]

    def decode_request(self, request: dict[str, Any]) -> Any:
        raw = base64.b64decode(request["b64"])
        return raw if self.is_text else np.frombuffer(raw, np.uint8).reshape(request["shape"])

    def batch(self, inputs: Any) -> Any:
        return list(inputs) if self.is_text else np.stack(inputs)

    def predict(self, batch: Any) -> Any:
        return self.signature(**{self.name: self.tf.constant(batch)})["scores"].numpy()

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"scores": output.tolist()}


if __name__ == "__main__":
    api = Peer(max_batch_size=32, batch_timeout=0.002)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="error")
