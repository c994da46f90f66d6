"""`mlplatform models`: what was pushed, and push, promote, roll back."""

from dataclasses import asdict
from pathlib import Path

import click

from mlplatform.cli.options import echo_json, json_option, root_option
from mlplatform.errors import UsageError
from mlplatform.home import Home
from mlplatform.registry import ModelStore, ModelVersion


class ModelReferenceError(UsageError):
    """A model version was not given as NAME@VERSION."""

    def __init__(self, reference: str) -> None:
        super().__init__(reference)
        self.reference = reference

    def __str__(self) -> str:
        return (
            f"{self.reference!r} names no version: give NAME@VERSION, such as item_category@3 or NAME@latest."
        )


@click.group()
def models() -> None:
    """Pushed models: list, show, push, promote, roll back."""


@models.command("list")
@root_option
@json_option
def list_models(root: str | None, as_json: bool) -> None:
    """List the models and the version that serves."""
    store = _store(root)
    rows = []
    for name in store.names():
        serving = [v for v in store.versions(name) if not v.is_withdrawn]
        newest = serving[-1] if serving else None
        rows.append(
            {
                "name": name,
                "version": newest.version if newest else None,
                "versions": len(serving),
                "pushed_at": newest.push.pushed_at if newest and newest.push else None,
                "dataset": newest.push.dataset if newest and newest.push else None,
            }
        )
    if as_json:
        echo_json(rows)
        return
    if not rows:
        click.echo(f"No model was pushed under {store.models_dir} yet.")
    for row in rows:
        version, pushed_at, data = (row[key] or "-" for key in ("version", "pushed_at", "dataset"))
        click.echo(f"{row['name']}  version {version}  pushed {pushed_at}  data {data}")


@models.command()
@click.argument("name")
@root_option
@json_option
def show(name: str, root: str | None, as_json: bool) -> None:
    """Show the versions of a model: labels, when, by which run, from what data."""
    store = _store(root)
    versions = store.versions(name)
    if as_json:
        echo_json(
            {"name": name, "base_path": str(store.models_dir / name), "versions": [_row(v) for v in versions]}
        )
        return
    click.echo(f"{name}: {store.models_dir / name}")
    for version in versions:
        row = _row(version)
        marks = [*version.labels, *(["withdrawn"] if version.is_withdrawn else [])]
        mark = f"  [{', '.join(marks)}]" if marks else ""
        click.echo(
            f"  {row['version']:>4}{mark}  pushed {row['pushed_at'] or '?'} by {row['pushed_by'] or '?'}"
            f"  run {row['run'] or '-'}  data {row['dataset'] or '-'}"
        )


@models.command()
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("--why", default="", help="The reason, for the ledger.")
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Keep only the newest N versions; 0 keeps all.",
)
@root_option
@json_option
def push(model_dir: Path, name: str, why: str, keep: int, root: str | None, as_json: bool) -> None:
    """Push the SavedModel in MODEL_DIR as the newest version of NAME, without any gate."""
    store = _store(root)
    outcome = store.push(model_dir, name, why=why)
    store.drop_old(name, keep)
    if as_json:
        echo_json({**_row(outcome.version), "is_new": outcome.is_new})
    else:
        state = "pushed" if outcome.is_new else "already the newest"
        click.echo(f"{name} version {outcome.version.version}: {state}, {outcome.version.path}")


@models.command()
@click.argument("reference", metavar="NAME@VERSION")
@click.option("--label", default="stable", show_default=True, help="The label that the version gets.")
@click.option("--why", default="", help="The reason, for the ledger.")
@root_option
@json_option
def promote(reference: str, label: str, why: str, root: str | None, as_json: bool) -> None:
    """Label a version; a withdrawn one becomes visible to servers again."""
    name, _, version = reference.partition("@")
    if not version:
        raise ModelReferenceError(reference)
    promoted = _store(root).promote(name, version, label, why=why)
    if as_json:
        echo_json(_row(promoted))
    else:
        click.echo(f"{name} version {promoted.version} is now {label!r}")


@models.command()
@click.argument("name")
@click.option("--to", "to_version", default=None, help="The version to go back to [default: the one before].")
@click.option("--why", default="", help="The reason, for the ledger.")
@root_option
@json_option
def rollback(name: str, to_version: str | None, why: str, root: str | None, as_json: bool) -> None:
    """Withdraw the newest version, so that servers go back to the one before.

    Undo with: mlplatform models promote NAME@VERSION
    """
    serving = _store(root).rollback(name, to_version, why=why)
    if as_json:
        echo_json(_row(serving))
    else:
        click.echo(f"{name} is back at version {serving.version}; what was above it lies in 'withdrawn'")


def _store(root: str | None) -> ModelStore:
    return ModelStore(Home.at(root).models)


def _row(version: ModelVersion) -> dict[str, object]:
    push = asdict(version.push) if version.push else {}
    return {
        "version": version.version,
        "labels": list(version.labels),
        "pushed_at": push.get("pushed_at"),
        "pushed_by": push.get("pushed_by"),
        "why": push.get("why"),
        "run": push.get("run"),
        "dataset": push.get("dataset"),
        "digest": push.get("digest"),
        "is_withdrawn": version.is_withdrawn,
        "path": str(version.path),
    }
