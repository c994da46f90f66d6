"""What a node needs on a cluster, and how often and how long it may try: one typed block.

The block stands under `kubernetes:` in a pipeline's `config.yaml`, or is made in Python:

    with_options(pipeline, {"memory": "4Gi", "nodes": {"Trainer": {"gpu": 1}}})

What it says of all nodes holds for each, and what it says of one node is put on top: mappings are merged, all
else is replaced. It never touches TFX's own platform configuration, with which no local runner works.

Source: `kubernetes_executor_config.proto` and `pipeline_spec.proto` of Kubeflow Pipelines 2.5 to 2.17.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from mlplatform.config import Config, parse_config
from mlplatform.config_file import ConfigError, merged

_ATTACHED = "_mlplatform_kubernetes"
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DATA_KEY = re.compile(r"[-._A-Za-z0-9]{1,253}")
# Registry with an optional port, path in lower case, tag, digest (the grammar of OCI's distribution).
_IMAGE = re.compile(
    r"([A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?(:[0-9]+)?/)?"
    r"[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][-.A-Za-z0-9_]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_FACTORS = {"m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_FACTORS |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
# Folders of a pod that the launcher of Kubeflow Pipelines mounts.
LAUNCHER_FOLDERS = ("/gcs", "/minio", "/s3", "/kfp-launcher", "/gcs-artifacts", "/oci")
SMALLEST_MEMORY_BYTES, LARGEST_MEMORY_BYTES = 16 * 2**20, 64 * 2**40


def _fits(pattern: re.Pattern[str], what: str, most: int = 253) -> AfterValidator:
    def check(text: str) -> str:
        if len(text) > most or not pattern.fullmatch(text):
            raise ValueError(f"it is not {what}")
        return text

    return AfterValidator(check)


def _label_key(text: str) -> str:
    prefix, slash, name = text.rpartition("/")
    if (slash and not _DOMAIN.fullmatch(prefix)) or not _LABEL.fullmatch(name):
        raise ValueError(
            "it is not the key of a label, NAME or DOMAIN/NAME, of at most 63 letters, digits, -_."
        )
    return text


def _label_value(text: str) -> str:
    if text and not _LABEL.fullmatch(text):
        raise ValueError("it is not the value of a label: at most 63 letters, digits, -_.")
    return text


def _mount_path(text: str) -> str:
    if not text.startswith("/") or text == "/" or ":" in text or ".." in text.split("/"):
        raise ValueError("it is not an absolute path to mount at, such as /mnt/data")
    path = text.rstrip("/")
    taken = next((f for f in LAUNCHER_FOLDERS if path == f or path.startswith(f"{f}/")), None)
    if taken is not None:
        raise ValueError(f"{taken} is where the launcher of Kubeflow Pipelines keeps artifacts")
    return path


def quantity(text: str | float) -> float:
    """Return a quantity of Kubernetes as a number: `500m` is 0.5, `4Gi` is 4294967296.

    Raises:
        ValueError: It is not one.
    """
    found = _QUANTITY.fullmatch(str(text))
    if found is None:
        raise ValueError("it is not a quantity of Kubernetes, such as 2, 500m, 4Gi or 500M")
    return float(found[1]) * _FACTORS[found[2] or ""]


def _cpu(value: str | float) -> str | float:
    if not 0.001 <= quantity(value) <= 1024:
        raise ValueError("a container has 0.001 to 1024 processors")
    return value


def _memory(value: str) -> str:
    if not SMALLEST_MEMORY_BYTES <= quantity(value) <= LARGEST_MEMORY_BYTES:
        raise ValueError("memory and storage are 16Mi to 64Ti; bytes have units, such as 4Gi")
    return value


Name = Annotated[
    str, _fits(_DOMAIN, "the name of an object of Kubernetes: lower case letters, digits, - and .")
]
Variable = Annotated[str, _fits(_VARIABLE, "the name of an environment variable")]
DataKey = Annotated[str, _fits(_DATA_KEY, "a key: letters, digits, -_.")]
Image = Annotated[str, _fits(_IMAGE, "the name of an image, REGISTRY/NAME:TAG, its path in lower case", 500)]
LabelKey = Annotated[str, AfterValidator(_label_key)]
LabelValue = Annotated[str, AfterValidator(_label_value)]
Path = Annotated[str, AfterValidator(_mount_path)]
Cpu = Annotated[float | str, AfterValidator(_cpu)]
Memory = Annotated[str, AfterValidator(_memory)]
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]


class ObjectKeys(Config):
    """What a node gets of a secret or a config map: variables, a folder of files, or both."""

    # Environment variable to key of the object.
    env: dict[Variable, DataKey] = Field(default_factory=dict)
    # Where all its keys are mounted as files.
    path: Path | None = None
    # Whether the pod also starts where there is no such object.
    optional: bool = False

    @model_validator(mode="after")
    def _is_used(self) -> "ObjectKeys":
        if not self.env and self.path is None:
            raise ValueError("it is used for nothing: give env, path or both")
        return self


class Toleration(Config):
    """A taint that a pod tolerates."""

    key: LabelKey | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: LabelValue = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _is_consistent(self) -> "Toleration":
        if self.operator == "Exists" and self.value:
            raise ValueError("operator Exists takes no value; give operator Equal")
        if self.key is None and self.operator == "Equal":
            raise ValueError("operator Equal needs a key; Exists without one tolerates all taints")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("toleration_seconds needs effect NoExecute")
        return self


class Requirement(Config):
    """What a label of a machine must be."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = "In"
    values: list[LabelValue] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_its_values(self) -> "Requirement":
        takes_none = self.operator in ("Exists", "DoesNotExist")
        if takes_none and self.values:
            raise ValueError(f"operator {self.operator} takes no values")
        if not takes_none and not self.values:
            raise ValueError(f"operator {self.operator} needs values")
        if self.operator in ("Gt", "Lt") and not (len(self.values) == 1 and self.values[0].isdigit()):
            raise ValueError(f"operator {self.operator} needs one whole number")
        return self


