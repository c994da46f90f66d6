"""Engines that Beam runs on: each a function of typed options that returns Beam's arguments for them.

Nothing here imports Beam: the arguments are made where a pipeline is composed, and read where it runs.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from mlplatform.beam.errors import NoWorkerCommandError
from mlplatform.config import Config, parse_config
from mlplatform.storage.urls import is_local

WORKER_COMMAND = "mlplatform-beam-worker"
LOCAL_JOB_SERVER, LOCAL_PAGE = "localhost:8099", "http://localhost:8081"
_ON_THIS_MACHINE = ("localhost:", "127.0.0.1:", "[::1]:")


class Direct(Config):
    """Beam on this machine: in the process that starts it, or in several worker processes."""

    # Workers at the same time. With more than one, each is a process of its own unless `mode` says otherwise.
    workers: int = Field(default=1, ge=1)
    mode: Literal["in_memory", "multi_threading", "multi_processing"] | None = None
    # Further arguments of Beam, as they are.
    arguments: list[str] = Field(default=[])

    def beam_arguments(self) -> list[str]:
        """Return Beam's arguments."""
        mode = self.mode or ("multi_processing" if self.workers > 1 else "in_memory")
        workers = [f"--direct_num_workers={self.workers}", f"--direct_running_mode={mode}"]
        return ["--runner=DirectRunner", *(workers if mode != "in_memory" else []), *self.arguments]


class Prism(Config):
    """Beam's own portable engine: one process, which the job starts and which ends with it."""

    # The program, where Beam is not to find or download one.
    location: str | None = None
    arguments: list[str] = Field(default=[])

    def beam_arguments(self) -> list[str]:
        """Return Beam's arguments."""
        program = [f"--prism_location={Path(self.location).absolute()}"] if self.location else []
        return ["--runner=PrismRunner", *program, "--environment_type=LOOPBACK", _NO_PACKAGE, *self.arguments]


class Portable(Config):
    """Any engine behind a Beam job server."""

    # Host and port of the job server.
    job_endpoint: str = Field(pattern=r"^\S+:\d+$")
    # Where workers fetch staged files; default: what the job server says.
    artifact_endpoint: str | None = None
    # What runs the Python of the job: `loopback` the process that submits it, `process` a command that the
    # engine's own workers start, `external` a worker pool beside each of them, `docker` a container image.
    environment: Literal["loopback", "process", "external", "docker"] = "process"
    # For `process`: the command; default: `mlplatform-beam-worker` beside this Python.
    worker_command: str | None = None
    # For `external`: host and port of the pool, as the engine's workers reach it.
    worker_pool: str = "localhost:50000"
    # For `docker`: the image.
    image: str | None = None
    # How long a Python worker is kept for the next stage or job. Without it each stage starts one anew.
    environment_cache_s: float = Field(default=30.0, ge=0)
    arguments: list[str] = Field(default=[])

    @model_validator(mode="after")
    def _names_an_image(self) -> "Portable":
        if self.environment == "docker" and not self.image:
            raise ValueError("environment 'docker' needs `image`, the container image of the workers")
        return self

    def beam_arguments(self) -> list[str]:
        """Return Beam's arguments.

        Raises:
            NoWorkerCommandError: The command is on this machine, where the job server is, and is not there.
        """
        found = ["--runner=PortableRunner", f"--job_endpoint={self.job_endpoint}", "--job_server_timeout=10"]
        if self.artifact_endpoint:
            found.append(f"--artifact_endpoint={self.artifact_endpoint}")
        return [*found, *self._environment(), *self._engine_arguments(), *self.arguments]

    def _environment(self) -> list[str]:
        kept = f"--environment_cache_millis={round(1000 * self.environment_cache_s)}"
        if self.environment == "docker":
            return ["--environment_type=DOCKER", f"--environment_config={self.image}",
                    f"--sdk_container_image={self.image}", kept]  # fmt: skip
        if self.environment == "external":
            return [
                "--environment_type=EXTERNAL",
                f"--environment_config={self.worker_pool}",
                _NO_PACKAGE,
                kept,
            ]
        if self.environment == "loopback":
            return ["--environment_type=LOOPBACK", _NO_PACKAGE, kept]
        command = json.dumps({"command": self._command()})
        return ["--environment_type=PROCESS", f"--environment_config={command}", _NO_PACKAGE, kept]

    def _command(self) -> str:
        # Not resolved: a virtual environment's Python is a link to another folder.
        command = Path(self.worker_command or Path(sys.executable).with_name(WORKER_COMMAND)).absolute()
        if self.job_endpoint.startswith(_ON_THIS_MACHINE) and not command.is_file():
            raise NoWorkerCommandError(str(command))
        return str(command)

    def _engine_arguments(self) -> list[str]:
        return []


