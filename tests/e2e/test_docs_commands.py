"""The commands of the README and the start page, run as they stand there, one after another."""

import json
import re
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

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
    photos: Path,
    alone: Callable[[], AbstractContextManager[None]],
    settings: list[str],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the root, and on the photos, of a run with a quick network: the pages' runs are cached ones."""
    (tmp_path / "photos").symlink_to(photos)
    monkeypatch.setenv("MLPLATFORM_HOME", str(home))
    found = commands(page)
    assert len(found) >= 3
    for line in found:
        words = shlex.split(line, comments=True)[1:]
        if words[0] == "run":
            words += settings
        with alone():
            done = command(*words, cwd=tmp_path)
        assert done.code == 0, f"{line}\n{done.err[-3000:]}"
    shown = json.loads(command("runs", "show", "--root", home, "--json").out)
    assert {node["state"] for node in shown["nodes"]} == {"cached"}, "it is another run than that of `home`"
