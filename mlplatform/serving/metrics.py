"""Counters and latencies of requests, on a page that Prometheus reads, under TensorFlow Serving's names.

Written by hand: the names begin with a colon and counters carry no `_total`, which client libraries refuse.
"""

import threading
from bisect import bisect_left
from dataclasses import dataclass, field

# Upper bounds in microseconds, as TensorFlow Serving's sampler has them: 10 times powers of 1.8.
BUCKETS_MICROS = tuple(10 * 1.8**power for power in range(33))


@dataclass
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_MICROS) + 1))
    total: float = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(BUCKETS_MICROS, value)] += 1
        self.total += value


class Metrics:
    """What a server counts. Safe to call from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str], int] = {}
        self._latencies: dict[tuple[str, str, str], _Histogram] = {}

    def record(self, model: str, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """Count one request.

        Args:
            model: The model's name.
            api: `Predict`, `Classify`, ...
            entrypoint: `GRPC` or `REST`.
            status: The canonical code's name, `OK` where it was answered.
            seconds: How long it took.
        """
        with self._lock:
            key = (model, status)
            self._requests[key] = self._requests.get(key, 0) + 1
            latencies = self._latencies.setdefault((model, api, entrypoint), _Histogram())
            latencies.add(seconds * 1e6)

    def page(self) -> str:
        """Return the page in Prometheus' text format 0.0.4."""
        with self._lock:
            lines = ["# TYPE :tensorflow:serving:request_count counter"]
            for (model, status), count in sorted(self._requests.items()):
                labels = f'model_name="{_escaped(model)}",status="{status}"'
                lines.append(f":tensorflow:serving:request_count{{{labels}}} {count}")
            lines.append("# TYPE :tensorflow:serving:request_latency histogram")
            for (model, api, entrypoint), histogram in sorted(self._latencies.items()):
                labels = f'model_name="{_escaped(model)}",API="{api}",entrypoint="{entrypoint}"'
                lines.extend(_histogram_lines(":tensorflow:serving:request_latency", labels, histogram))
        return "\n".join(lines) + "\n"


def _histogram_lines(name: str, labels: str, histogram: _Histogram) -> list[str]:
    lines, seen = [], 0
    for bound, count in zip((*BUCKETS_MICROS, float("inf")), histogram.counts, strict=True):
        seen += count
        limit = "+Inf" if bound == float("inf") else f"{bound:g}"
        lines.append(f'{name}_bucket{{{labels},le="{limit}"}} {seen}')
    lines.append(f"{name}_sum{{{labels}}} {histogram.total:g}")
    lines.append(f"{name}_count{{{labels}}} {seen}")
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
