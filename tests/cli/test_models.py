"""`mlplatform models`: each verb, its JSON keys and its errors."""

import json
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from mlplatform.cli.main import exit_code
from mlplatform.cli.models import ModelReferenceError, models
from mlplatform.registry import ModelStore
from mlplatform.registry.errors import InvalidLabelError, ModelNotFoundError, ModelVersionNotFoundError

ROW = {
    *("version", "labels", "pushed_at", "pushed_by", "why", "run", "dataset", "digest"),
    *("metrics", "is_withdrawn", "is_signed", "integrity", "history", "path"),
}


LIST_ROW = {"name", "version", "versions", "labels", "pushed_at", "dataset", "metrics", "problem"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A root folder with two versions of `items`, the second from a pipeline's run."""
    store = ModelStore(tmp_path / "home" / "models")
    store.push(saved_model(tmp_path / "a"), "items", why="by hand")
    store.push(
        saved_model(tmp_path / "b"), "items", run="run-7", dataset="items@v3", metrics={"top_1": 0.91234}
    )
    return tmp_path / "home"


def saved_model(folder: Path) -> Path:
    """A folder that looks like a SavedModel; the store never reads inside."""
    folder.mkdir()
    (folder / "saved_model.pb").write_text(folder.name)
    return folder


def run(home: Path | str, *arguments: str) -> Result:
    return CliRunner().invoke(models, [*arguments, "--root", str(home)])


def answer(home: Path | str, *arguments: str) -> Any:
    result = run(home, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_list(home: Path) -> None:
    (row,) = answer(home, "list")
    assert set(row) == LIST_ROW
    assert (row["name"], row["version"], row["versions"], row["dataset"]) == ("items", 2, 2, "items@v3")
    assert (row["labels"], row["metrics"], row["problem"]) == ({}, {"top_1": 0.91234}, None)
    text = run(home, "list").output
    assert "items  version 2  pushed 20" in text
    assert "data items@v3  top_1 0.9123" in text
    (home / "models" / "empty").mkdir()
    assert answer(home, "list")[0] == {
        "name": "empty",
        **dict.fromkeys(("version", "pushed_at", "dataset", "problem")),
        "versions": 0,
        "labels": {},
        "metrics": {},
    }
    assert "empty  version -  pushed -  data -" in run(home, "list").output


def test_list_says_when_there_is_none(tmp_path: Path) -> None:
    assert answer(tmp_path, "list") == []
    assert "No model was pushed under" in run(tmp_path, "list").output


def test_show(home: Path) -> None:
    shown = answer(home, "show", "items")
    assert (shown["name"], shown["base_path"]) == ("items", str(home / "models" / "items"))
    first, second = shown["versions"]
    assert set(first) == set(second) == ROW
    assert (first["version"], first["why"], first["labels"]) == (1, "by hand", [])
    assert (second["run"], second["dataset"], second["is_withdrawn"]) == ("run-7", "items@v3", False)
    text = run(home, "show", "items").output
    assert "run run-7  data items@v3" in text
    assert "run -  data -" in text


def test_push(home: Path, tmp_path: Path) -> None:
    model = saved_model(tmp_path / "c")
    pushed = answer(home, "push", str(model), "items", "--why", "a try", "--keep", "2")
    assert set(pushed) == {*ROW, "is_new"}
    assert (pushed["version"], pushed["is_new"], pushed["why"]) == (3, True, "a try")
    assert [v["version"] for v in answer(home, "show", "items")["versions"]] == [2, 3]
    assert "already the newest" in run(home, "push", str(model), "items").output


def test_what_was_rolled_back_is_refused_until_it_is_allowed(home: Path, tmp_path: Path) -> None:
    run(home, "rollback", "items", "--why", "bad on shoes")
    refused = run(home, "push", str(tmp_path / "b"), "items")
    assert exit_code(refused.exception) == 3
    assert "was rolled back as version 2" in str(refused.exception)
    assert str(refused.exception).count("bad on shoes") == 1
    assert "--allow-withdrawn" in refused.stderr
    assert "--" not in str(refused.exception)  # who calls the library has no flags
    assert answer(home, "push", str(tmp_path / "b"), "items", "--allow-withdrawn")["version"] == 3


def test_one_damaged_model_does_not_keep_the_others_from_being_listed(home: Path, tmp_path: Path) -> None:
    ModelStore(home / "models").push(saved_model(tmp_path / "c"), "others")
    stream = home / "ledger" / "models" / "items"
    shutil.rmtree(stream)
    stream.touch()
    broken, whole = answer(home, "list")
    assert (broken["name"], broken["version"]) == ("items", None)
    assert "cannot be opened: it is not a folder" in broken["problem"]
    assert (whole["name"], whole["version"], whole["problem"]) == ("others", 1, None)


def test_a_root_at_a_url(tmp_path: Path) -> None:
    root = f"memory://{tmp_path.name}"
    for name in "ab":
        model = saved_model(tmp_path / name)
        assert f"pushed, {root}/models/items/" in run(root, "push", str(model), "items").output
    run(root, "promote", "items@2", "--why", "good on hats")
    run(root, "rollback", "items", "--why", "bad on shoes")
    shown = answer(root, "show", "items")
    assert shown["base_path"] == f"{root}/models/items"
    assert [(v["version"], v["labels"], v["is_withdrawn"], v["integrity"]) for v in shown["versions"]] == [
        (1, ["stable"], False, "intact"),
        (2, [], True, "intact"),
    ]
    assert [event["event"] for event in shown["versions"][1]["history"]] == ["push", "promote", "rollback"]
    assert "bad on shoes" in run(root, "show", "items").output
    (row,) = answer(root, "list")
    assert (row["name"], row["version"], row["labels"]) == ("items", 1, {"stable": 1})


def test_show_says_what_was_changed_since_its_push(home: Path) -> None:
    (home / "models" / "items" / "2" / "saved_model.pb").write_text("other weights")
    assert [v["integrity"] for v in answer(home, "show", "items")["versions"]] == ["intact", "changed"]
    assert "2  [CHANGED since it was pushed" in run(home, "show", "items").output
    assert exit_code(run(home, "promote", "items@2").exception) == 3


@pytest.mark.parametrize("keep", ["-1", "many"])
def test_push_keeps_no_less_than_nothing(home: Path, tmp_path: Path, keep: str) -> None:
    result = run(home, "push", str(saved_model(tmp_path / "c")), "items", "--keep", keep)
    assert result.exit_code == 2
    assert "--keep" in result.output
    assert [v["version"] for v in answer(home, "show", "items")["versions"]] == [1, 2]


def test_promote_and_rollback(home: Path) -> None:
    promoted = answer(home, "promote", "items@1", "--label", "canary")
    assert (set(promoted), promoted["version"], promoted["labels"]) == (ROW, 1, ["canary"])
    assert "is now 'stable'" in run(home, "promote", "items@latest").output
    back = answer(home, "rollback", "items", "--why", "bad on shoes")
    assert (set(back), back["version"]) == (ROW, 1)
    shown = run(home, "show", "items").output
    assert "1  [canary, stable]" in shown  # `stable` named no version before: it goes where servers go
    assert "2  [withdrawn]" in shown
    assert "rollback 20" in shown
    assert ": bad on shoes" in shown
    assert answer(home, "promote", "items@2")["is_withdrawn"] is False
    assert "items is back at version 1" in run(home, "rollback", "items", "--to", "canary").output


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["show", "itms"], ModelNotFoundError),
        (["promote", "items"], ModelReferenceError),
        (["promote", "items@9"], ModelVersionNotFoundError),
        (["promote", "items@1", "--label", "latest"], InvalidLabelError),
        (["promote", "items@1", "--label", "2"], InvalidLabelError),
        (["rollback", "items", "--to", "9"], ModelVersionNotFoundError),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(home: Path, arguments: list[str], error: type) -> None:
    raised = run(home, *arguments).exception
    assert isinstance(raised, error)
    assert not isinstance(raised, click.ClickException)
    assert exit_code(raised) == 2
