"""Options of an engine become Beam's arguments; what cannot work is reported before a job is sent."""

import json
import socket
from pathlib import Path

import pytest

from mlplatform.beam.engines import dataflow, direct, flink, portable, prism, spark
from mlplatform.beam.errors import JobServerUnreachableError, NoWorkerCommandError, WorkerVersionError
from mlplatform.beam.job_server import job_endpoint, require_job_server
from mlplatform.beam.versions import require_versions, versions
from mlplatform.config_file import ConfigError, read_yaml
from mlplatform.orchestration.engine import Engine, parse_engine
from mlplatform.storage import open_storage


def options_of(arguments):
    """The arguments as Beam itself reads them."""
    from apache_beam.options import pipeline_options

    options = pipeline_options.PipelineOptions(list(arguments))
    return options.get_all_options(drop_default=True)


def test_direct_is_one_process_unless_workers_are_asked_for():
    assert list(direct()) == ["--runner=DirectRunner"]
    found = options_of(direct(workers=3))
    assert (found["direct_num_workers"], found["direct_running_mode"]) == (3, "multi_processing")
    assert options_of(direct(workers=3, mode="multi_threading"))["direct_running_mode"] == "multi_threading"


def test_flink_has_what_its_job_server_needs(tmp_path):
    command = tmp_path / "worker"
    command.touch()
    found = options_of(flink(worker_command=str(command), parallelism=4))
    assert found["runner"] == "PortableRunner"
    assert found["job_endpoint"] == "localhost:8099"
    assert found["environment_type"] == "PROCESS"
    assert json.loads(found["environment_config"]) == {"command": str(command)}
    assert found["environment_cache_millis"] == "30000"
    assert found["sdk_container_image"] == "unused"  # else TFX ships itself
    assert "--parallelism=4" in flink(worker_command=str(command), parallelism=4)
    assert "--parallelism=1" in flink(worker_command=str(command))


@pytest.mark.parametrize(
    ("options", "kind", "config"),
    [
        ({"environment": "loopback"}, "LOOPBACK", None),
        ({"environment": "external", "worker_pool": "pool:50000"}, "EXTERNAL", "pool:50000"),
        ({"environment": "docker", "image": "here/it:1"}, "DOCKER", "here/it:1"),
    ],
)
@pytest.mark.parametrize("engine", [flink, spark])
def test_every_environment_of_workers(engine, options, kind, config):
    found = options_of(engine(job_endpoint="jobs:8099", **options))
    assert (found["environment_type"], found.get("environment_config")) == (kind, config)
    assert found["sdk_container_image"] == options.get("image", "unused")


def test_prism_and_portable():
    assert options_of(prism())["runner"] == "PrismRunner"
    assert options_of(portable(job_endpoint="jobs:1", environment="loopback"))["job_endpoint"] == "jobs:1"


def test_dataflow_has_what_it_asks_for():
    arguments = dataflow(
        project="a-project", region="europe-west4", temp_location="gs://bucket/temp", image="eu.gcr.io/p/i:1",
        workers=2, max_workers=8, labels={"team": "search"},
    )  # fmt: skip
    found = options_of(arguments)
    assert (found["runner"], found["project"], found["region"]) == (
        "DataflowRunner",
        "a-project",
        "europe-west4",
    )
    assert found["staging_location"] == "gs://bucket/temp/staging"
    assert (found["num_workers"], found["max_num_workers"]) == (2, 8)
    assert found["labels"] == ["team=search"]


@pytest.mark.parametrize(
    ("engine", "options", "problem"),
    [
        (flink, {"paralelism": 2}, "did you mean 'parallelism'"),
        (flink, {"parallelism": 0, "environment": "loopback"}, "parallelism is 0"),
        (flink, {"job_endpoint": "nowhere"}, "job_endpoint is 'nowhere'"),
        (flink, {"environment": "docker"}, "needs `image`"),
        (portable, {}, "key 'job_endpoint' is missing"),
        (dataflow, {"project": "p", "region": "r", "temp_location": "/tmp"}, "needs a gs:// URL"),
        (direct, {"workers": 0}, "workers is 0"),
    ],
)
def test_wrong_options_are_named(engine, options, problem):
    with pytest.raises(ConfigError, match=problem):
        engine(**options)


def test_a_worker_command_that_is_not_there_is_named_where_it_can_be_seen(tmp_path):
    with pytest.raises(NoWorkerCommandError, match="no-such-worker, is not there"):
        flink(worker_command=str(tmp_path / "no-such-worker"))
    flink(job_endpoint="elsewhere:8099", worker_command="/opt/no-such-worker")  # that is for its machine


def test_a_job_server_that_does_not_answer_is_one_error():
    with socket.socket() as bound:  # a port that is taken and does not listen
        bound.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(JobServerUnreachableError, match=endpoint):
            require_job_server([f"--job_endpoint={endpoint}"])
        with pytest.raises(JobServerUnreachableError, match="cannot be reached"):
            require_job_server(["--job_endpoint", endpoint])
        bound.listen()
        require_job_server([f"--job_endpoint={endpoint}"])
    assert (
        job_endpoint([])
        is job_endpoint(["--runner=DirectRunner"])
        is job_endpoint(["--job_endpoint"])
        is None
    )
    require_job_server(["--runner=DirectRunner"])


def test_workers_of_other_versions_are_an_error_that_names_both():
    require_versions(versions())
    with pytest.raises(WorkerVersionError) as raised:
        require_versions("Python 3.99, mlplatform 9.9")
    assert f"workers have {versions()}, and the job was submitted with Python 3.99" in str(raised.value)


def test_a_block_names_engines_of_all_nodes_and_of_single_ones():
    assert parse_engine(None) is None
    assert parse_engine("direct") == Engine(("--runner=DirectRunner",))
    block = {"name": "flink", "environment": "loopback", "nodes": {"DataValidator": "direct"}}
    engine = parse_engine(block)
    assert engine is not None
    assert "--job_endpoint=localhost:8099" in engine.of("ImageExampleGen")
    assert engine.of("DataValidator") == ("--runner=DirectRunner",)
    only = parse_engine({"nodes": {"DataValidator": {"name": "direct", "workers": 2}}})
    assert only is not None
    assert only.of("ImageExampleGen") == ()
    assert "--direct_num_workers=2" in only.of("DataValidator")


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({}, "name is None"),
        ({"name": 3}, "name is 3"),
        ({"name": "direct", "nodes": "all"}, "nodes is 'all'"),
    ],
)
def test_a_block_that_is_none_is_reported(block, problem):
    with pytest.raises(ConfigError, match=problem):
        parse_engine(block)


@pytest.mark.parametrize("name", ["spark.yaml", "dataflow.yaml"])
def test_the_blocks_of_the_example_are_engines(name):
    folder = Path(__file__).parents[2] / "examples/beam-cluster"
    engine = parse_engine(read_yaml(folder / name)["engine"])
    assert engine is not None
    assert options_of(engine.arguments)["sdk_container_image"].endswith("mlplatform-beam:0.1.0")


def test_the_doctor_runs_a_job(tmp_path):
    from mlplatform.beam.doctor import look_at_engine

    found = [*look_at_engine(["--runner=DirectRunner"], str(tmp_path))]
    assert [(check.name, check.status) for check in found] == [
        ("job of ten records", "ok"),
        ("shared storage", "ok"),
        ("versions of the workers", "ok"),
    ], found
    assert open_storage(str(tmp_path)).paths("") == []
