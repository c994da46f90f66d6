"""Commands that an output suggests work as they stand: they name the root folder that was given."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mlplatform.cli.datasets import store_options
from mlplatform.cli.hints import hint, with_root
from mlplatform.datasets.errors import SplitFirewallError
from mlplatform.home import ROOT_VARIABLE


def printed(text: str, *arguments: str) -> str:
    @click.command()
    @store_options
    def command(store: str | None, root: str | None, as_json: bool) -> None:
        del store, root, as_json
        click.echo(with_root(text), nl=False)

    return CliRunner().invoke(command, arguments).output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see: mlplatform runs logs r1 Trainer", "see: mlplatform runs logs --root 'my home' r1 Trainer"),
        ("'mlplatform datasets verify' lists it", "'mlplatform datasets verify --root 'my home'' lists it"),
        ("mlplatform serve --port 1", "mlplatform serve --root 'my home' --port 1"),
        ("mlplatform run items", "mlplatform run --root 'my home' items"),
        ("mlplatform serve: ready", "mlplatform serve: ready"),
    ],
)
def test_a_suggested_command_names_the_root_that_was_given(text: str, expected: str) -> None:
    assert printed(text, "--root", "my home") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "with: mlplatform datasets commit items DIR",
            "with: mlplatform datasets commit --store s3://b/s items DIR",
        ),
        ("see: mlplatform runs show latest", "see: mlplatform runs show latest"),
    ],
)
def test_a_command_on_datasets_names_the_store_that_was_given(text: str, expected: str) -> None:
    assert printed(text, "--store", "s3://b/s") == expected


def test_the_store_overrides_the_root_for_datasets_alone() -> None:
    found = printed("mlplatform datasets log a; mlplatform runs list", "--root", "r", "--store", "s")
    assert found == "mlplatform datasets log --store s a; mlplatform runs list --root r"


def test_the_default_root_is_not_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    text = "see: mlplatform runs show latest"
    assert printed(text) == printed(text, "--root", str(tmp_path)) == text


def test_outside_a_command_a_text_is_left_as_it_is() -> None:
    assert with_root("mlplatform runs show latest") == "mlplatform runs show latest"


def test_an_error_of_the_library_names_it_too(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mlplatform.cli.main",
        "datasets",
        "log",
        "items",
        "--root",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"mlplatform datasets commit --root {tmp_path} items" in done.stderr


def test_the_library_names_its_own_arguments_and_the_command_line_its_options() -> None:
    error = SplitFirewallError("items", ["i1"], 1)
    assert "--" not in str(error)
    assert "unless partition_feature_name in their output_config names the feature to hash" in str(error)
    assert "is_firewall_on=False" in str(error)
    assert hint(error) == " (here: --no-firewall)"
