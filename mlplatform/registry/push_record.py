"""What is known of one push: `push.json` beside the model's files."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mlplatform.registry.model_events import ModelEvent, texts


@dataclass(frozen=True, kw_only=True)
class Push:
    """What is known of one push.

    Attributes:
        digest: sha256 over the SavedModel's files: their relative paths and contents.
        pushed_at: Time of the push, ISO 8601, UTC.
        pushed_by: Account that pushed.
        model: The model's name; empty in pushes of earlier releases.
        why: The reason, in words.
        run: Id of the pipeline run, where one pushed.
        dataset: The dataset version that the model was trained on (`items@v3`), where known.
        source: The folder that was pushed.
        servers: Servers that were to confirm it; none where no server was asked.
        metrics: What the model's evaluation measured, by name, where one was given.
    """

    digest: str
    pushed_at: str
    pushed_by: str
    model: str = ""
    why: str = ""
    run: str = ""
    dataset: str = ""
    source: str = ""
    servers: Sequence[str] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


def push_of(event: ModelEvent) -> Push | None:
    """Return the push that an event says of; None where it says too little."""
    return _push({"pushed_at": event.get("at"), "pushed_by": event.get("by"), **event})


def read_push(file: Path) -> Push | None:
    """Return what a push left; None where there is nothing, or nothing that a push writes."""
    try:
        found = json.loads(file.read_bytes().decode("utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return _push(found) if isinstance(found, dict) else None


def _push(found: Mapping[str, Any]) -> Push | None:
    known = {field.name for field in fields(Push)}
    try:
        push = Push(**{name: value for name, value in found.items() if name in known})
    except TypeError:  # incomplete
        return None
    return push if _is_push(push) else None


def _is_push(push: Push) -> bool:
    words = (push.digest, push.pushed_at, push.pushed_by, push.model, push.why, push.run, push.dataset)
    return (
        all(isinstance(word, str) for word in (*words, push.source))
        and bool(push.digest)
        and texts(list(push.servers) if isinstance(push.servers, (list, tuple)) else None) is not None
        and isinstance(push.metrics, dict)
        and all(type(value) in (int, float) and math.isfinite(value) for value in push.metrics.values())
    )
