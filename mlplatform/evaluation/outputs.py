"""Finds a kind's answer among the outputs of a signature."""

from collections.abc import Sequence

import numpy as np

from mlplatform.evaluation.errors import UnreadableAnswerError
from mlplatform.evaluation.kind import Array, Outputs


def described(outputs: Outputs) -> str:
    """Return what outputs there are: names, types and shapes of a record."""
    words = [f"{name!r} ({_form(array)})" for name, array in sorted(outputs.items())]
    return (
        f"found {', '.join(words[:6])}{' and more' if len(words) > 6 else ''}" if words else "found no output"
    )


def _form(array: Array) -> str:
    kind = array.dtype.name if is_number(array) else "string"
    return f"{kind} {[*array.shape[1:]]}" if array.ndim else f"one {kind} for the whole batch"


def is_number(array: Array) -> bool:
    """It holds numbers."""
    return array.dtype.kind in "fiub"


def numbers(outputs: Outputs, kind: str, names: Sequence[str], output: str | None) -> tuple[str, Array]:
    """Return the output that holds the answer as numbers.

    Args:
        outputs: The signature's outputs.
        kind: What the answer should be, for the error.
        names: Names that it may have, the first that is there; else the only output with floats is taken.
        output: Its name where that is known; None finds it.

    Raises:
        UnreadableAnswerError: None or several can be meant.
    """
    if output is not None:
        if output not in outputs or not is_number(outputs[output]):
            raise UnreadableAnswerError(
                kind,
                f"output {output!r} is not there with numbers; {described(outputs)}",
                "Correct `output`.",
            )
        return output, outputs[output]
    for name in names:
        if name in outputs and is_number(outputs[name]) and outputs[name].ndim:
            return name, outputs[name]
    floats = [name for name, array in outputs.items() if array.dtype.kind == "f" and array.ndim]
    if len(floats) != 1:
        remedy = (
            f"Name the output {' or '.join(repr(name) for name in names)} in the signature, or give "
            "ModelValidator its name as `output`."
        )
        raise UnreadableAnswerError(kind, described(outputs), remedy)
    return floats[0], outputs[floats[0]]


def column(array: Array, kind: str, name: str) -> Array:
    """Return one number per record as shape [n].

    Raises:
        UnreadableAnswerError: There are several per record.
    """
    if array.size != len(array):
        raise UnreadableAnswerError(
            kind,
            f"output {name!r} has {array.size // max(len(array), 1)} numbers per record",
            "It must have one; is `kind` right?",
        )
    return array.reshape(-1)


def softmax(logits: Array) -> Array:
    """Return probabilities of each row's logits."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def sigmoid(logits: Array) -> Array:
    """Return the probability of each logit."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))
