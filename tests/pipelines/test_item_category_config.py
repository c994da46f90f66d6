"""The item-category configuration: every key is in config.yaml, and what a data folder brings is found."""

from pathlib import Path

import pytest

from mlplatform.components.image_example_gen.photo_folder import NoPhotosError, Photos, find_photos
from mlplatform.config_file import ConfigError, read_yaml
from mlplatform.errors import UsageError
from mlplatform.orchestration.kubeflow.options import KubernetesOptions
from mlplatform.pipelines.item_category import check_arguments
from mlplatform.pipelines.item_category.config import DEFAULTS, load_config
from mlplatform.training.image_classifier_settings import ClassifierSettings

SPLITS = {"train": 4, "eval": 1}


def test_config_yaml_holds_every_key_with_the_value_that_holds_without_it() -> None:
    values = read_yaml(DEFAULTS)
    settings = load_config({})
    assert settings.kubernetes == KubernetesOptions()
    assert settings.model_dump(by_alias=True, exclude={"kubernetes"}) | {"kubernetes": {}} == values
    assert ClassifierSettings().model_dump() == values["model"]


def test_every_key_of_config_yaml_is_explained() -> None:
    previous = ""
    for line in DEFAULTS.read_text("utf-8").splitlines():
        if line.strip() and not line.strip().startswith("#"):
            assert previous.strip().startswith("#"), line
        previous = line


def test_changes_reach_inside_blocks() -> None:
    settings = load_config({"model": {"epochs": 3}, "keep": 2})
    assert (settings.model.epochs, settings.model.backbone, settings.keep) == (3, "efficientnet_lite0", 2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"modle": {}}, "unknown key 'modle'; did you mean 'model'?"),
        ({"model": {"epoch": 1}}, "unknown key 'model.epoch'; did you mean 'model.epochs'?"),
        ({"splits": {"train": 1}}, "splits"),
        ({"model": {"image_size": 7}}, "model.image_size is 7"),
        ({"model": {"backbone": "eficientnet_lite0"}}, "did you mean 'efficientnet_lite0'?"),
        ({"splits": {"train": 4, "eval": 0}}, "splits.eval is 0"),
        ({"splits": {"train": 4, "../x": 1}}, "splits"),
        ({"model_name": "../x"}, "model_name is '../x'"),
        ({"dataset": "my items"}, "dataset is 'my items'"),
        ({"servers": ["localhost"]}, "servers.0 is 'localhost'"),
        ({"policy": {"leek": "block"}}, "unknown key 'leek'; did you mean 'leak'?"),
        ({"drift_threshold": 2}, "drift_threshold is 2"),
        ({"shards": 0}, "shards is 0"),
        ({"thresholds": {"top_1": 1.5}}, "thresholds.top_1 is 1.5"),
        ({"budget": {"model_size_mb": 0}}, "budget.model_size_mb is 0"),
    ],
)
def test_a_wrong_key_or_value_is_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match="item_category") as caught:
        load_config(changes)
    assert says in str(caught.value)


def test_files_that_the_settings_name_are_checked_where_the_pipeline_runs(tmp_path: Path) -> None:
    (tmp_path / "data" / "boots").mkdir(parents=True)
    config = {"schema": "none.pbtxt", "model": {"backbone": "none.keras"}}
    load_config(config)
    with pytest.raises(ConfigError) as caught:
        check_arguments(tmp_path / "data", tmp_path, **config)
    assert "schema is 'none.pbtxt': there is no such file" in str(caught.value)
    assert "model.backbone is 'none.keras': there is no such file" in str(caught.value)
    check_arguments(tmp_path / "data", tmp_path, schema="s3://bucket/schema.pbtxt")


@pytest.mark.parametrize("data", ["/not/on/this/machine", "s3://bucket/photos"])
def test_a_folder_that_this_machine_does_not_have_is_as_the_settings_say(data: str) -> None:
    photos = find_photos(data, None, SPLITS)
    assert photos == Photos(data, None, (), "train", "eval", "eval")
    photos = find_photos(data, "rows.csv", SPLITS, ["train", "test", "validation"])
    assert photos.own_splits == ("train", "test", "validation")
    assert photos == Photos(data, "rows.csv", photos.own_splits, "train", "validation", "test")


def test_splits_that_are_named_are_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "listing.csv").write_text("not read")
    photos = find_photos(tmp_path, None, SPLITS, ["learn", "judge"])
    assert (photos.listing, photos.train_split, photos.test_split) == ("listing.csv", "learn", "judge")


def test_folders_of_categories_are_divided_by_hash(tmp_path: Path) -> None:
    (tmp_path / "boots").mkdir()
    photos = find_photos(tmp_path, None, SPLITS)
    assert (photos.own_splits, photos.train_split, photos.test_split, photos.listing) == (
        (),
        "train",
        "eval",
        None,
    )


def test_splits_that_the_data_brings_are_kept(tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        (tmp_path / name / "boots").mkdir(parents=True)
    photos = find_photos(tmp_path, None, SPLITS)
    assert photos.own_splits == ("train", "test", "validation")
    assert (photos.train_split, photos.validation_split, photos.test_split) == ("train", "validation", "test")


def test_a_listing_goes_before_folders(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "listing.csv").write_text("path,label\n")
    assert find_photos(tmp_path, None, SPLITS).listing == "listing.csv"


def test_a_listing_may_bring_its_splits(tmp_path: Path) -> None:
    listing = tmp_path / "listing.csv"
    listing.write_text("path,label,split\na,x,train\nb,x,validation\nc,x,test\nd,x,tset\ne,x,\n")
    photos = find_photos(tmp_path, None, SPLITS)
    assert photos.own_splits == ("train", "test", "validation")
    assert (photos.train_split, photos.validation_split, photos.test_split) == ("train", "validation", "test")
    (tmp_path / "rows.jsonl").write_text('{"path": "a", "split": "train"}\n{"path": "b", "split": "val"}\n')
    assert find_photos(tmp_path, "rows.jsonl", SPLITS).own_splits == ("train", "val")
    listing.write_text("path,label,split\na,x,1\nb,x,2\n")
    with pytest.raises(NoPhotosError, match=r"names '1', '2', where it must name 'train' and one or more of"):
        find_photos(tmp_path, None, SPLITS)


def test_splits_without_one_to_train_on_are_told(tmp_path: Path) -> None:
    for name in ("training", "validation"):
        (tmp_path / name / "boots").mkdir(parents=True)
    with pytest.raises(UsageError, match="training and validation hold folders and no photos"):
        find_photos(tmp_path, None, SPLITS)


def test_training_photos_without_any_to_evaluate_on_are_told(tmp_path: Path) -> None:
    (tmp_path / "train" / "boots").mkdir(parents=True)
    with pytest.raises(NoPhotosError, match="no split to evaluate on"):
        find_photos(tmp_path, None, SPLITS)


@pytest.mark.parametrize("what", ["missing", "file", "empty", "listing"])
def test_nothing_to_read_is_one_clear_error(tmp_path: Path, what: str) -> None:
    place = tmp_path / "data"
    if what == "file":
        place.write_text("x")
    elif what != "missing":
        place.mkdir()
    with pytest.raises(NoPhotosError, match=r"Give a folder with one folder of photos per category"):
        check_arguments(place, tmp_path, listing="none.csv" if what == "listing" else None)