class Affinity(Config):
    """Machines that a pod has to be on, or with a weight would rather be on."""

    labels: list[Requirement] = Field(min_length=1)
    weight: int | None = Field(default=None, ge=1, le=100)


class Scratch(Config):
    """Disk space of a pod, which ends with it; temporary files go there."""

    size: Memory
    path: Path = "/scratch"
    # null: of the machine's own disk; else the storage class of a volume that is made for the pod.
    storage_class: Name | None = None


class NodeOptions(Config):
    """Every key of a node's options."""

    image: Image | None = None
    image_pull_policy: Literal["Always", "Never", "IfNotPresent"] | None = None
    image_pull_secrets: list[Name] = Field(default_factory=list)
    # Processors, such as 2 or 500m; the pod gets as much as it may use at most.
    cpu: Cpu | None = None
    # Memory, such as 4Gi; likewise.
    memory: Memory | None = None
    # Accelerators, and the name under which Kubernetes counts them.
    gpu: int | None = Field(default=None, ge=0, le=64, strict=True)
    gpu_type: Annotated[str, AfterValidator(_label_key)] = "nvidia.com/gpu"
    ephemeral_storage: Scratch | None = None
    env: dict[Variable, Text] = Field(default_factory=dict)
    # Secret or config map to what is taken of it.
    secrets: dict[Name, ObjectKeys] = Field(default_factory=dict)
    config_maps: dict[Name, ObjectKeys] = Field(default_factory=dict)
    # Persistent volume claim to the path where it is mounted.
    volumes: dict[Name, Path] = Field(default_factory=dict)
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    affinity: list[Affinity] = Field(default_factory=list)
    tolerations: list[Toleration] = Field(default_factory=list)
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: dict[LabelKey, Text] = Field(default_factory=dict)
    # Further attempts after a failure, the wait before the first, the factor and the limit of the waits.
    retries: int = Field(default=0, ge=0, le=100)
    retry_wait_s: int = Field(default=0, ge=0, le=3600)
    retry_factor: float = Field(default=2.0, ge=1, le=10)
    retry_max_wait_s: int = Field(default=3600, ge=0, le=3600)
    # Seconds after which an attempt is ended; null: never.
    timeout_s: int | None = Field(default=None, ge=1, le=30 * 86_400)
    # Whether an earlier result may be reused; null: as the pipeline's own enable_cache says.
    cache: bool | None = None

    @field_validator("gpu_type")
    @classmethod
    def _has_a_domain(cls, name: str) -> str:
        if "/" not in name:
            raise ValueError("Kubernetes counts accelerators as DOMAIN/NAME, such as nvidia.com/gpu")
        return name

    @model_validator(mode="after")
    def _mounts_differ(self) -> "NodeOptions":
        paths = self.mounts
        again = sorted({path for path in paths if paths.count(path) > 1})
        if again:
            raise ValueError(f"more than one thing is mounted at {', '.join(again)}")
        variables = list(self.env)
        for taken in (*self.secrets.values(), *self.config_maps.values()):
            variables += taken.env
        twice = sorted({name for name in variables if variables.count(name) > 1})
        if twice:
            raise ValueError(f"the variable {', '.join(twice)} is set more than once")
        return self

    @property
    def mounts(self) -> list[str]:
        """All paths at which something is mounted."""
        paths = [*self.volumes.values()]
        paths += [each.path for each in (*self.secrets.values(), *self.config_maps.values()) if each.path]
        return paths + ([self.ephemeral_storage.path] if self.ephemeral_storage else [])


