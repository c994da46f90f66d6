"""`ImageExampleGen`: what it takes and gives."""

import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tfx.components.example_gen import component
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.proto import example_gen_pb2, range_config_pb2
from tfx.types import channel, component_spec, standard_artifacts, standard_component_specs

from mlplatform.artifacts import RejectedRecords
from mlplatform.components.image_example_gen import driver, executor
from mlplatform.components.image_example_gen.errors import NoEntriesError, SplitsError
from mlplatform.components.image_example_gen.given_splits import check_split_by, given_splits
from mlplatform.components.image_example_gen.listing import LABEL
from mlplatform.components.image_example_gen.settings import MIB, SHARDS_KEY, IngestSettings
from mlplatform.config import check_config
from mlplatform.config_file import ConfigError
from mlplatform.roles import VALUE, WRITTEN
from mlplatform.storage.urls import is_local
from mlplatform.tfx_io.parameters import Late, converted, is_late, late_names, refuse_late

ANY_PHOTO = "*/*"  # class folder / photo


class ImageExampleGenSpec(component_spec.ComponentSpec):
    """Interface of `ImageExampleGen`."""

    PARAMETERS = {  # noqa: RUF012 - TFX reads the class attribute
        **standard_component_specs.FileBasedExampleGenSpec.PARAMETERS,
        "layout": component_spec.ExecutionParameter(type=str),
        "label_feature": component_spec.ExecutionParameter(type=str),
        "also_feature": component_spec.ExecutionParameter(type=str, optional=True),
        "leave_out_unlabelled": component_spec.ExecutionParameter(type=int),
        "split_by": component_spec.ExecutionParameter(type=str),
        "labels": component_spec.ExecutionParameter(type=str, optional=True),
        "max_reject_fraction": component_spec.ExecutionParameter(type=float),
        "max_image_bytes": component_spec.ExecutionParameter(type=int),
        "max_image_pixels": component_spec.ExecutionParameter(type=int),
        "follow_links": component_spec.ExecutionParameter(type=int),
        SHARDS_KEY: component_spec.ExecutionParameter(type=int, optional=True),
        "reports_dir": component_spec.ExecutionParameter(type=str, optional=True),
    }
    # Those of text that name no data, also where a file has the name of a class.
    PARAMETER_ROLES = {  # noqa: RUF012 - the local runner reads it
        "layout": VALUE,
        "label_feature": VALUE,
        "also_feature": VALUE,
        "split_by": VALUE,
        "labels": VALUE,
        "reports_dir": WRITTEN,
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}  # noqa: RUF012
    OUTPUTS = {  # noqa: RUF012
        **standard_component_specs.FileBasedExampleGenSpec.OUTPUTS,
        executor.REJECTS_KEY: component_spec.ChannelParameter(type=RejectedRecords),
    }


