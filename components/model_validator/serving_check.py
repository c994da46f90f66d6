"""Is a model safe to serve? Loads and asks it in a process of its own, under limits of time and memory."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import tensorflow as tf

from mlplatform.components.model_validator.serving_environment import ask_elsewhere, find_python
from mlplatform.components.model_validator.settings import Budget, Question
from mlplatform.components.model_validator.waivers import WAIVABLE_COSTS
from mlplatform.evaluation.limits import Missed
from mlplatform.progress import Task, track

_PROBE = "mlplatform.components.model_validator.probe"
LATENCY_RUNS = 200
_POLL_S = 0.05
_MEGABYTE = 2**20


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        passed: It is as it must be.
        detail: What was found, where that says more.
        cost: Key of the budget that it holds a measured figure against; empty where it does not.
    """

    name: str
    passed: bool
    detail: str = ""
    cost: str = ""


@dataclass(frozen=True)
class ServingCheck:
    """What the process found.

    Attributes:
        findings: Every check, in the order they were made.
        figures: `load_time_s`, `p50_latency_ms`, `p99_latency_ms`, `peak_memory_mb`, `model_size_mb`, as far
            as they were measured.
    """

    findings: list[Finding]
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def is_loadable(self) -> bool:
        """The model was loaded and has the signatures that its quality is measured by."""
        return any(finding.name == "signatures" and finding.passed for finding in self.findings)

    @property
    def missed(self) -> list[Missed]:
        """The checks that did not pass; those that nobody can waive are no measured threshold."""
        return [
            Missed(
                finding.cost,
                f"{finding.name}: {finding.detail or 'not passed'}",
                is_measured=finding.cost in WAIVABLE_COSTS and math.isfinite(self.figures[finding.cost]),
            )
            for finding in self.findings
            if not finding.passed
        ]

    @property
    def reasons(self) -> list[str]:
        """One sentence for each check that did not pass."""
        return [missed.text for missed in self.missed]


def check_serving(
    model_dir: Path,
    samples: Sequence[tf.train.Example],
    budget: Budget,
    question: Question | None = None,
    environment: str = "",
) -> ServingCheck:
    """Ask the SavedModel real, odd and broken requests in a process that sees no GPU.

    Args:
        model_dir: The SavedModel.
        samples: Real Examples as clients send them, at least one.
        budget: What the process may take; over time or memory it is killed.
        question: Kind and output of the answer; default: one class per record.
        environment: Folder of a virtual environment, or a Python executable, whose TensorFlow is to load the
            model, too, and give the same answers; empty for none.

    Raises:
        ServingEnvironmentError: There is no such environment, or TensorFlow does not start in it.
    """
    if environment:
        find_python(environment)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "samples.tfrecord"
        with tf.io.TFRecordWriter(str(file)) as writer:
            for sample in samples:
                writer.write(sample.SerializeToString(deterministic=True))
        with track("check that the model is safe to serve", unit="seconds") as bar:
            requests = Path(scratch) / "requests.jsonl" if environment else None
            ended = _run(model_dir, file, Path(scratch), budget, question or Question(), bar, requests)
            facts = ended.facts
            if requests is not None and requests.is_file() and not ended.reason:
                facts = [
                    *facts,
                    *ask_elsewhere(model_dir, requests, environment, time_limit_s=budget.time_limit_s),
                ]
    return concluded(facts, budget, model_dir, ended.reason)


def concluded(
    facts: Sequence[Mapping[str, Any]], budget: Budget, model_dir: Path, reason: str = ""
) -> ServingCheck:
    """Return what the facts of a probe say under a budget.

    Args:
        facts: What the probe reported.
        budget: What the model may cost.
        model_dir: The SavedModel, whose size counts.
        reason: Why the probe did not come to its end; empty where it did.
    """
    findings = [_finding(fact, budget) for fact in facts if "check" in fact]
    if reason:
        findings.append(Finding("the serving process", False, reason))
    figures: dict[str, float] = dict(next((fact["figures"] for fact in facts if "figures" in fact), {}))
    figures["model_size_mb"] = sum(f.stat().st_size for f in model_dir.rglob("*") if f.is_file()) / _MEGABYTE
    return ServingCheck([*findings, *_over_budget(figures, budget)], figures)


