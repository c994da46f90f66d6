"""Dataflow's job request, as Beam builds and validates it; it is not sent, and nothing is uploaded."""

import io
import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from mlplatform.beam.engines import dataflow
from mlplatform.beam.runners import pipeline_options
from mlplatform.components.image_example_gen.content import read_content

IMAGE = "europe-docker.pkg.dev/a-project/beam/mlplatform-beam:0.1.0"
OPTIONS = {
    "project": "a-project",
    "region": "europe-west4",
    "temp_location": "gs://bucket/temp",
    "image": IMAGE,
    "machine_type": "n2-standard-4",
    "workers": 2,
    "max_workers": 8,
    "service_account": "w@a-project.iam.gserviceaccount.com",
    "labels": {"team": "search"},
}


def test_the_request_says_what_the_block_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from apache_beam.portability.api import beam_runner_api_pb2
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
    from apache_beam.runners.dataflow.internal import apiclient

    staged: dict[str, bytes] = {}

    def stage(client: Any, place: str, name: str, content: Any, **_: Any) -> None:
        data = (
            Path(content).read_bytes() if isinstance(content, str) else io.BytesIO(content.read()).getvalue()
        )
        staged[f"{place}/{name}"] = data

    monkeypatch.setattr(apiclient.DataflowApplicationClient, "stage_file_with_retry", stage)
    options = pipeline_options(dataflow(**OPTIONS, arguments=["--no_auth", "--dry_run=True"]))
    runner = DataflowRunner()
    pipeline = beam.Pipeline(runner, options=options)  # validates the options
    _ = pipeline | beam.Create(["photo.jpg"]) | beam.Reshuffle() | beam.Map(read_content, 1 << 20, None)
    pipeline.run()  # as far as a dry run goes: the job is made and not described
    apiclient.DataflowApplicationClient(options).create_job_description(runner.job)
    request = json.loads(runner.job.json())

    [pipeline_file] = [name for name in staged if name.endswith("/pipeline.pb")]
    assert pipeline_file.startswith("gs://bucket/temp/staging/")
    proto = beam_runner_api_pb2.Pipeline.FromString(staged[pipeline_file])
    [environment] = proto.components.environments.values()
    payload = beam_runner_api_pb2.DockerPayload.FromString(environment.payload)
    assert payload.container_image == IMAGE
    assert not [name for name in staged if "ephemeral" in name]
    assert request["labels"] == {"team": "search"}
    described = request["environment"]
    assert described["serviceAccountEmail"] == OPTIONS["service_account"]
    assert "/bucket/temp/" in described["tempStoragePrefix"]
    [pool] = described["workerPools"]
    assert (pool["machineType"], pool["numWorkers"]) == ("n2-standard-4", 2)
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 8
    assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [IMAGE]
