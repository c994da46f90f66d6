"""Runs of pipelines on Kubeflow Pipelines: submitted, followed, ended, and made recurring."""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from mlplatform.home import Home
from mlplatform.orchestration.engine import parse_engine, use_engine
from mlplatform.orchestration.kubeflow.client import ENDED, KubeflowClient
from mlplatform.orchestration.kubeflow.cluster_runs import (
    is_refused_by_a_gate,
    is_written,
    record_of,
    require_success,
    write_finished,
    write_started,
)
from mlplatform.orchestration.kubeflow.errors import (
    NotOnAClusterError,
    ParameterValueError,
    ScheduleError,
    ServerUnreachableError,
)
from mlplatform.orchestration.local.errors import NodeFailedError
from mlplatform.orchestration.local.ledger_runs import find_run, log_of
from mlplatform.orchestration.local.records import RunRecord
from mlplatform.orchestration.local.reference import check_reference, make_pipeline
from mlplatform.storage.urls import is_local, join

POLL_S = 5.0  # between looks at a run that is waited for
MOST_UNANSWERED = 12  # looks in a row without an answer, after which the wait ends
ARTIFACT_ROOTS = ("s3://", "gs://", "minio://")
_CRON_FIELD = re.compile(r"[0-9A-Za-z*/,?#-]+")


