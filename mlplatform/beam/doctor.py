"""Whether an engine works: a job of ten records, run for real, and what its workers have and see."""

import json
import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam

from mlplatform.beam.errors import JobServerUnreachableError
from mlplatform.beam.job_server import job_endpoint, require_job_server
from mlplatform.beam.runners import pipeline_options
from mlplatform.beam.versions import versions
from mlplatform.machine import Check
from mlplatform.storage import open_storage

RECORDS = 10


def look_at_engine(beam_arguments: Sequence[str], shared: str) -> Iterator[Check]:
    """Look at an engine: its job server, then what a job of ten records leaves in a shared folder.

    Args:
        beam_arguments: Beam's arguments that choose it.
        shared: Folder or URL that this process and all workers are to see; is made.
    """
    endpoint = job_endpoint(beam_arguments)
    if endpoint is not None:
        try:
            require_job_server(beam_arguments)
        except JobServerUnreachableError as error:
            yield Check("job server", "missing", f"{endpoint}: {error.cause}", "start it")
            return
        yield Check("job server", "ok", endpoint)
    storage, folder = open_storage(shared), f"engine-{uuid.uuid4().hex}"
    try:
        _run(beam_arguments, storage.url, folder)
        there = {*storage.names(folder)}  # and a folder of files that are being written
        left = [f"{folder}/{number}" for number in range(RECORDS) if str(number) in there]
        found = [json.loads(data) for data in storage.read_all(left)]
    except Exception as error:  # noqa: BLE001 - whatever an engine raises is what was found
        yield Check("job of ten records", "missing", _cause(error), "see the engine's own logs")
    else:
        yield from _checks(found, storage.url)
    finally:
        storage.delete_tree(folder)


def _run(beam_arguments: Sequence[str], shared: str, folder: str) -> None:
    with beam.Pipeline(options=pipeline_options(beam_arguments)) as pipeline:
        _ = pipeline | beam.Create(range(RECORDS)) | beam.Reshuffle() | beam.Map(_leave, shared, folder)


def _leave(number: int, shared: str, folder: str) -> None:
    """Leave, where the job was submitted from, what this worker is."""
    fact = {"worker": f"{socket.gethostname()}, process {os.getpid()}", "versions": versions()}
    open_storage(shared).put(f"{folder}/{number}", json.dumps(fact).encode())


def _checks(found: Sequence[dict[str, Any]], shared: str) -> Iterator[Check]:
    workers = sorted({fact["worker"] for fact in found})
    yield Check("job of ten records", "ok", f"done by {', '.join(workers) or 'workers'}")
    yield Check(
        "shared storage",
        "ok" if len(found) == RECORDS else "missing",
        f"{len(found)} of {RECORDS} records arrived in {shared}",
        "" if len(found) == RECORDS else "give a root that all machines see, such as an s3:// or gs:// URL",
    )
    others = sorted({fact["versions"] for fact in found} - {versions()})
    yield Check(
        "versions of the workers",
        "missing" if others else "ok",
        others[0] if others else versions(),
        f"this process has {versions()}; install the same in both" if others else "",
    )


def _cause(error: Exception) -> str:
    """Return the line of an error that names its cause: engines put stacks of Java around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
