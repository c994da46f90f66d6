"""The docs are true: links lead somewhere, commands exist, the command reference is the help texts."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mlplatform.cli.main import cli

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted(
    page
    for folder in ("", "docs", "components", "pipelines", "examples")
    for page in (REPOSITORY / folder).glob("*.md" if not folder else "**/*.md")
)


def commands_in(page: Path) -> Iterator[str]:
    """Every `mlplatform ...` line in the page's shell blocks."""
    for block in re.findall(
        r"^```(?:sh|bash|console)\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        for line in block.replace("\\\n", " ").splitlines():
            if line.removeprefix("$ ").startswith("mlplatform "):
                yield line.removeprefix("$ ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize(
    ("page", "line"),
    [(page, line) for page in PAGES for line in commands_in(page)],
    ids=lambda value: Path(value).name,
)
def test_commands_in_the_docs_parse(page: Path, line: str) -> None:
    words = shlex.split(line.split(" | ")[0].split(" > ")[0], comments=True)[1:]
    command: click.Command = cli
    context = click.Context(cli, info_name="mlplatform")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"{page}: no command {words[0]!r} in: {line}"
        command, words = found, words[1:]
        context = click.Context(command, parent=context, info_name=command.name)
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options = {word.split("=")[0] for word in words if word.startswith("--")}
    assert options - known - {"--help", "--version"} == set(), f"{page}: {line}"


def test_the_command_reference_is_the_help_of_the_commands() -> None:
    # In a process of its own: a command's help is what its first use in a process made of it.
    program = "import runpy, sys; print(runpy.run_path(sys.argv[1])['reference'](), end='')"
    tool = REPOSITORY / "tools" / "make_command_reference.py"
    written = subprocess.run(
        [sys.executable, "-c", program, str(tool)], capture_output=True, text=True, check=True
    ).stdout
    page = REPOSITORY / "docs" / "reference" / "command-line.md"
    assert page.read_text("utf-8") == written, "run: python tools/make_command_reference.py"


def test_every_component_and_pipeline_has_a_readme() -> None:
    folders = [
        module.parent
        for folder in ("components", "pipelines")
        for module in (REPOSITORY / folder).glob("*/__init__.py")
    ]
    assert len(folders) >= 7
    assert [folder.name for folder in folders if not (folder / "README.md").exists()] == []


def test_every_how_to_and_reference_page_is_in_the_index() -> None:
    index = (REPOSITORY / "docs" / "README.md").read_text("utf-8")
    pages = [p.relative_to(REPOSITORY / "docs").as_posix() for p in (REPOSITORY / "docs").glob("*/*.md")]
    assert [page for page in pages if page not in index] == []
