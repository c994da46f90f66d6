"""Whether an engine takes jobs, before one is sent: Beam would wait for minutes without a word."""

import socket
from collections.abc import Sequence

from mlplatform.beam.errors import JobServerUnreachableError

TIMEOUT_S = 5.0
_OPTION = "--job_endpoint"


def job_endpoint(beam_arguments: Sequence[object]) -> str | None:
    """Return the job server that Beam's arguments name, `host:port`; None where they name none."""
    words, found = [*map(str, beam_arguments)], None
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == _OPTION:
            found = value if equals else "".join(words[place + 1 : place + 2])
    return None if found in (None, "", "embed") else found


def require_job_server(beam_arguments: Sequence[object], *, timeout_s: float = TIMEOUT_S) -> None:
    """Check that the job server answers which Beam's arguments name; other engines are skipped.

    Args:
        beam_arguments: Beam's arguments.
        timeout_s: Seconds to wait, above 0.

    Raises:
        JobServerUnreachableError: It does not.
    """
    endpoint = job_endpoint(beam_arguments)
    if endpoint is None:
        return
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except (OSError, ValueError, OverflowError) as error:
        raise JobServerUnreachableError(endpoint, str(error) or type(error).__name__) from error