@dataclass(frozen=True)
class _Ended:
    facts: list[dict[str, Any]]
    reason: str  # why it did not come to its end; empty where it did


def _run(
    model_dir: Path,
    samples: Path,
    scratch: Path,
    budget: Budget,
    question: Question,
    bar: Task,
    requests: Path | None,
) -> _Ended:
    # The kind of answer may be a class of the user's own: it is imported from where this process finds it.
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
    }
    settings = json.dumps(
        {
            "kind": question.kind,
            "output": question.output,
            "runs": LATENCY_RUNS,
            "requests_file": str(requests or ""),
        }
    )
    output, errors = scratch / "output", scratch / "errors"
    with output.open("wb") as out, errors.open("wb") as err:
        process = psutil.Popen(
            [sys.executable, "-m", _PROBE, str(model_dir), str(samples), settings],
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
        killed = _watch(process, budget, output, bar)
    facts = _facts(output)
    if process.returncode == 0 and not killed:
        return _Ended(facts, "")
    doing = _doing(facts)
    last = errors.read_text("utf-8", "replace").strip().splitlines()
    cause = killed or f"ended with code {process.returncode}: {last[-1][:300] if last else 'no message'}"
    return _Ended(facts, f"{cause}, at the step: {doing}")


def _facts(output: Path) -> list[dict[str, Any]]:
    whole, _, _unfinished = output.read_text("utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


def _doing(facts: Sequence[dict[str, Any]]) -> str:
    return next((fact["doing"] for fact in reversed(facts) if "doing" in fact), "start")


def _watch(process: psutil.Popen, budget: Budget, output: Path, bar: Task) -> str:
    """Wait for the process; kill it when it takes more than the budget. Returns why it was killed."""
    started = time.monotonic()
    deadline = started + budget.time_limit_s
    while process.poll() is None:
        try:
            memory_mb = process.memory_info().rss / _MEGABYTE
        except psutil.NoSuchProcess:
            break
        reason = ""
        if memory_mb > budget.peak_memory_mb:
            reason = f"it took {memory_mb:.0f} MB of memory, more than {budget.peak_memory_mb:.0f} MB"
        elif time.monotonic() > deadline:
            reason = f"it took more than {budget.time_limit_s:g} s"
        if reason:
            process.kill()
            process.wait()
            return reason
        if time.monotonic() - started >= bar.done + 1:
            bar.advance(1, note=_doing(_facts(output)))
        time.sleep(_POLL_S)
    process.wait()
    return ""


def _finding(fact: Mapping[str, Any], budget: Budget) -> Finding:
    if "difference" not in fact:
        return Finding(fact["check"], fact["passed"], fact["detail"])
    difference = fact["difference"]
    if not math.isfinite(difference):
        return Finding(fact["check"], False, "answers are not finite numbers, or of another form")
    detail = f"answers differ by up to {difference:.2g}"
    if "disagreeing" in fact:
        detail += f", and the first class of {100 * fact['disagreeing']:.1f} % of the records"
        tolerance, disagreement = _FORMS[fact["form"]](budget)
        agrees = fact["disagreeing"] <= disagreement and difference <= tolerance
        return Finding(fact["check"], agrees, detail)
    return Finding(fact["check"], difference <= budget.score_tolerance, detail)


# By form: the largest difference of a score, and the largest share of photos whose first class differs.
_FORMS: dict[str, Callable[[Budget], tuple[float, float]]] = {
    "tflite": lambda budget: (budget.tflite_score_tolerance, budget.tflite_disagreement),
    "bfloat16": lambda budget: (budget.bfloat16_score_tolerance, budget.bfloat16_disagreement),
}


def _over_budget(figures: dict[str, float], budget: Budget) -> list[Finding]:
    limits = {
        "load_time_s": budget.load_time_s,
        "p99_latency_ms": budget.p99_latency_ms,
        "peak_memory_mb": budget.peak_memory_mb,
        "model_size_mb": budget.model_size_mb,
    }
    return [
        Finding(f"budget: {name}", figures[name] <= limit, f"{figures[name]:.4g}, allowed {limit:.4g}", name)
        for name, limit in limits.items()
        if name in figures
    ]
