"""Reads the arrays in a PyTorch weights file (the format of before version 1.6) without PyTorch.

Such a file is three small pickles (magic number, protocol, system facts), the pickled mapping from name to
tensor, a pickled list of storage keys, and then each storage: its length as int64 and its raw values. Pickles
can run code, so this reader knows exactly the four names that a mapping of tensors needs and refuses others.

Source: the layout of `torch.save(..., _use_new_zipfile_serialization=False)`.
"""

import pickle
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.errors import MlplatformError

_MAGIC = 0x1950A86A20F9469CFC6C


class NotTorchWeightsError(MlplatformError):
    """A file is not a PyTorch weights file of the kind that can be read here."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path} is not a PyTorch weights file of the format before version 1.6: {self.reason}."


@dataclass(frozen=True)
class _StorageKind:
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies in its storage; offset and strides count elements."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: _Tensor(
        storage, offset, shape, strides
    ),
    ("torch", "FloatStorage"): _StorageKind(np.dtype("<f4")),
    ("torch", "LongStorage"): _StorageKind(np.dtype("<i8")),
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no mapping of tensors needs")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Sequence[Any]) -> str:
        _, kind, key, *_ = pid
        self.storages[key] = kind.dtype
        return str(key)


def read_torch_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Return every tensor of the file as an array of its own shape, in the file's order.

    Raises:
        NotTorchWeightsError: The file is damaged, of another format, or asks for other code than tensors.
    """
    try:
        with path.open("rb") as file:
            if _Unpickler(file).load() != _MAGIC:
                raise NotTorchWeightsError(str(path), "its first number is another")
            for _ in range(2):  # protocol number and system facts
                _Unpickler(file).load()
            reader = _Unpickler(file)
            tensors = reader.load()
            values = {key: _read_storage(file, reader.storages[key]) for key in _Unpickler(file).load()}
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise NotTorchWeightsError(str(path), str(error)) from error
    return {name: _array(values[tensor.storage], tensor) for name, tensor in tensors.items()}


def _read_storage(file: IO[bytes], dtype: np.dtype[Any]) -> NDArray[Any]:
    length = int(np.frombuffer(file.read(8), "<i8")[0])
    return np.frombuffer(file.read(length * dtype.itemsize), dtype, count=length)


def _array(values: NDArray[Any], tensor: _Tensor) -> NDArray[Any]:
    strides = [stride * values.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides, writeable=False)
