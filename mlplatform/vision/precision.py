"""Computing in bfloat16 on CPUs that have instructions for it: two to three times quicker than float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

_OPTION = "auto_mixed_precision_onednn_bfloat16"
_INSTRUCTIONS = {"amx_bf16", "avx512_bf16"}


def computes_bfloat16(cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether TensorFlow computes here on a CPU with instructions for bfloat16.

    Without them oneDNN emulates bfloat16, slower than float32.

    Args:
        cpu_info: The kernel's description of the CPUs.
    """
    if tf.config.list_physical_devices("GPU"):
        return False
    try:
        lines = cpu_info.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return bool(_INSTRUCTIONS & set(flags))


@contextmanager
def bfloat16() -> Iterator[None]:
    """Let TensorFlow rewrite what is computed within: convolutions in bfloat16, sums in float32.

    A setting of the whole process: what else is computed meanwhile, in other threads, is rewritten too.

    Source: TensorFlow, `tf.config.optimizer.set_experimental_options`, oneDNN's auto mixed precision.
    """
    before = bool(tf.config.optimizer.get_experimental_options().get(_OPTION, False))
    tf.config.optimizer.set_experimental_options({_OPTION: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({_OPTION: before})
