"""Where the root is, what cannot be one, and what of a root at a URL has to be on this machine."""

from pathlib import Path

import pytest

from mlplatform.home import Home, RemotePathError

PLACES = ("datasets", "models", "ledger", "reports", "requests", "work")
OF_THE_MACHINE = ("metadata_db", "pipelines", "runs", "cache")


def test_the_root_is_what_is_named_else_what_the_environment_names_else_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLPLATFORM_HOME", raising=False)
    assert Home.at().root == Home.at("").root == str(tmp_path / ".mlplatform")
    monkeypatch.setenv("MLPLATFORM_HOME", str(tmp_path / "there"))
    assert Home.at().root == str(tmp_path / "there")
    assert Home.at("here").root == Home.at(Path("here")).root == str(tmp_path / "here")
    assert Home.at(f"file://{tmp_path}/here") == Home.at("here")
    monkeypatch.setenv("MLPLATFORM_HOME", "s3://bucket/team/")
    assert Home.at().root == "s3://bucket/team"


def test_all_places_of_a_local_root_are_below_it(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    assert [getattr(home, name) for name in PLACES] == [str(tmp_path / name) for name in PLACES]
    assert home.machine == tmp_path
    assert all(getattr(home, name).is_relative_to(tmp_path) for name in OF_THE_MACHINE)


def test_of_a_root_at_a_url_only_what_needs_a_disk_is_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    home, other = Home.at("s3://bucket/team"), Home.at("s3://bucket/other")
    assert [getattr(home, name) for name in PLACES] == [f"s3://bucket/team/{name}" for name in PLACES]
    assert all(getattr(home, name).is_relative_to(home.machine) for name in OF_THE_MACHINE)
    assert home.machine.parent == other.machine.parent == tmp_path / "mlplatform" / "roots"
    assert home.machine != other.machine
    assert home.machine == Home.at("s3://bucket/team/").machine
    assert list(tmp_path.iterdir()) == [], "nothing is created by naming it"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert home.machine.parent == tmp_path / "me" / ".cache" / "mlplatform" / "roots"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, by the XDG specification
    assert home.machine.parent == tmp_path / "me" / ".cache" / "mlplatform" / "roots"


def test_the_home_of_a_user_whom_this_machine_does_not_know_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = "~nobody-by-this-name/home"
    with pytest.raises(RemotePathError, match="not a folder of this machine"):
        Home.at(root)
    monkeypatch.setenv("MLPLATFORM_HOME", root)
    with pytest.raises(RemotePathError, match="not a folder of this machine"):
        Home.at()
