"""Which libraries there are: what is installed, and nothing else."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlplatform.fingerprints import libraries
from mlplatform.fingerprints.libraries import environment_fingerprint, versions_behind


@pytest.fixture
def read_anew() -> Iterator[Callable[[], None]]:
    def clear() -> None:
        for cached in (libraries._distribution, libraries._distributions_of_packages):
            cached.cache_clear()

    clear()
    yield clear
    clear()


def test_private_copies_of_setuptools_are_no_installed_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_anew: Callable[[], None]
) -> None:
    before = environment_fingerprint()
    vendored = tmp_path / "setuptools" / "_vendor"
    info = vendored / "privately_copied-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: privately-copied\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("privately_copied\n")
    monkeypatch.syspath_prepend(str(vendored))
    assert environment_fingerprint() == before
    assert "privately-copied" not in versions_behind({"privately_copied"})
    assert "pydantic" in versions_behind({"pydantic"})

    vendored.rename(tmp_path / "site-packages")  # installed, as others are
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    read_anew()
    assert environment_fingerprint() != before
    assert versions_behind({"privately_copied"})["privately-copied"] == "1.0"