class Flink(Portable):
    """A Flink cluster behind Beam's Flink job server."""

    job_endpoint: str = Field(default=LOCAL_JOB_SERVER, pattern=r"^\S+:\d+$")
    # Slots that the job takes. Never left out: the job server would take 1, or its own configuration's.
    parallelism: int = Field(default=1, ge=1)
    # Address of Flink's own page, from which progress is read and where jobs are cancelled; empty for none.
    page: str = Field(default="", pattern=r"^(https?://\S+)?$")

    def _engine_arguments(self) -> list[str]:
        page = self.page or (LOCAL_PAGE if self.job_endpoint == LOCAL_JOB_SERVER else "")
        return [f"--parallelism={self.parallelism}", *([f"--engine_page={page}"] if page else [])]


class Spark(Portable):
    """A Spark cluster, or Spark within the process, behind Beam's Spark job server."""

    job_endpoint: str = Field(default=LOCAL_JOB_SERVER, pattern=r"^\S+:\d+$")


class Dataflow(Config):
    """Google Cloud Dataflow."""

    project: str
    region: str
    # Below it lie what is staged and what the job leaves aside.
    temp_location: str
    # Container image with this package; without it, TFX sends a package of itself.
    image: str | None = None
    machine_type: str | None = None
    workers: int | None = Field(default=None, ge=1)
    max_workers: int | None = Field(default=None, ge=1)
    service_account: str | None = None
    subnetwork: str | None = None
    labels: dict[str, str] = Field(default={})
    arguments: list[str] = Field(default=[])

    @model_validator(mode="after")
    def _fits(self) -> "Dataflow":
        if is_local(self.temp_location) or not self.temp_location.startswith("gs://"):
            raise ValueError(f"temp_location is {self.temp_location!r}: Dataflow needs a gs:// URL")
        if self.workers and self.max_workers and self.workers > self.max_workers:
            raise ValueError(f"workers is {self.workers}, more than max_workers, {self.max_workers}")
        return self

    def beam_arguments(self) -> list[str]:
        """Return Beam's arguments."""
        given = {
            "project": self.project,
            "region": self.region,
            "temp_location": self.temp_location,
            "staging_location": f"{self.temp_location.rstrip('/')}/staging",
            "sdk_container_image": self.image,
            "machine_type": self.machine_type,
            "num_workers": self.workers,
            "max_num_workers": self.max_workers,
            "service_account_email": self.service_account,
            "subnetwork": self.subnetwork,
        }
        found = [f"--{name}={value}" for name, value in given.items() if value is not None]
        found += [f"--labels={name}={value}" for name, value in sorted(self.labels.items())]
        return ["--runner=DataflowRunner", *found, *self.arguments]


# TFX adds a package of itself to a job, which workers would install over what they have, unless an image is
# named. None but `docker` and Dataflow reads the name.
_NO_PACKAGE = "--sdk_container_image=unused"


def direct(**options: Any) -> Sequence[str]:
    """Return Beam's arguments for work on this machine; ConfigError where an option does not fit `Direct`."""
    return parse_config(Direct, options, source="engine direct").beam_arguments()


def prism(**options: Any) -> Sequence[str]:
    """Return Beam's arguments for Prism; ConfigError where an option does not fit `Prism`."""
    return parse_config(Prism, options, source="engine prism").beam_arguments()


def portable(**options: Any) -> Sequence[str]:
    """Return Beam's arguments for a job server; ConfigError where an option does not fit `Portable`."""
    return parse_config(Portable, options, source="engine portable").beam_arguments()


def flink(**options: Any) -> Sequence[str]:
    """Return Beam's arguments for Flink; ConfigError where an option does not fit `Flink`."""
    return parse_config(Flink, options, source="engine flink").beam_arguments()


def spark(**options: Any) -> Sequence[str]:
    """Return Beam's arguments for Spark; ConfigError where an option does not fit `Spark`."""
    return parse_config(Spark, options, source="engine spark").beam_arguments()


def dataflow(**options: Any) -> Sequence[str]:
    """Return Beam's arguments for Dataflow; ConfigError where an option does not fit `Dataflow`."""
    return parse_config(Dataflow, options, source="engine dataflow").beam_arguments()