class KubeflowRunner:
    """Runs TFX pipelines on a Kubeflow Pipelines server, each node in a pod of its own.

    Args:
        root: Root of everything that outlives a pod: the URL of a folder on object storage.
        parallelism: Must be None: the cluster decides.
        force: Must be empty: on a cluster a node's option `cache: false` says it.
        host: The server's address; None: `$KF_PIPELINES_ENDPOINT`.
        experiment: The experiment that runs belong to; None: the server's default.
        wait: Whether a run is waited for; else it is submitted alone.
        schedule: When a recurring run starts runs, as cron has it, of five fields, or of six with seconds
            first; None: one run, now.
        namespace: The namespace of the runs, where the server is for many teams.
        sleep: What waits between looks at a run.

    Attributes:
        record: The record of the newest run; None before the first.

    Raises:
        HostError: There is no address.
        NotOnAClusterError: Something was asked for that only makes sense on one machine.
        ScheduleError: `schedule` is not a schedule.
    """

    OPTIONS = frozenset({"host", "experiment", "wait", "schedule", "namespace"})

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        parallelism: int | None = None,
        force: Sequence[str] = (),
        host: str | None = None,
        experiment: str | None = None,
        wait: bool = False,
        schedule: str | None = None,
        namespace: str | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if parallelism is not None:
            raise NotOnAClusterError(
                "a number of nodes at the same time", "the cluster runs as many as it has room for"
            )
        if force:
            raise NotOnAClusterError(
                f"running {', '.join(force)} again", "give the node the option cache: false"
            )
        self._home = Home.at(root)
        self._client = KubeflowClient.at(host, namespace)
        self._experiment, self._wait = experiment, wait
        self._cron = cron(schedule) if schedule is not None else None
        self._sleep = sleep
        self.record: RunRecord | None = None

    def compile(self, pipeline: Any, **options: Any) -> Any:
        """Return a pipeline object as a package; the options are those of `compile_pipeline`."""
        from mlplatform.orchestration.kubeflow.compile import compile_pipeline

        return compile_pipeline(pipeline, root=self._home.root, **options)

    def run(self, pipeline: Any, *, parameters: Mapping[str, Any] | None = None) -> RunRecord:
        """Submit a pipeline object; wait for its end, where that was asked for.

        Args:
            pipeline: A TFX pipeline; its options are those that `with_options` kept with it.
            parameters: Values of the pipeline's runtime parameters.

        Returns:
            The run's record; of a recurring run, with the recurring run's id.

        Raises:
            CompileError, PackageError, ConfigError: As for `compile_pipeline`.
            ParameterValueError: A runtime parameter is unknown, has no value, or has one of another type.
            NotOnAClusterError: The root is not one that pods can reach.
            ServerUnreachableError: The server does not answer.
            ServerRefusedError: It refused the run.
            NodeFailedError: The run was waited for, and a node failed.
            ClusterRunFailedError: The run was waited for, and ended otherwise without success.
        """
        return self._submit(self.compile(pipeline), parameters or {})

    def run_reference(
        self,
        reference: str,
        *,
        data: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        from_nodes: Sequence[str] = (),
        to_nodes: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
        engine: str | Mapping[str, Any] | None = None,
    ) -> RunRecord:
        """Submit a pipeline by name; wait for its end, where that was asked for.

        Args:
            reference: A packaged name, `path/to/file.py[:function]` or `package.module:function`.
            data: What the function takes as `data`: a URL, or a path on a volume of the cluster.
            overrides: Further keyword arguments of the function.
            from_nodes: Must be empty.
            to_nodes: Must be empty.
            parameters: Values of the pipeline's runtime parameters.
            engine: The engine of Beam, a name or a block; None: as the pipeline's own arguments say.

        Raises:
            Exception: As for `run`, and what making the pipeline raises.
        """
        if from_nodes or to_nodes:
            raise NotOnAClusterError(
                "a part of a pipeline", "run it in full: what did not change is reused by the cluster's cache"
            )
        check_reference(reference)
        self._require_reachable_root()
        pipeline = make_pipeline(reference, data, self._home.root, overrides or {})
        if engine is not None:
            use_engine(pipeline.components, parse_engine(engine))
        return self._submit(self.compile(pipeline), parameters or {}, reference)

    def status(self, run: str = "latest") -> RunRecord:
        """Return the record of a run: its state from the server, its nodes from the root's ledger.

        Args:
            run: Its id, the beginning of that, or `latest`.

        Raises:
            ClusterRunNotFoundError: The server has no such run, or more than one.
        """
        found = self._client.find_run(run)
        found = self._client.run(str(found["run_id"]))
        if str(found.get("state")) in ENDED and is_written(self._home, str(found["run_id"])):
            write_finished(self._home, found)
        return record_of(self._home, found)

    def logs(self, run: str, node: str) -> str:
        """Return what a node of a run has printed, as its entry point kept it below the root.

        Raises:
            RunNotFoundError: The ledger has no such run.
            NoLogError: The node has no log there; the server's own pages may have one.
        """
        return log_of(find_run(self._home, run), node)

    def cancel(self, run: str = "latest") -> None:
        """Have a run of the server end.

        Raises:
            ClusterRunNotFoundError: The server has no such run, or more than one.
        """
        self._client.cancel_run(str(self._client.find_run(run)["run_id"]))

    def _require_reachable_root(self) -> None:
        if not self._home.root.startswith(ARTIFACT_ROOTS):
            kind = "a folder of this machine" if is_local(self._home.root) else "of another kind"
            raise NotOnAClusterError(
                f"the root {self._home.root}, {kind},",
                "Kubeflow Pipelines keeps artifacts at s3://, gs:// or minio://; give such a root",
            )

    def _submit(self, package: Any, parameters: Mapping[str, Any], reference: str = "") -> RunRecord:
        from mlplatform.orchestration.kubeflow.compile import parameter_kinds, typed_parameters
        from mlplatform.orchestration.kubeflow.fingerprint import with_fingerprints

        self._require_reachable_root()
        given = typed_parameters(package.pipeline, parameter_kinds(package), parameters)
        missing = sorted(
            n for n, about in package.parameters.items() if "defaultValue" not in about and n not in given
        )
        if missing:
            problem = f"no value is given for {', '.join(missing)}"
            raise ParameterValueError(package.pipeline, problem, sorted(package.parameters))
        # A recurring run is submitted once, and what it reads changes: without fingerprints it is not cached.
        spec = dict(package.spec) if self._cron else with_fingerprints(package, given)
        source = (
            {"pipeline_spec": spec, "platform_spec": dict(package.platform)} if package.platform else spec
        )
        now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H-%M-%S")
        request: dict[str, Any] = {
            "display_name": f"{spec['pipelineInfo']['name']} {now}",
            "pipeline_spec": source,
            "runtime_config": {"parameters": given, "pipeline_root": join(self._home.root, "pipelines")},
        }
        if package.service_account:
            request["service_account"] = package.service_account
        if self._experiment:
            request["experiment_id"] = self._client.experiment(self._experiment)
        if self._cron:
            return self._make_recurring(request, package.pipeline)
        created = self._client.create_run(request)
        self.record = write_started(self._home, created, package, given, reference)
        return self._wait_for(str(created["run_id"])) if self._wait else self.record

    def _make_recurring(self, request: dict[str, Any], pipeline: str) -> RunRecord:
        request |= {
            "trigger": {"cron_schedule": {"cron": self._cron}},
            "max_concurrency": "1",
            "no_catchup": True,
            "mode": "ENABLE",
        }
        if self._client.namespace:
            request["namespace"] = self._client.namespace
        created = self._client.create_recurring_run(request)
        self.record = RunRecord(
            run_id=str(created["recurring_run_id"]),
            pipeline=pipeline,
            pipeline_root=join(self._home.root, "pipelines"),
            started_at=str(created.get("created_at") or ""),
            state="unknown",  # it has not begun any run
            options={"schedule": self._cron},
        )
        return self.record

    def _wait_for(self, run_id: str) -> RunRecord:
        found: dict[str, Any] = {}
        unanswered = 0
        while str(found.get("state")) not in ENDED:
            if found or unanswered:
                self._sleep(POLL_S)
            try:
                found, unanswered = self._client.run(run_id), 0
            except ServerUnreachableError:  # it may be started anew; the run does not end with it
                unanswered += 1
                if unanswered == MOST_UNANSWERED:
                    raise
        write_finished(self._home, found)
        self.record = record_of(self._home, found)
        failed = self.record.failed
        if failed:
            node, *others = [(n.id, n.error or n.why, f"runs/{run_id}/logs/{n.id}.log") for n in failed]
            exit_code = 3 if is_refused_by_a_gate(self._home, run_id, [each.id for each in failed]) else 1
            raise NodeFailedError(*node, run_id, exit_code, others)
        require_success(found)
        return self.record


def cron(schedule: str) -> str:
    """Return a schedule as Kubeflow Pipelines takes it: six fields, the first of which is the second.

    Args:
        schedule: Five fields, as cron has them, or six.

    Raises:
        ScheduleError: It is not one.
    """
    fields = schedule.split()
    if schedule.startswith("@") or len(fields) not in (5, 6):
        raise ScheduleError(schedule)
    limits = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    fields = fields if len(fields) == 6 else ["0", *fields]
    for text, (least, most) in zip(fields, limits, strict=True):
        numbers = [int(number) for number in re.findall(r"(?<!/)\b[0-9]+\b", text)]
        if not _CRON_FIELD.fullmatch(text) or any(not least <= number <= most for number in numbers):
            raise ScheduleError(schedule)
    return " ".join(fields)