class ImageExampleGen(component.FileBasedExampleGen):
    """Ingests photos: one folder per class, or a listing.

    Each photo becomes an Example with `image/encoded` (the file as it came), `image/format`, `image/height`,
    `image/width`, `label`, `item_id` and the further columns of a listing. Photos in class folders have no id
    of their own: there the photo is the item, whatever its name and folder, so `item_id` is a digest of its
    bytes, and `path` says where it was. What cannot be used is a reject with file and reason;
    in = out + rejects, or the run fails.
    """

    SPEC_CLASS = ImageExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)
    DRIVER_CLASS = driver.Driver

    def __init__(
        self,
        input_base: str | Late,
        listing: str | None = None,
        splits: Mapping[str, int] | Sequence[str] | None = None,
        split_by: str | Late = "item_id",
        labels: Sequence[str] | Late | None = None,
        pattern: str = ANY_PHOTO,
        max_reject_fraction: float | Late = 0.05,
        max_image_bytes: int | Late = 20 * MIB,
        max_image_pixels: int | Late = 50_000_000,
        follow_links: bool | Late = False,
        label_feature: str = LABEL,
        also_feature: str | None = None,
        leave_out_unlabelled: bool = False,
        shards: int | Late | None = None,
        reports_dir: str | Late | None = None,
        range_config: range_config_pb2.RangeConfig | Late | None = None,
    ) -> None:
        """Declare the ingest.

        All but `listing`, `splits`, `pattern` and the three of the label may be a `RuntimeParameter`;
        `labels` then is a JSON list.

        Args:
            input_base: Folder of the photos, a local path or a URL (`s3://`, `gs://`, `az://`). With `splits`
                it need not be there when the pipeline is composed.
            listing: A .csv, .jsonl or .parquet file below `input_base`, with the columns `path` (relative to
                the listing's folder), `label`, and `item_id` if items have ids; further columns become
                features. None takes one folder per class.
            splits: Names and weights of splits that a hash fills, such as `{"train": 4, "eval": 1}`; or the
                names of the splits that the data brings (folders `input_base/<split>/<class>/`, or the values
                of the listing's column `split`). None looks below `input_base` for the folders.
            split_by: The column whose hash decides the split; records that share its value stay together.
            labels: Allowed class names; None allows all.
            pattern: Which files are photos, below `input_base` or each split's folder. Spans and versions
                work as in stock TFX: `span-{SPAN}/*/*`; with a listing they go into its name.
            max_reject_fraction: The run fails when more than this share of the entries is rejected.
            max_image_bytes: Larger files are rejects.
            max_image_pixels: Photos of more pixels (width times height) are rejects.
            follow_links: Also take photos outside of `input_base` that links in it lead to; without it
                they are rejects.
            label_feature: The listing's column that holds the class, and the feature that it becomes. A row
                of another column than `label` may list several classes, the photo's own first.
            also_feature: A column with further classes that are right for the photo as well; they follow
                its own in the feature `label_feature`.
            leave_out_unlabelled: Leave out photos without a class, and do not count them as rejected by
                `max_reject_fraction`; without it they are rejects like others.
            shards: Files per split; a worker holds one of them in memory. None takes 4, and more where the
                source has more than 512 MiB.
            reports_dir: Folder or URL that keeps the page of the rejects, also of a run that fails for them.
            range_config: Which spans to take, as in stock TFX.

        Raises:
            ConfigError: A value is out of its range.
            NoEntriesError: `splits` is None and there is no folder to look for them.
            SplitsError: The splits do not fit the source.
        """
        settings = {
            "layout": "listing" if listing else "folders",
            "label_feature": label_feature,
            "also_feature": also_feature,
            "leave_out_unlabelled": leave_out_unlabelled,
            "split_by": split_by,
            "labels": labels if labels is None or is_late(labels) else list(labels),
            "max_reject_fraction": max_reject_fraction,
            "max_image_bytes": max_image_bytes,
            "max_image_pixels": max_image_pixels,
            "follow_links": follow_links,
            "shards": shards,
            "reports_dir": converted(reports_dir),
        }
        check_config(IngestSettings, settings, source="ImageExampleGen", later=late_names(settings))
        refuse_late(
            "ImageExampleGen",
            listing=listing,
            splits=splits,
            pattern=pattern,
            label_feature=label_feature,
            also_feature=also_feature,
            leave_out_unlabelled=leave_out_unlabelled,
        )
        if not listing and label_feature != LABEL:
            problem = f"label_feature is {label_feature!r}, and folders give their class as {LABEL!r}"
            raise ConfigError("ImageExampleGen", [f"{problem}: give a listing that has the column"])
        _check_names(splits or ())
        source = listing or pattern
        if isinstance(splits, Mapping):
            _check_weights(splits)
            if not listing and not is_late(split_by):
                check_split_by(split_by)
            inputs = {"single_split": source}
            output = _hashed(splits, split_by)
        else:
            inputs = {
                name: source if listing else posixpath.join(name, source)
                for name in _names(splits, listing, input_base)
            }
            output = example_gen_pb2.Output()
        spec = ImageExampleGenSpec(
            input_base=converted(input_base),
            input_config=example_gen_pb2.Input(
                splits=[example_gen_pb2.Input.Split(name=name, pattern=path) for name, path in inputs.items()]
            ),
            output_config=output,
            output_data_format=example_gen_pb2.FORMAT_TF_EXAMPLE,
            output_file_format=example_gen_pb2.FILE_FORMAT_UNSPECIFIED,
            range_config=range_config,
            **{
                **settings,
                "labels": converted(settings["labels"], json.dumps),
                "max_reject_fraction": converted(max_reject_fraction, float),
                "follow_links": converted(follow_links, int),
                "leave_out_unlabelled": int(leave_out_unlabelled),
            },
            examples=channel.Channel(type=standard_artifacts.Examples),
            rejects=channel.Channel(type=RejectedRecords),
        )
        base_beam_component.BaseBeamComponent.__init__(self, spec=spec)


def _names(splits: Sequence[str] | None, listing: str | None, input_base: str | Late) -> list[str]:
    if splits:
        return list(splits)
    if listing:
        raise SplitsError(
            f"listing {listing!r} needs its splits by name",
            "Give weights (splits={'train': 4, 'eval': 1}), or the names in its column 'split'.",
        )
    if is_late(input_base) or not is_local(str(input_base)):
        raise SplitsError(
            f"input_base is {'known only at run time' if is_late(input_base) else input_base}, and no splits",
            "Give weights, such as splits={'train': 4, 'eval': 1}, or the names of the splits in it.",
        )
    if not Path(input_base).is_dir():
        raise NoEntriesError(str(input_base), "folders of splits", "no such folder")
    names = given_splits(input_base)
    if not names:
        raise SplitsError(
            f"{input_base} brings no splits of its own (no train/ with class folders)",
            "Give weights, such as splits={'train': 4, 'eval': 1}.",
        )
    return names


def _check_names(splits: Iterable[str]) -> None:
    wrong = [name for name in splits if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)]
    if wrong:
        raise SplitsError(
            f"a split is called {wrong[0]!r}",
            "Its name becomes a folder's: take letters, digits, '_', '.' and '-', such as 'train'.",
        )


def _check_weights(splits: Mapping[str, int]) -> None:
    wrong = [name for name, weight in splits.items() if not isinstance(weight, int) or weight < 1]
    if not splits or wrong:
        raise SplitsError(
            f"the weight of split {wrong[0]!r} is {splits[wrong[0]]!r}" if wrong else "there are no splits",
            "Give each split a whole number above 0, such as {'train': 4, 'eval': 1}.",
        )


def _hashed(splits: Mapping[str, int], split_by: str | Late) -> example_gen_pb2.Output:
    return example_gen_pb2.Output(
        split_config=example_gen_pb2.SplitConfig(
            splits=[
                example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=weight)
                for name, weight in splits.items()
            ],
            # For readers of the pipeline; the ingest goes by the parameter `split_by`.
            partition_feature_name="" if is_late(split_by) else split_by,
        )
    )
