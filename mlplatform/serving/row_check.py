"""Do the rows of a batch influence each other? Where they do, requests must not share runs."""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mlplatform.serving.servable import DEFAULT_SIGNATURE, Servable, Signature
from mlplatform.serving.status import StatusError
from mlplatform.serving.tensors import Array, to_array
from mlplatform.serving.warmup import recorded_requests, zeros

log = logging.getLogger(__name__)

ROWS = 3

# Relative and absolute: kernels add up in another order in a batch, while other rows change an answer more.
IN_FLOAT, IN_BFLOAT16 = (1e-3, 1e-5), (0.1, 0.02)

Inputs = Mapping[str, Array]


def keep_dependent_rows_apart(servable: Servable, *, unless_shown: bool) -> None:
    """Let requests share no runs of the signatures whose rows influence each other.

    Each signature computes a few rows, recorded warm-up requests or else random numbers, alone and as one
    batch.

    Args:
        servable: A loaded version.
        unless_shown: Signatures of which this cannot be found out (those that take texts, without a recorded
            request) may share runs; otherwise they do not.
    """
    for signature in servable.signatures.values():
        if not signature.is_batchable or signature.runs_row_by_row:
            continue
        rows = sample_rows(servable.path, signature)
        is_independent = rows_are_independent(signature, rows) if rows else None
        if is_independent is None:
            is_independent = unless_shown
        if not is_independent:
            signature.keeps_rows = False
            log.info("requests for signature %s of %s share no runs", signature.name, servable.path)


def rows_are_independent(signature: Signature, rows: Sequence[Inputs]) -> bool | None:
    """Say whether each row gets the same answer alone as in a batch; None where a run fails."""
    together = {alias: np.concatenate([row[alias] for row in rows]) for alias in signature.inputs}
    try:
        alone = [signature.run(row) for row in rows]
        batch = signature.run(together)
    except StatusError as error:
        log.debug("signature %s does not take these rows: %s", signature.name, error)
        return None
    tolerance = IN_BFLOAT16 if "bfloat16" in signature.engine else IN_FLOAT
    return all(
        _agree([answer[alias] for answer in alone], batch[alias], *tolerance) for alias in signature.outputs
    )


def _agree(alone: Sequence[Array], batch: Array, relative: float, absolute: float) -> bool:
    if not batch.ndim or any(answer.shape != (1, *batch.shape[1:]) for answer in alone):
        return False
    apart = np.concatenate(alone)
    if apart.shape != batch.shape:
        return False
    if batch.dtype.kind not in "fc" and batch.dtype.name != "bfloat16":
        return bool((apart == batch).all())
    wide = np.complex128 if batch.dtype.kind == "c" else np.float64
    return np.allclose(apart.astype(wide), batch.astype(wide), relative, absolute, equal_nan=True)


def sample_rows(path: Path, signature: Signature) -> list[dict[str, Array]]:
    """Return a few rows of inputs, recorded or random; none where none are known."""
    rows = recorded_rows(path, signature)
    if len(rows) > 1:
        return rows
    random, arrays = np.random.default_rng(0), {}
    for alias, spec in signature.inputs.items():
        empty = zeros(spec, ROWS)
        if empty is None:
            return []
        arrays[alias] = random.uniform(0, 2, empty.shape).astype(empty.dtype)
    return [{alias: array[place : place + 1] for alias, array in arrays.items()} for place in range(ROWS)]


def recorded_rows(path: Path, signature: Signature) -> list[dict[str, Array]]:
    """Return a few single rows of a signature's recorded warm-up requests, where its inputs are batches.

    Requests that cannot be read give none: the warm-up, where it is on, reports them.
    """
    try:
        return list(itertools.islice(_recorded_rows(path, signature), ROWS))
    except StatusError as error:
        log.debug("the recorded requests of %s are of no use: %s", path, error)
        return []


def _recorded_rows(path: Path, signature: Signature) -> Iterator[dict[str, Array]]:
    for entry in recorded_requests(path):
        request = entry.predict_log.request
        is_asked = (request.model_spec.signature_name or DEFAULT_SIGNATURE) == signature.name
        if not entry.HasField("predict_log") or not is_asked or set(request.inputs) != set(signature.inputs):
            continue
        arrays = {alias: to_array(proto, alias) for alias, proto in request.inputs.items()}
        count = min((len(array) if array.ndim else 0 for array in arrays.values()), default=0)
        for n in range(count):
            yield {alias: array[n : n + 1] for alias, array in arrays.items()}
