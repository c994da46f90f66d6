"""What new data is compared with: the last version of its dataset that was accepted."""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.components.statistics_gen import executor as statistics_gen
from tfx.dsl.io import fileio

from mlplatform.datasets import DatasetStore
from mlplatform.storage import open_storage
from mlplatform.tfx_io.artifacts import fetched
from mlplatform.tfx_io.dataset_version import VERSION_FILE, check_out_into

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList
BRIGHTNESS_FILE = (
    "PhotoBrightness.pb"  # beside the standard file of statistics, which readers of it pass over
)
_KIND, _ACCEPTED, _REJECTED = "data_gate", "accepted", "rejected"


@dataclass(frozen=True)
class Baseline:
    """Data that was good.

    Attributes:
        name: What it is, such as `items@v3`.
        statistics: Of its training split.
        brightness: Statistics of the brightness and contrast of its photos; None where it has none.
    """

    name: str
    statistics: Statistics
    brightness: Statistics | None = None


@dataclass(frozen=True)
class Version:
    """A version of a dataset in a store.

    Attributes:
        store: Folder or URL of the store.
        dataset: The dataset's name.
        version: The version's name, such as `v3`.
        records: How many records it has, by split.
    """

    store: str
    dataset: str
    version: str
    records: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Dataset and version, such as `items@v3`."""
        return f"{self.dataset}@{self.version}"

    @classmethod
    def read(cls, uri: str) -> "Version":
        """Return the version that a DatasetVersion artifact is."""
        facts = json.loads(open_storage(uri).read(VERSION_FILE))
        records = {split: about["records"] for split, about in facts["splits"].items()}
        return cls(facts["store"], facts["dataset"], facts["version"], records)

    def record(self, *, is_accepted: bool, detail: str) -> None:
        """Note the verdict in the store.

        Args:
            is_accepted: The verdict.
            detail: Where the statistics of an accepted version lie, or the report of a rejected one.
        """
        verdict = _ACCEPTED if is_accepted else _REJECTED
        DatasetStore(self.store).record_use(self.dataset, self.version, _KIND, verdict, detail)


def last_accepted(
    version: Version,
    train_split: str,
    work_dir: str,
    measure: Callable[[str], tuple[Statistics, Statistics]],
) -> Baseline | None:
    """Return the last other version of the same dataset that was accepted; None where there is none.

    Args:
        version: The version that is looked at.
        train_split: The split to compare.
        work_dir: Folder or URL for a checkout, where the statistics of the accepted version are gone.
        measure: Gives, for a folder of `Split-*` folders, the statistics of the training split and those of
            the brightness and contrast of its photos.
    """
    store = DatasetStore(version.store)
    verdicts = {
        use.version: use for use in store.uses(version.dataset) if use.kind == _KIND
    }  # the last of each
    accepted = [use for use in verdicts.values() if use.name == _ACCEPTED and use.version != version.version]
    if not accepted:
        return None
    last = max(accepted, key=lambda use: use.at)
    name = f"{version.dataset}@{last.version}"
    with contextlib.suppress(FileNotFoundError), fetched(last.detail) as folder:
        split = folder / f"Split-{train_split}"
        statistics, brightness = split / statistics_gen.DEFAULT_FILE_NAME, split / BRIGHTNESS_FILE
        if statistics.is_file() and brightness.is_file():
            return Baseline(name, tfdv.load_stats_binary(str(statistics)), read_brightness(str(brightness)))
    manifest = store.show(version.dataset, last.version)
    if train_split not in manifest.splits:
        return None
    check_out_into(work_dir, store, manifest)
    return Baseline(name, *measure(work_dir))


def read_brightness(file: str) -> Statistics | None:
    """Return the statistics of the brightness and contrast of photos; None where there is no such file."""
    return tfdv.load_stats_binary(file) if fileio.exists(file) else None
