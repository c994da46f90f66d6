"""`mlplatform search`: find items by photo, add and remove items, take the index elsewhere."""

import json
from pathlib import Path
from typing import Any

import click

from mlplatform.cli.options import echo_json, json_option, root_option
from mlplatform.errors import UsageError
from mlplatform.home import Home

_PHOTOS = (".jpg", ".jpeg", ".png", ".webp")


class FilterConditionError(UsageError):
    """A condition was not given as COLUMN=VALUE."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return (
            f"--filter {self.text!r} is not COLUMN=VALUE, such as label=dress, or price=10..50 for numbers."
        )


class PhotoFileError(UsageError):
    """There is no photo where one was named."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.path}: there is no photo there; give a file, or a folder with {', '.join(_PHOTOS)} files."
        )


@click.group()
def search() -> None:
    """Search by photo: query, add and remove items, export."""


@search.command()
@click.argument("model")
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-k", "count", type=click.IntRange(min=1), default=10, show_default=True, help="Items per photo."
)
@click.option(
    "--filter",
    "conditions",
    metavar="COLUMN=VALUE",
    multiple=True,
    help="Only items like this (repeatable; several values of a column: any of them); LOW..HIGH for numbers.",
)
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default=None,
    help="Write a page with the photos and what was found.",
)
@root_option
@json_option
def query(
    model: str,
    photos: tuple[Path, ...],
    count: int,
    conditions: tuple[str, ...],
    html: Path | None,
    root: str | None,
    as_json: bool,
) -> None:
    """Find the items nearest to each of PHOTOS in MODEL[@VERSION], in this process."""
    condition = _condition(conditions)
    files = _files(photos)
    from mlplatform.serving.local_search import open_search

    with open_search(Home.at(root).models, model) as found:
        answers = [(str(file), found.nearest(file.read_bytes(), count, condition)) for file in files]
        if html is not None:
            from mlplatform.serving.local_search import write_answers

            write_answers(html, model, answers, found, Home.at(root).datasets)
        results = [{"photo": photo, "items": items} for photo, items in answers]
        document = {"model_version": found.version, "index_version": found.version, "results": results}
    if as_json:
        echo_json(document)
        return
    for photo, items in answers:
        click.echo(photo)
        for item in items:
            columns = {k: v for k, v in item.items() if k not in ("item_id", "score") and v is not None}
            more = "  ".join(f"{name} {value}" for name, value in columns.items())
            click.echo(f"  {item['score']:.3f}  {item['item_id']}  {more}".rstrip())


@search.command()
@click.argument("model")
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--item-id", default=None, help="The item of the photos [default: each file's name].")
@click.option("--column", "columns", metavar="COLUMN=VALUE", multiple=True, help="A value of the items.")
@root_option
@json_option
def add(
    model: str,
    photos: tuple[Path, ...],
    item_id: str | None,
    columns: tuple[str, ...],
    root: str | None,
    as_json: bool,
) -> None:
    """Add items to the index of MODEL: servers find them when this command ends, without a rebuild.

    An item that is there already is replaced.
    """
    values = {name: _value(text) for name, text in map(_pair, columns)}
    files = _files(photos)
    from mlplatform.serving.local_search import add_items

    items = [(item_id or file.stem, file.read_bytes(), values) for file in files]
    segment = add_items(Home.at(root).models, model, items)
    added = sorted({name for name, _, _ in items})
    if as_json:
        echo_json({"model": model, "segment": segment, "added": added})
    else:
        click.echo(f"{model}: {len(added)} items added (segment {segment})")


@search.command()
@click.argument("model")
@click.argument("item_ids", nargs=-1, required=True)
@root_option
@json_option
def remove(model: str, item_ids: tuple[str, ...], root: str | None, as_json: bool) -> None:
    """Hide items from the searches of MODEL: no server finds them when this command ends.

    They stay hidden in later indexes, too, until they are added again.
    """
    from mlplatform.registry import ModelStore
    from mlplatform.search.segments import Segment, Segments

    store = ModelStore(Home.at(root).models)
    store.version(model, "latest")  # an unknown model is an error
    segment = Segments(store.base_path(model)).append(Segment("", item_ids, is_removal=True))
    if as_json:
        echo_json({"model": model, "segment": segment, "removed": list(item_ids)})
    else:
        click.echo(f"{model}: {len(item_ids)} items removed (segment {segment})")


@search.command()
@click.argument("model")
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "vespa", "saved_model"]),
    default="parquet",
    show_default=True,
    help="Parquet (ids, float32 vectors, columns), a JSON lines feed for Vespa, or a SavedModel with all "
    "items in it, for stock TensorFlow Serving.",
)
@root_option
@json_option
def export(model: str, target: Path, form: str, root: str | None, as_json: bool) -> None:
    """Write the vectors, ids and columns of MODEL[@VERSION] to TARGET, for another engine or server."""
    from mlplatform.serving.local_search import pushed_index

    with pushed_index(Home.at(root).models, model) as (folder, index, live):
        if form == "saved_model":
            from mlplatform.exported_model.searching_model import export_searching_model

            count = export_searching_model(folder, index, live, target)
        else:
            from mlplatform.search.export import export_items

            count = export_items(index, live, target, form)
    if as_json:
        echo_json({"model": model, "items": count, "file": str(target), "format": form})
    else:
        click.echo(f"{model}: {count} items written to {target}")


def _files(paths: tuple[Path, ...]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        inside = (
            sorted(p for p in path.rglob("*") if p.suffix.lower() in _PHOTOS) if path.is_dir() else [path]
        )
        if not inside or not inside[0].is_file():
            raise PhotoFileError(str(path))
        found += inside
    return found


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name or not value:
        raise FilterConditionError(text)
    return name, value


def _condition(conditions: tuple[str, ...]) -> str:
    """Return the filter that the conditions mean, as servers take it; empty for none."""
    document: dict[str, Any] = {}
    for text in conditions:
        name, value = _pair(text)
        low, separator, high = value.partition("..")
        if separator:
            document[name] = [_value(low) if low else None, _value(high) if high else None]
        else:
            document.setdefault(name, []).append(value)
    return json.dumps(document) if document else ""


def _value(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
