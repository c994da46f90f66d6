"""What counts in a node's key, and what does not."""

import json
import uuid

import pytest

from mlplatform.fingerprints.digests import Digests
from mlplatform.orchestration.local.cache.cache_key import KeyedArtifact, artifact_digest, make_key
from mlplatform.roles import FINGERPRINT, READ, VALUE, WRITTEN
from mlplatform.storage import open_storage


@pytest.fixture
def bucket():
    return f"memory://{uuid.uuid4().hex}/data"


@pytest.fixture
def key(tmp_path, monkeypatch):
    """Return a function that makes the key of a node with some parameters, in a working folder of its own."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def make(*, executor="json.Executor", written=(), roles=None, **parameters):
        return make_key(
            roles=roles,
            pipeline="p",
            node="n",
            component="C",
            executor=executor,
            inputs={},
            outputs={},
            parameters=parameters,
            digests=Digests(tmp_path / "memory"),
            written=written,
        )

    return make


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


def test_the_same_again_is_the_same_key(key):
    assert key(steps=1).key == key(steps=1).key
    assert key(steps=1).key != key(steps=2).key


@pytest.mark.parametrize("name", ["words.txt", "{work}/words.txt"])
@pytest.mark.parametrize("within", ["{}", '{{"deep": ["{}", 1]}}'])
def test_a_file_counts_by_content_wherever_it_is_named(key, work, name, within):
    (work / "words.txt").write_text("one")
    value = within.format(name.format(work=work))
    first = key(vocabulary=value)
    (work / "words.txt").write_text("two")
    assert key(vocabulary=value).key != first.key
    assert str(work / "words.txt") in first.paths


@pytest.mark.parametrize("name", ["trainer.py", "{work}/trainer.py"])
def test_a_source_file_counts_with_its_neighbours(key, work, name):
    (work / "trainer.py").write_text("import layers")
    (work / "layers.py").write_text("SIZE = 1")
    name = name.format(work=work)
    first = key(module_file=name)
    assert {file.rpartition("/")[2] for file in first.files} >= {"trainer.py", "layers.py"}
    (work / "layers.py").write_text("SIZE = 2")
    assert key(module_file=name).key != first.key


@pytest.mark.parametrize("base", ["data", "{work}/data"])
def test_the_content_of_what_is_read_stands_for_its_fingerprint(key, work, base):
    (work / "data").mkdir()
    (work / "data/a.csv").write_text("1")
    base = base.format(work=work)
    roles = {"photos": READ, "at": FINGERPRINT}
    first = key(photos=base, at="ten", roles=roles)
    assert key(photos=base, at="noon", roles=roles).key == first.key
    assert key(photos=base, at="noon").key != key(photos=base, at="ten").key
    (work / "data/a.csv").write_text("2")
    assert key(photos=base, at="ten", roles=roles).key != first.key


def test_a_fingerprint_counts_where_content_cannot_be_read(key):
    roles = {"photos": READ, "at": FINGERPRINT}
    first = key(photos="hdfs://bucket/data", at="ten", roles=roles)
    assert first.paths == {}
    assert key(photos="hdfs://bucket/data", at="noon", roles=roles).key != first.key


def test_what_is_read_in_object_storage_counts_by_content(key, bucket):
    roles = {"photos": READ, "at": FINGERPRINT}
    nothing = key(photos=bucket, at="ten", roles=roles)
    assert nothing.paths == {bucket: ""}
    open_storage(bucket).put("a.csv", b"1")
    first = key(photos=bucket, at="ten", roles=roles)
    assert key(photos=bucket, at="noon", roles=roles).key == first.key
    open_storage(bucket).put("a.csv", b"2")
    assert len({made.key for made in (nothing, first, key(photos=bucket, at="ten", roles=roles))}) == 3


def test_a_place_in_object_storage_that_is_written_or_a_plain_value_is_not_looked_at(key, bucket):
    roles = {"a": WRITTEN, "b": VALUE}
    first = key(a=bucket, b=bucket, c=bucket, roles=roles)
    open_storage(bucket).put("1/model", b"1")
    again = key(a=bucket, b=bucket, c=bucket, roles=roles)
    assert (again.key, again.folders, again.paths) == (first.key, {}, {})


NAMES = ["store", "models_dir", "push_destination", "reports_dir", "work_dir", "input_base", "image_dir"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_parameter_says_that_a_folder_is_no_data(key, work, name):
    (work / "images/inner").mkdir(parents=True)
    (work / "images/inner/a.png").write_text("a")
    made = key(split="images", all=".", **{name: str(work / "images")})
    assert list(made.folders) == [str(work / "images")]
    assert key(written=[str(work / "images/inner")], **{name: str(work / "images")}).folders == {}


@pytest.mark.parametrize("role", [WRITTEN, VALUE])
def test_what_is_written_or_a_plain_value_counts_as_it_is(key, work, role):
    (work / "models").mkdir()
    (work / "words").write_text("one")
    first = key(a=str(work / "models"), b="words", roles={"a": role, "b": role})
    (work / "models/1").mkdir()
    (work / "words").write_text("two")
    again = key(a=str(work / "models"), b="words", roles={"a": role, "b": role})
    assert (again.key, again.folders, again.paths) == (first.key, {}, {})


def test_a_variable_counts_and_its_value_is_not_told(key, work, monkeypatch):
    (work / "trainer.py").write_text("import os\nos.environ['RATE'], os.environ['TERM']")
    monkeypatch.setenv("RATE", "a secret")
    first = key(module_file="trainer.py")
    assert "a secret" not in json.dumps(first.parts)
    assert "variable TERM" not in first.parts
    monkeypatch.setenv("RATE", "another")
    assert key(module_file="trainer.py").key != first.key


def test_a_function_in_a_module_without_a_package_counts(key, work, monkeypatch):
    (work / "model_by_name.py").write_text("def build(): pass")
    monkeypatch.syspath_prepend(str(work))
    assert str(work / "model_by_name.py") in key(run_fn="model_by_name:build").files


def test_code_that_is_not_found_gives_no_key_twice(key):
    first = key(executor="made_in_the_air.Executor")
    assert "made_in_the_air" in first.uncertain
    assert key(executor="made_in_the_air.Executor").key != first.key


@pytest.mark.parametrize(
    ("type_", "where", "name", "counts"),
    [
        ("Photos", "properties", "state", True),
        ("Photos", "properties", "name", True),
        ("Photos", "custom_properties", "current_model", True),
        ("Photos", "custom_properties", "input_fingerprint", True),
        ("Photos", "custom_properties", "state", False),  # TFX's own
        ("Examples", "custom_properties", "input_fingerprint", False),
        ("ModelBlessing", "custom_properties", "current_model_id", False),
        ("PushedModel", "custom_properties", "pushed_version", False),
    ],
)
def test_which_properties_of_an_artifact_count(tmp_path, type_, where, name, counts):
    digests = Digests(tmp_path)
    one, other = (
        artifact_digest(KeyedArtifact(type_, str(tmp_path / "no"), 1, **{where: {name: value}}), digests)
        for value in ("one", "other")
    )
    assert (one != other) == counts
