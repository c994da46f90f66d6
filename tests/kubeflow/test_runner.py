"""Runs are submitted to a server over HTTP, which answers as Kubeflow Pipelines' API does."""
# ruff: noqa: E501 - what a server answers

import inspect
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlplatform.cli.main import cli
from mlplatform.home import Home
from mlplatform.orchestration.choices import RUNNERS
from mlplatform.orchestration.kubeflow.client import KubeflowClient
from mlplatform.orchestration.kubeflow.errors import (
    ClusterRunFailedError,
    ClusterRunNotFoundError,
    HostError,
    NotOnAClusterError,
    ParameterValueError,
    ScheduleError,
    ServerRefusedError,
    ServerUnreachableError,
)
from mlplatform.orchestration.kubeflow.runner import KubeflowRunner, cron
from mlplatform.orchestration.local.errors import NodeFailedError
from mlplatform.orchestration.runner import Runner
from mlplatform.registry.ledger import Ledger

STACK = "Failed to create a run: InvalidInputError: no such parameter\ngithub.com/kubeflow/stack.go:12\n"


class Server(ThreadingHTTPServer):
    """Keeps runs as the API does: states move on each time that a run is looked at."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.host = f"http://127.0.0.1:{self.server_port}/pipeline"
        self.runs: dict[str, dict[str, Any]] = {}
        self.recurring: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, str] = {}
        self.states = ["PENDING", "RUNNING", "SUCCEEDED"]
        self.task_details: list[dict[str, Any]] = []
        self.drops = 0  # requests that get no answer
        self.refusal: tuple[int, bytes] | None = None
        self.headers: dict[str, str] = {}


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.headers = dict(self.headers)
        if self.server.drops and self.command == "GET":
            self.server.drops -= 1
            self.close_connection = True  # without an answer
            return
        if self.server.refusal is not None:
            self.answer(*self.server.refusal)
            return
        path = self.path.removeprefix("/pipeline/apis/v2beta1/").partition("?")[0]
        name, _, rest = path.partition("/")
        getattr(self, f"on_{name}")(rest, body)

    def do_GET(self) -> None:
        self.handle_any()

    def do_POST(self) -> None:
        self.handle_any()

    def do_DELETE(self) -> None:
        self.handle_any()

    def on_runs(self, rest: str, body: Any) -> None:
        runs = self.server.runs
        if self.command == "POST" and not rest:
            run_id = f"run-{len(runs) + 1}"
            runs[run_id] = {
                **body,
                "run_id": run_id,
                "created_at": "2026-11-28T10:00:00.123456789Z",
                "looks": 0,
            }
            self.answer(200, runs[run_id])
        elif rest.endswith(":terminate"):
            runs[rest.partition(":")[0]]["state"] = "CANCELED"
            self.answer(200, {})
        elif rest:
            run = runs.get(rest)
            if run is None:
                self.answer(404, {"code": 5, "error": f"Run {rest} not found.\nstack"})
                return
            if run.get("state") != "CANCELED":
                run["state"] = self.server.states[min(run["looks"], len(self.server.states) - 1)]
            run["looks"] += 1
            run["finished_at"] = "2026-11-28T10:01:30Z"
            run["run_details"] = {"task_details": self.server.task_details}
            self.answer(200, run)
        else:  # a page of one run each, newest first
            names = sorted(runs, reverse=True)
            at = int(self.path.partition("page_token=")[2].partition("&")[0] or 0)
            page: dict[str, Any] = {"runs": [runs[name] for name in names[at : at + 1]]}
            if at + 1 < len(names):
                page["next_page_token"] = str(at + 1)
            self.answer(200, page)

    def on_recurringruns(self, rest: str, body: Any) -> None:
        recurring = self.server.recurring
        run_id, _, verb = rest.partition(":")
        if self.command == "POST" and not rest:
            run_id = f"every-{len(recurring) + 1}"
            recurring[run_id] = {**body, "recurring_run_id": run_id, "status": "ENABLED"}
            self.answer(200, recurring[run_id])
        elif verb:
            recurring[run_id]["status"] = {"enable": "ENABLED", "disable": "DISABLED"}[verb]
            self.answer(200, {})
        elif self.command == "DELETE":
            del recurring[run_id]
            self.answer(200, {})
        else:
            self.answer(200, {"recurringRuns": list(recurring.values())})

    def on_experiments(self, _: str, body: Any) -> None:
        if self.command == "POST":
            self.server.experiments[body["display_name"]] = f"e{len(self.server.experiments) + 1}"
        found = [{"display_name": n, "experiment_id": i} for n, i in self.server.experiments.items()]
        self.answer(200, found[-1] if self.command == "POST" else {"experiments": found})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("KF_PIPELINES_TOKEN", "KF_PIPELINES_COOKIES", "KF_PIPELINES_ENDPOINT", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A root that pods could reach, as far as the runner can say; its ledger lies on this machine."""
    monkeypatch.setattr("mlplatform.orchestration.kubeflow.runner.ARTIFACT_ROOTS", ("/",))
    return str(tmp_path / "root")


