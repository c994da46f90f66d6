"""The commands of the README and the start page, run as they stand there, one after another."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlplatform.demo.photos import make_photos

REPOSITORY = Path(__file__).parents[2]
# A server runs until it is stopped (other tests start it); the last one is the reader's own file.
NOT_RUN = ("mlplatform serve", "mlplatform run my_pipeline.py")

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

Command = Callable[..., "Finished"]  # noqa: F821 - see tests/conftest.py


def commands(page: str) -> list[str]:
    text = (REPOSITORY / page).read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("mlplatform ")]
    return [line for line in lines if not line.startswith(NOT_RUN)]


@pytest.mark.parametrize("page", ["README.md", "docs/start.md"])
def test_every_command_of_the_page_works(
    page: str,
    home: Path,
    settings: list[str],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(home, tmp_path / "demo-out" / "home")
    make_photos(tmp_path / "photos", categories=4, per_category=20, unseen=0, size_px=128)
    monkeypatch.setenv("MLPLATFORM_HOME", "demo-out/home")
    found = commands(page)
    assert len(found) >= 3
    for line in found:
        words = shlex.split(line, comments=True)[1:]
        if words[0] == "run" and page != "README.md":  # which trains the default network
            words += [*settings, "--set", "thresholds.max_top_1_drop=1"]
        done = command(*words, cwd=tmp_path)
        assert done.code == 0, f"{line}\n{done.err[-3000:]}"
