"""`mlplatform datasets`: the documented keys, the exit codes, and nothing heavy behind them."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlplatform.cli.datasets import datasets
from mlplatform.datasets import DatasetStore
from mlplatform.datasets.errors import DatasetNotFoundError, KeyValuesError
from mlplatform.errors import MlplatformError


@pytest.fixture
def root(tmp_path: Path, write_examples: Callable[..., Path], make_example: Callable[..., bytes]) -> Path:
    rows = [make_example({"item_id": f"i{n}", "label": f"c{n % 3}"}) for n in range(30)]
    write_examples(tmp_path / "a", {"train": [rows[:20]], "eval": [rows[20:]]})
    changed = [make_example({"item_id": "i0", "label": "c9"}), *rows[2:20], make_example({"item_id": "i77"})]
    write_examples(tmp_path / "b", {"train": [changed], "eval": [rows[20:]]})
    return tmp_path


def call(root: Path, *arguments: str) -> Any:
    result = CliRunner().invoke(datasets, [*arguments, "--root", str(root / "home"), "--json"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


def test_the_verbs_and_their_documented_keys(root: Path) -> None:
    done = call(root, "commit", "items", str(root / "a"), "--key", "item_id", "--label", "label")
    assert list(done) == [
        "dataset", "version", "digest", "is_new", "records", "added", "removed", "stored_bytes",
    ]  # fmt: skip
    assert done["records"] == {"eval": 10, "train": 20}
    call(root, "commit", "items", str(root / "b"), "-m", "more")
    assert call(root, "commit", "items", str(root / "a"))["is_new"] is False
    found = call(root, "diff", "items@v1", "items@latest", "--html", str(root / "page.html"))
    keys = ("added", "removed", "changed", "moved", "ambiguous", "unchanged")
    assert [found[key] for key in keys] == [1, 1, 1, 0, 0, 28]
    assert set(found["by_split"]) == {"train", "eval"}
    assert set(found["by_label"]) == {"", "c0", "c1", "c9"}
    assert "<html" in (root / "page.html").read_text()
    assert [one["version"] for one in call(root, "log", "items")] == ["v2", "v1"]
    assert [one["version"] for one in call(root, "list")] == ["v2"]
    assert call(root, "tag", "items@v1", "gold")["version"] == "v1"
    assert call(root, "show", "items@gold")["tags"] == ["gold"]
    assert call(root, "blame", "items", "i0")["versions"] == ["v1", "v2"]
    assert call(root, "forget", "items", "i0")["is_erased"] is False
    assert call(root, "checkout", "items@v1", str(root / "out"))["records"] == {"eval": 10, "train": 20}
    assert call(root, "export", "items@v1", str(root / "pq"))["path"] == str(root / "pq")
    assert sorted(path.name for path in (root / "pq").iterdir()) == ["eval.parquet", "train.parquet"]
    assert call(root, "verify", "items")["is_whole"] is True
    assert call(root, "gc")["files"] == 0
    assert call(root, "forget", "items", "i0", "--erase", "--why", "asked")["is_erased"] is True
    assert call(root, "verify", "items@v1")["is_whole"] is True


def test_show_says_what_was_made_of_a_version(root: Path) -> None:
    call(root, "commit", "items", str(root / "a"))
    assert call(root, "show", "items")["uses"] == []
    store = DatasetStore(root / "home" / "datasets")
    store.record_use("items", "v1", "model", "item_category", "run 7")
    call(root, "commit", "items", str(root / "b"), "--no-firewall")
    assert call(root, "show", "items")["uses"] == []
    (use,) = call(root, "show", "items@v1")["uses"]
    assert (use["version"], use["kind"], use["name"], use["detail"]) == (
        "v1",
        "model",
        "item_category",
        "run 7",
    )
    result = CliRunner().invoke(datasets, ["show", "items@v1", "--root", str(root / "home")])
    assert re.search(r"^  model item_category \(20\S+\) run 7$", result.stdout, re.MULTILINE)


READABLE = (
    ["commit", "d", "a"],
    ["log", "items"],
    ["show", "items"],
    ["blame", "items", "i1"],
    ["diff", "items@v1", "items@v2"],
    ["forget", "items", "i1"],
    ["tag", "items@v1", "gold"],
    ["verify", "items"],
    ["gc"],
    ["list"],
)


@pytest.mark.parametrize("verb", READABLE)
def test_without_json_every_verb_says_something_readable(root: Path, verb: list[str]) -> None:
    store = DatasetStore(root / "home" / "datasets")
    store.commit("items", root / "a", key=["item_id"], label="label")
    store.commit("items", root / "b")
    arguments = [str(root / "a") if one == "a" else one for one in verb]
    result = CliRunner().invoke(datasets, [*arguments, "--root", str(root / "home")])
    assert result.exit_code == 0, result.output
    assert len(result.output) > 10


def test_exit_codes(root: Path) -> None:
    def code(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "mlplatform.cli.main",
                "datasets",
                *arguments,
                "--root",
                str(root / "home"),
            ],
            capture_output=True,
            text=True,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    assert code("commit", "items", str(root / "a"), "--key", "item_id")[0] == 0
    status, text = code("show", "items@v9")
    assert (status, "has no version 'v9'" in text) == (2, True)
    assert code("diff", "items@v1", "items")[0] == 2
    assert code("commit", "items", str(root / "missing"))[0] == 2
    (root / "b" / "Split-eval").rename(root / "moved")
    (root / "a" / "Split-eval" / "data_tfrecord-00000-of-00001").rename(root / "b" / "Split-train" / "more")
    status, text = code("commit", "items", str(root / "b"))
    assert (status, "split firewall" in text, "item_id=i20" in text) == (3, True, True)
    packs = root / "home" / "datasets" / "items" / "packs"
    pack = packs / f"{DatasetStore(packs.parents[1]).show('items').packs[0].name}.tfrecord"
    pack.chmod(0o644)
    pack.write_bytes(pack.read_bytes()[:-1] + b"?")
    assert code("verify", "items")[0] == 1


def test_reading_verbs_load_neither_tensorflow_nor_beam_nor_tfx(root: Path) -> None:
    store = DatasetStore(root / "home" / "datasets")
    store.commit("items", root / "a", key=["item_id"])
    store.commit("items", root / "b")
    code = (
        "import json, sys\n"
        "from mlplatform.cli.main import cli\n"
        "for verb in (['log', 'items'], ['show', 'items@v1'], ['diff', 'items@v1', 'items@v2'],\n"
        "             ['blame', 'items', 'i1'], ['gc'], ['forget', 'items', 'i1'],\n"
        f"             ['diff', 'items@v1', 'items@v2', '--html', {str(root / 'page.html')!r}],\n"
        f"             ['checkout', 'items@v1', {str(root / 'out')!r}],\n"
        f"             ['commit', 'items', {str(root / 'a')!r}], ['verify', 'items']):\n"
        "    try:\n"
        f"        cli(['datasets', *verb, '--root', {str(root / 'home')!r}])\n"
        "    except SystemExit as stop:\n"
        "        assert stop.code == 0, verb\n"
        "print('LOADED', json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.rpartition("LOADED ")[2]))
    assert loaded & {"tensorflow", "apache_beam", "tfx", "pandas"} == set()


def test_every_verb_takes_the_same_options(root: Path) -> None:
    for name, command in datasets.commands.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert options >= {"--store", "--root", "--key", "--json"}, name
    call(root, "commit", "items", str(root / "a"), "--key", "item_id")
    assert call(root, "log", "items", "--key", "item_id")[0]["version"] == "v1"
    assert call(root, "gc", "--key", "item_id")["files"] == 0


def test_a_key_of_several_features_is_given_value_by_value(
    root: Path, write_examples: Callable[..., Path], make_example: Callable[..., bytes]
) -> None:
    rows = [make_example({"shop": "a, b", "number": 7}), make_example({"shop": "c", "number": 7})]
    write_examples(root / "c", {"train": [rows]})
    call(root, "commit", "shops", str(root / "c"), "--key", "shop", "--key", "number")
    found = call(root, "blame", "shops", "a, b", "7")
    assert (len(found["records"]), found["value"]) == (1, "a, b,7")
    assert len(call(root, "blame", "shops", "c,7")["records"]) == 1
    assert len(call(root, "forget", "shops", "a, b", "7", "--erase")["records"]) == 1
    with pytest.raises(KeyValuesError):
        call(root, "blame", "shops", "a, b,7")


def test_gc_of_a_name_that_is_no_dataset_is_wrong_usage(root: Path) -> None:
    call(root, "commit", "items", str(root / "a"))
    with pytest.raises(DatasetNotFoundError, match="has no dataset 'itmes'"):
        call(root, "gc", "itmes")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["log", "items", "-n", "-1"], "-1 is not in the range x>=0"),
        (["gc", "--grace-hours", "-1"], "-1.0 is not in the range x>=0"),
        (["gc", "--grace-hours", "nan"], "nan is no number of hours"),
    ],
)
def test_a_number_out_of_range_is_wrong_usage(root: Path, arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(datasets, [*arguments, "--root", str(root / "home")])
    assert result.exit_code == 2
    assert says in result.stderr


def test_an_expected_error_is_of_the_family(root: Path) -> None:
    with pytest.raises(MlplatformError):
        call(root, "log", "nothing")