class KubernetesOptions(NodeOptions):
    """The options of all nodes of a pipeline, with those of single nodes in `nodes`."""

    # Whose rights the pods of a run have. Kubeflow Pipelines knows one for a whole run.
    service_account: Name | None = None
    # Node id to its options, on top of those of all.
    nodes: dict[str, NodeOptions] = Field(default_factory=dict)

    def of(self, node: str) -> NodeOptions:
        """Return the options of one node: those of all nodes, with its own on top.

        Raises:
            ConfigError: Together they do not fit, for instance as to what is mounted where.
        """
        own = self.nodes.get(node)
        common = self.model_dump(exclude={"nodes", "service_account"}, exclude_unset=True)
        changes = own.model_dump(exclude_unset=True) if own is not None else {}
        return parse_config(NodeOptions, merged(common, changes), source=f"kubernetes.nodes.{node}")


def parse_options(values: "Mapping[str, Any] | KubernetesOptions | None") -> KubernetesOptions:
    """Return a block of options, parsed and checked.

    Raises:
        ConfigError: A key is unknown or a value does not fit; all of them are named.
    """
    if isinstance(values, KubernetesOptions):
        return values
    for node, own in _mapping((values or {}).get("nodes")).items():
        if isinstance(own, Mapping) and "service_account" in own:
            problem = (
                f"nodes.{node}.service_account: a run has one service account; "
                "give service_account beside nodes"
            )
            raise ConfigError("kubernetes", [problem])
    options = parse_config(KubernetesOptions, values or {}, source="kubernetes")
    for node in options.nodes:
        options.of(node)
    return options


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True)
class OnCluster:
    """What a pipeline object says of its runs on a cluster.

    Attributes:
        options: The options of its nodes.
        exit_handler: A component that runs when all others have ended, however they did; None for none.
    """

    options: KubernetesOptions
    exit_handler: Any = None


def with_options(
    pipeline: Any,
    kubernetes: "Mapping[str, Any] | KubernetesOptions | None" = None,
    *,
    exit_handler: Any = None,
) -> Any:
    """Keep options with a pipeline object, for whoever runs or compiles it; return the pipeline.

    Args:
        pipeline: A TFX pipeline; TFX itself does not see the options.
        kubernetes: The block of options.
        exit_handler: A component that runs on the cluster when all others have ended; local runners ignore
            it.

    Raises:
        ConfigError: A key is unknown, a value does not fit, or a node is not in the pipeline.
    """
    options = parse_options(kubernetes)
    handler = [exit_handler.id] if exit_handler is not None else []
    check_nodes(options, [*(component.id for component in pipeline.components), *handler])
    setattr(pipeline, _ATTACHED, OnCluster(options, exit_handler))
    return pipeline


def options_of(pipeline: Any) -> OnCluster:
    """Return what `with_options` kept with a pipeline object; empty options where nothing is."""
    found = getattr(pipeline, _ATTACHED, None)
    return found if isinstance(found, OnCluster) else OnCluster(KubernetesOptions())


def check_nodes(options: KubernetesOptions, nodes: list[str]) -> None:
    """Check that the nodes which options name are in the pipeline.

    Raises:
        ConfigError: Some are not; all of them are named.
    """
    unknown = [node for node in options.nodes if node not in nodes]
    if unknown:
        problems = [f"unknown node {node!r}; the nodes are {', '.join(nodes)}" for node in unknown]
        raise ConfigError("kubernetes.nodes", problems)
