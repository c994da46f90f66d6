"""Which engine computes a signature: measured when a version is loaded, never slower than the SavedModel."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mlplatform.serving.row_check import recorded_rows
from mlplatform.serving.servable import Choose, Signature
from mlplatform.serving.status import StatusError
from mlplatform.serving.tensors import Array
from mlplatform.serving.warmup import zeros

log = logging.getLogger(__name__)

BATCH = 8  # rows of a shared run, where requests share runs
WARM_UP_CALLS, ROUNDS = 2, 7
MAX_COST = 0.9  # of the SavedModel's: other answers, however near, need a reason

Inputs = Mapping[str, Array]


def by_cost(path: Path, *, shares_runs: bool, clock: Callable[[], float] = time.perf_counter) -> Choose:
    """Return what picks the cheapest engine of each signature of the version in `path`.

    They compute the first recorded warm-up request of the signature, else zeros. Signatures that take texts
    and have no recorded request stay with the SavedModel.

    Args:
        path: The version's folder.
        shares_runs: Requests share runs: an engine must not cost more per row of a batch either.
        clock: Returns seconds.
    """

    def choose(reference: Signature, candidates: Sequence[Signature]) -> Signature:
        inputs = _sample(path, reference)
        if inputs is None:
            log.info("signature %s of %s stays with TensorFlow: no request to measure", reference.name, path)
            return reference
        batches = [inputs]
        if shares_runs and reference.is_batchable:
            batches.append({alias: np.repeat(array, BATCH, axis=0) for alias, array in inputs.items()})
        chosen = cheapest(reference, candidates, batches, clock)
        log.info("signature %s of %s is computed by %s", reference.name, path, chosen.engine)
        return chosen

    return choose


def cheapest(
    reference: Signature,
    candidates: Sequence[Signature],
    batches: Sequence[Inputs],
    clock: Callable[[], float] = time.perf_counter,
) -> Signature:
    """Return the candidate with the cheapest first batch, or the reference.

    A candidate must save a tenth of the first batch and cost no more for the others. The calls take turns, so
    that what else the machine does falls on all alike, and the shortest of each counts.

    Args:
        reference: What is served unless another costs less.
        candidates: Other forms of the same signature; those that fail are left out.
        batches: Inputs, at least one.
        clock: Returns seconds.
    """
    costs = [_costs([reference, *candidates], inputs, clock) for inputs in batches]
    found, least = reference, MAX_COST * costs[0][0]
    for number, candidate in enumerate(candidates, start=1):
        is_computed = costs[0][number] < np.inf
        if is_computed and costs[0][number] <= least and all(cost[number] <= cost[0] for cost in costs):
            found, least = candidate, costs[0][number]
    return found


def _costs(forms: Sequence[Signature], inputs: Inputs, clock: Callable[[], float]) -> list[float]:
    """Return the seconds of each form's shortest call; infinite where it fails."""
    shortest = [np.inf] * len(forms)
    failed: set[int] = set()
    for turn in range(WARM_UP_CALLS + ROUNDS):
        for number, form in enumerate(forms):
            if number in failed:
                continue
            started = clock()
            try:
                form.run(inputs)
            except StatusError as error:
                log.info("signature %s is not measured with %s: %s", form.name, form.engine, error)
                failed.add(number)
                shortest[number] = np.inf
            else:
                if turn >= WARM_UP_CALLS:
                    shortest[number] = min(shortest[number], clock() - started)
    return shortest


def _sample(path: Path, signature: Signature) -> dict[str, Array] | None:
    """Return one row of inputs, or None where none are known."""
    if rows := recorded_rows(path, signature):
        return rows[0]
    filled = {alias: zeros(spec, 1) for alias, spec in signature.inputs.items()}
    known = {alias: array for alias, array in filled.items() if array is not None}
    return known if len(known) == len(filled) else None