def runner(server: Server, root: str, **options: Any) -> KubeflowRunner:
    return KubeflowRunner(root, host=server.host, sleep=lambda _: None, **options)


def test_a_run_is_submitted_and_noted_in_the_ledger(server: Server, root: str, every_kind: Any) -> None:
    pipeline = every_kind.create_pipeline(
        root, kubernetes={"service_account": "trainer", "labels": {"a": "b"}}
    )
    record = runner(server, root, experiment="tries").run(pipeline, parameters={"title": "x"})
    assert (record.run_id, record.pipeline, record.state) == ("run-1", "every_kind", "running")
    sent = server.runs["run-1"]
    assert sent["display_name"].startswith("every-kind 20")
    assert sent["experiment_id"] == server.experiments["tries"] == "e1"
    assert sent["service_account"] == "trainer"
    assert sent["runtime_config"] == {"parameters": {"title": "x"}, "pipeline_root": f"{root}/pipelines"}
    assert set(sent["pipeline_spec"]) == {"pipeline_spec", "platform_spec"}
    assert sent["pipeline_spec"]["pipeline_spec"]["schemaVersion"] == "2.1.0"
    (started,) = Ledger(Home.at(root).ledger).events("runs/run-1")
    assert (started.kind, started.get("pipeline")) == ("run.started", "every_kind")
    nodes = {node["node"]: node for node in started.get("nodes")}
    assert set(nodes) == {"curated_schema", "measure_data", "latest_blessed", "use_numbers", "only_if_good"}
    assert nodes["use_numbers"]["upstream"] == ["latest_blessed", "measure_data"]


def test_a_run_is_waited_for(server: Server, root: str, every_kind: Any) -> None:
    record = runner(server, root, wait=True).run(every_kind.create_pipeline(root), parameters={"title": "x"})
    assert (record.state, record.wall_s) == ("done", 90.0)
    assert server.runs["run-1"]["looks"] == 3
    kinds = [event.kind for event in Ledger(Home.at(root).ledger).events("runs/run-1")]
    assert kinds == ["run.started", "run.finished"]
    assert runner(server, root).status("run-1").state == "done"  # and that writes nothing more
    assert len(Ledger(Home.at(root).ledger).events("runs/run-1")) == 2


def test_a_node_that_fails_fails_the_wait(server: Server, root: str, every_kind: Any) -> None:
    server.states = ["RUNNING", "FAILED"]
    server.task_details = [
        {"display_name": "measure-data", "state": "FAILED", "error": {"message": "out of memory\nstack"}}
    ]
    waiting = runner(server, root, wait=True)
    with pytest.raises(NodeFailedError) as raised:
        waiting.run(every_kind.create_pipeline(root), parameters={"title": "x"})
    assert (raised.value.node, raised.value.cause) == ("measure_data", "out of memory")
    assert raised.value.exit_code == 1
    assert waiting.record is not None
    assert waiting.record.node("use_numbers").state == "cancelled"
    server.task_details, server.runs["run-1"]["looks"] = [], 0
    with pytest.raises(ClusterRunFailedError, match="ended failed"):
        waiting._wait_for("run-1")


def test_a_server_that_starts_anew_does_not_end_the_wait(server: Server, root: str, every_kind: Any) -> None:
    server.drops = 11
    record = runner(server, root, wait=True).run(every_kind.create_pipeline(root), parameters={"title": "x"})
    assert record.state == "done"
    server.drops = 12
    with pytest.raises(ServerUnreachableError):
        runner(server, root, wait=True).run(every_kind.create_pipeline(root), parameters={"title": "x"})


