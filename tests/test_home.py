"""Where the root folder is, and what can be none."""

from pathlib import Path

import pytest

from mlplatform.home import Home, RemotePathError


def test_the_root_is_what_is_named_else_what_the_environment_names_else_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLPLATFORM_HOME", raising=False)
    assert Home.at().root == Home.at("").root == tmp_path / ".mlplatform"
    monkeypatch.setenv("MLPLATFORM_HOME", str(tmp_path / "there"))
    assert Home.at().root == tmp_path / "there"
    assert Home.at("here").root == tmp_path / "here"


@pytest.mark.parametrize("root", ["s3://bucket/home", "~nobody-by-this-name/home"])
def test_a_root_that_is_no_folder_of_this_machine_is_refused(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RemotePathError, match="no folder of this machine"):
        Home.at(root)
    monkeypatch.setenv("MLPLATFORM_HOME", root)
    with pytest.raises(RemotePathError, match="no folder of this machine"):
        Home.at()