def test_a_recurring_run_is_made_paused_and_deleted(server: Server, root: str, every_kind: Any) -> None:
    nightly = runner(server, root, schedule="0 2 * * *")
    record = nightly.run(every_kind.create_pipeline(root), parameters={"title": "[[ScheduledTime]]"})
    assert record.run_id == "every-1"
    sent = server.recurring["every-1"]
    assert sent["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}
    assert (sent["max_concurrency"], sent["no_catchup"], sent["mode"]) == ("1", True, "ENABLE")
    assert not server.runs
    client = KubeflowClient.at(server.host)
    found = client.find_recurring_run("every")
    client.enable_recurring_run(found["recurring_run_id"], is_enabled=False)
    assert server.recurring["every-1"]["status"] == "DISABLED"
    client.enable_recurring_run(found["recurring_run_id"], is_enabled=True)
    assert server.recurring["every-1"]["status"] == "ENABLED"
    client.delete_recurring_run("every-1")
    assert not server.recurring


def test_runs_are_found_and_ended(server: Server, root: str) -> None:
    client = KubeflowClient.at(server.host)
    for _ in range(3):
        client.create_run({"display_name": "x"})
    assert [run["run_id"] for run in client.runs()] == ["run-3", "run-2", "run-1"]
    assert [run["run_id"] for run in client.runs(limit=2)] == ["run-3", "run-2"]
    assert client.find_run("latest")["run_id"] == "run-3"
    runner(server, root).cancel("run-2")
    assert runner(server, root).status("run-2").state == "cancelled"
    with pytest.raises(ClusterRunNotFoundError, match=r"has no run 'run'.*there is run-3 \(x\), run-2 \(x\)"):
        client.find_run("run")


def test_what_is_read_is_part_of_the_cache_key(server: Server, root: str, tmp_path: Path) -> None:
    trips = tmp_path / "trips"
    trips.mkdir()
    (trips / "a.csv").write_text("x\n1\n")
    file = Path(__file__).parents[2] / "examples" / "taxi" / "pipeline.py"

    def submitted(**options: Any) -> dict[str, Any]:
        record = runner(server, root, **options).run_reference(str(file), data=str(trips))
        kept = server.recurring if options else server.runs
        spec: dict[str, Any] = kept[record.run_id]["pipeline_spec"]
        task = spec["root"]["dag"]["tasks"]["CsvExampleGen"]
        arguments = spec["deploymentSpec"]["executors"]["CsvExampleGen_executor"]["container"]["args"]
        return {"arguments": arguments, "is_cached": "cachingOptions" in task}

    first, again = submitted(), submitted()
    assert first == again
    assert first["is_cached"]
    assert first["arguments"][6] == "--node"
    assert first["arguments"][8] == "--data_fingerprint"
    assert first["arguments"][-1] == "--direct_num_workers=1"
    (trips / "b.csv").write_text("x\n2\n")
    other = submitted()
    assert other["arguments"][9] != first["arguments"][9]
    assert other["arguments"][:9] == first["arguments"][:9]
    nightly = submitted(schedule="0 2 * * *")  # reads what is there each night
    assert not nightly["is_cached"]
    assert "--data_fingerprint" not in nightly["arguments"]


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (400, {"error": STACK, "code": 13, "message": STACK}, "Failed to create a run: InvalidInputError: no such parameter"),
        (400, {"details": [{"error_message": "bad name\nstack"}]}, "bad name"),
        (401, b"<html>Sign in</html>", "Set KF_PIPELINES_TOKEN"),
        (502, b"<html>Bad Gateway</html>", "Bad Gateway"),
        (500, b"", "Internal Server Error"),
        (200, b"<html>Please sign in</html>", "something else than JSON"),
        (200, b"[1]", "something else than JSON"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line(server: Server, status: int, body: Any, text: str) -> None:
    server.refusal = (status, body if isinstance(body, bytes) else json.dumps(body).encode())
    with pytest.raises(ServerRefusedError) as raised:
        KubeflowClient.at(server.host).create_run({})
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


def test_nobody_answers(server: Server) -> None:
    client = KubeflowClient.at("127.0.0.1:9")  # the port "discard", where nothing listens
    with pytest.raises(ServerUnreachableError, match=r"http://127.0.0.1:9: Connection refused. Check the"):
        client.run("x")
    with pytest.raises(ServerUnreachableError, match=r"no-such-host\.invalid"):
        KubeflowClient.at("http://no-such-host.invalid").run("x")


@pytest.mark.parametrize("host", ["", "ftp://host", "http://", "http://a b", "http://host:port", "host?x=1"])
def test_an_address_that_is_none(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    with pytest.raises(HostError, match="KF_PIPELINES_ENDPOINT"):
        KubeflowClient.at(host)


def test_who_asks(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.host)
    list(KubeflowClient.at().runs())
    assert "Authorization" not in server.headers
    token = tmp_path / "token"
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    for content in ("first", "second\n"):  # the kubelet writes a new one before the old one expires
        token.write_text(content)
        list(KubeflowClient.at().runs())
        assert server.headers["Authorization"] == f"Bearer {content.strip()}"
    monkeypatch.setenv("KF_PIPELINES_COOKIES", "authservice_session=c")
    list(KubeflowClient.at().runs())
    assert (server.headers["Cookie"], server.headers.get("Authorization")) == ("authservice_session=c", None)
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "given")
    list(KubeflowClient.at().runs())
    assert server.headers["Authorization"] == "Bearer given"
    assert "given" not in repr(KubeflowClient.at())


def test_what_does_not_work_on_a_cluster(server: Server, every_kind: Any, tmp_path: Path) -> None:
    assert RUNNERS.load("kubeflow") is KubeflowRunner
    for options in ({"parallelism": 2}, {"force": ["Trainer"]}):
        with pytest.raises(NotOnAClusterError):
            KubeflowRunner("s3://b/r", host=server.host, **options)
    with pytest.raises(NotOnAClusterError, match="give such a root"):
        KubeflowRunner(tmp_path, host=server.host).run(every_kind.create_pipeline(tmp_path))
    with pytest.raises(NotOnAClusterError, match="run it in full"):
        KubeflowRunner("s3://b/r", host=server.host).run_reference("item_category", to_nodes=["x"])


def test_a_gate_that_says_no_is_told_apart(server: Server, root: str, every_kind: Any) -> None:
    Ledger(Home.at(root).ledger).append("runs/run-1", "verdict", node="measure_data", is_accepted=False)
    server.states = ["FAILED"]
    server.task_details = [{"display_name": "measure-data", "state": "FAILED"}]
    with pytest.raises(NodeFailedError) as raised:
        runner(server, root, wait=True).run(every_kind.create_pipeline(root), parameters={"title": "x"})
    assert raised.value.exit_code == 3


def test_it_keeps_the_protocol_of_runners() -> None:
    for name in ("run_reference", "status", "logs", "cancel"):
        promised = inspect.signature(getattr(Runner, name)).parameters
        kept = inspect.signature(getattr(KubeflowRunner, name)).parameters
        assert {p: promised[p].default for p in promised} == {p: kept[p].default for p in kept}


def test_parameters_of_a_run(server: Server, root: str, every_kind: Any) -> None:
    with pytest.raises(ParameterValueError, match="no value is given for title"):
        runner(server, root).run(every_kind.create_pipeline(root))
    with pytest.raises(ParameterValueError, match="threshold is 'high', not float"):
        runner(server, root).run(every_kind.create_pipeline(root), parameters={"threshold": "high"})
    with pytest.raises(ParameterValueError, match="no runtime parameter treshold"):
        runner(server, root).run(every_kind.create_pipeline(root), parameters={"treshold": 1})
    assert not server.runs


@pytest.mark.parametrize(
    "schedule", ["", "daily", "@daily", "* * * *", "61 * * * *", "0 25 * * *", "0 0 * * ;"]
)
def test_a_schedule_that_is_none(schedule: str) -> None:
    with pytest.raises(ScheduleError, match="give five fields"):
        cron(schedule)


def test_schedules() -> None:
    assert cron("*/5 8-18 * JAN-MAR MON") == "0 */5 8-18 * JAN-MAR MON"
    assert cron("30 0 2 * * *") == "30 0 2 * * *"


def test_commands(server: Server, root: str, tmp_path: Path, every_kind: Any) -> None:
    from click.testing import CliRunner

    def call(*words: str) -> Any:
        return CliRunner().invoke(cli, [*words, "--root", root])

    file = str(Path(every_kind.__file__))
    host = ["--host", server.host]
    done = call("run", file, "--runner", "kubeflow", *host, "--parameter", "title=x")
    assert (done.exit_code, done.output) == (0, "run run-1 of every_kind: running\n")
    assert "run-1" in call("runs", "list", *host).output
    shown = json.loads(call("runs", "show", "run-1", *host, "--json").output)
    assert (shown["run_id"], shown["pipeline"], shown["state"]) == ("run-1", "every_kind", "running")
    assert call("runs", "cancel", "run-1", *host).exit_code == 0
    assert server.runs["run-1"]["state"] == "CANCELED"
    nightly = [*host, "--schedule", "0 2 * * *", "--parameter", "title=x"]
    assert "recurring run every-1" in call("run", file, "--runner", "kubeflow", *nightly).output
    assert "ENABLED" in CliRunner().invoke(cli, ["runs", "recurring", "list", *host]).output
    for verb in ("pause", "resume", "delete"):
        assert CliRunner().invoke(cli, ["runs", "recurring", verb, "every-1", *host]).exit_code == 0
    assert not server.recurring
    refused = call("run", "item_category", *host)
    assert refused.exit_code == 2
    assert "--host: the runner 'local' has no such option; give --runner kubeflow" in refused.output
    package = tmp_path / "package.yaml"
    done = call("compile", file, "-o", str(package), "--parameter", "title=x")
    assert done.exit_code == 0
    spec, *_ = yaml.safe_load_all(package.read_text())
    assert spec["root"]["inputDefinitions"]["parameters"]["title"]["defaultValue"] == "x"
