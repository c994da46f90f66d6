"""`mlplatform models`: what was pushed, and push, promote, roll back."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from mlplatform.cli.options import echo_json, json_option, root_option
from mlplatform.cli.quiet import quiet_libraries
from mlplatform.errors import MlplatformError, UsageError
from mlplatform.home import Home, local_path
from mlplatform.notices import has_settings
from mlplatform.registry import ModelStore, ModelVersion
from mlplatform.registry.errors import ModelWithdrawnError
from mlplatform.registry.version_files import fetched
from mlplatform.storage.urls import is_local

_CLASSES_SHOWN = 20
# Of an event of the ledger, what `models show` prints.
_SHOWN = ("event", "at", "by", "why", "label", "labels", "servers")


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
    """Pushed models: list, show, push, compare, promote, roll back."""


@models.command("list")
@root_option
@json_option
def list_models(root: str | None, as_json: bool) -> None:
    """List the models, the version that serves, and what its evaluation measured."""
    store = _store(root)
    listed = {} if is_local(store.url) else store.all_versions()  # few requests for all models
    rows = [_list_row(name, listed.get(name) or store.versions) for name in listed or store.names()]
    if as_json:
        echo_json(rows)
        return
    if not rows:
        click.echo(f"No model was pushed under {store.url} yet.")
    for row in rows:
        version, pushed_at, data = (row[key] or "-" for key in ("version", "pushed_at", "dataset"))
        metrics = _metrics_text(row["metrics"])
        click.echo(f"{row['name']}  version {version}  pushed {pushed_at}  data {data}{metrics}")
        if row["problem"]:
            click.echo(f"  {row['problem']}", err=True)


@models.command()
@click.argument("name")
@root_option
@json_option
def show(name: str, root: str | None, as_json: bool) -> None:
    """Show the versions of a model: labels, when, by which run, from what data, how good, and why.

    Reads every file to see whether a version was changed since it was pushed.
    """
    store = _store(root)
    versions = store.versions(name)
    if as_json:
        echo_json({"name": name, "base_path": store.base_path(name), "versions": [_row(v) for v in versions]})
        return
    click.echo(f"{name}: {store.base_path(name)}")
    for version in versions:
        row = _row(version)
        marks = [
            *version.labels,
            *(["withdrawn"] if version.is_withdrawn else []),
            *(["signed"] if version.is_signed else []),
            *(["CHANGED since it was pushed: not to be served"] if row["integrity"] == "changed" else []),
        ]
        mark = f"  [{', '.join(marks)}]" if marks else ""
        click.echo(
            f"  {row['version']:>4}{mark}  pushed {row['pushed_at'] or '?'} by {row['pushed_by'] or '?'}"
            f"  run {row['run'] or '-'}  data {row['dataset'] or '-'}{_metrics_text(row['metrics'])}"
        )
        for event in version.events:
            if event.get("why"):
                label = f" to {event['label']}" if event.get("label") else ""
                click.echo(
                    f"        {event['event']}{label} {event.get('at', '?')} by {event.get('by', '?')}: "
                    f"{event['why']}"
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
@click.option("--allow-withdrawn", is_flag=True, help="Push the model also if it was rolled back before.")
@click.option(
    "--signing-key",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    default=None,
    help="Sign the version with this private key (PEM, elliptic curve).",
)
@root_option
@json_option
def push(
    model_dir: Path,
    name: str,
    why: str,
    keep: int,
    allow_withdrawn: bool,
    signing_key: str | None,
    root: str | None,
    as_json: bool,
) -> None:
    """Push the SavedModel in MODEL_DIR as the newest version of NAME, without any gate.

    A model that was rolled back is refused (exit code 3) until it is promoted, or with --allow-withdrawn.
    """
    store = _store(root)
    try:
        outcome = store.push(
            model_dir, name, why=why, allows_withdrawn=allow_withdrawn, signing_key=signing_key or ""
        )
    except ModelWithdrawnError:
        click.echo("mlplatform: --allow-withdrawn pushes it all the same", err=True)
        raise
    store.drop_old(name, keep)
    if as_json:
        echo_json({**_row(outcome.version), "is_new": outcome.is_new})
    else:
        state = "pushed" if outcome.is_new else "already the newest"
        click.echo(f"{name} version {outcome.version.version}: {state}, {outcome.version.url}")


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

    Labels that named it move back to what they named before. Its model is not pushed again until somebody
    promotes it. Undo with: mlplatform models promote NAME@VERSION
    """
    serving = _store(root).rollback(name, to_version, why=why)
    home = Home.at(root)
    if has_settings(home):
        from mlplatform.notices.send import Notice, send

        send(home, Notice("rolled_back", name, f"version {serving.version} serves again: {why}".rstrip(": ")))
    if as_json:
        echo_json(_row(serving))
    else:
        click.echo(f"{name} is back at version {serving.version}; what was above it is withdrawn")


@models.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--examples",
    metavar="DIR|NAME@VERSION",
    default=None,
    help="Records to ask both about: a folder or URL with Split-* folders of Examples, or a dataset version.",
)
@click.option(
    "--requests",
    metavar="DIR",
    default=None,
    help="Ask both what clients asked instead: folder or URL of one model's request log.",
)
@click.option(
    "--split",
    "splits",
    metavar="SPLIT",
    multiple=True,
    help="Split to compare on (repeatable) [default: those that are not trained on].",
)
@click.option("--kind", default="classification", show_default=True, help="What the models answer.")
@click.option(
    "--label", metavar="FEATURE", default="label", show_default=True, help="Feature with the truth."
)
@click.option("--html", "html_file", metavar="FILE", default=None, help="Write a page with pictures, too.")
@root_option
@json_option
def compare(
    a: str,
    b: str,
    examples: str | None,
    requests: str | None,
    splits: tuple[str, ...],
    kind: str,
    label: str,
    html_file: str | None,
    root: str | None,
    as_json: bool,
) -> None:
    """Say what changes between two models on the same records.

    A and B are MODEL@VERSION (a number, a label such as stable, or latest), or folders of SavedModels. Give
    --examples, whose truths are known, or --requests, to preview the decisions that change in service.
    """
    if (examples is None) == (requests is None):
        raise click.UsageError("give either --examples or --requests: the records to ask both models about")
    if requests is not None and splits:
        raise click.UsageError("--split goes with --examples: a request log has no splits")
    html = local_path(html_file, "--html") if html_file else None
    with ExitStack() as opened:
        first, second = (opened.enter_context(_model(place, root)) for place in (a, b))
        quiet_libraries()
        if requests is not None:
            _compare_on_requests((a, first), (b, second), requests, kind, html, as_json=as_json)
            return
        assert examples is not None
        from mlplatform.components.model_validator.compare import (
            compare_models,
            examples_of,
            write_comparison,
        )
        from mlplatform.components.model_validator.settings import Question
        from mlplatform.datasets import DatasetStore

        store = DatasetStore(Home.at(root).datasets)
        files, taxonomy = opened.enter_context(examples_of(examples, store, splits))
        question = Question.of(kind, label, taxonomy=taxonomy)
        found = compare_models((a, first), (b, second), files, question)
        if html is not None:
            write_comparison(html, found, (a, b), files)
    if as_json:
        echo_json({"a": a, "b": b, **found.as_json(), "html": str(html) if html else None})
        return
    click.echo(f"A is {a}, B is {b}: {found.records:,} records")
    for what, count in (
        ("the same answer", found.same),
        ("another answer", found.changed),
        ("only A right, or better", found.only_a_right),
        ("only B right, or better", found.only_b_right),
    ):
        click.echo(f"  {what:<24} {count:>9,}")
    moved = [(row["b"] - row["a"], name, row) for name, row in found.by_class.items() if row["a"] != row["b"]]
    for change, name, row in sorted(moved, key=lambda one: (-abs(one[0]), one[1]))[:_CLASSES_SHOWN]:
        click.echo(f"  {name}: {row['a']} -> {row['b']} of {row['records']} right ({change:+d})")
    if len(moved) > _CLASSES_SHOWN:
        click.echo(f"  and {len(moved) - _CLASSES_SHOWN:,} more classes: --json lists them all")
    if html is not None:
        click.echo(f"  page: {html}")


def _compare_on_requests(
    a: tuple[str, Path], b: tuple[str, Path], requests: str, kind: str, html: Path | None, *, as_json: bool
) -> None:
    # Here, as TensorFlow is heavy.
    from mlplatform.components.model_validator.compare_requests import compare_on_requests, write_changes
    from mlplatform.components.model_validator.settings import Question

    found = compare_on_requests(a, b, requests, Question.of(kind))
    if html is not None:
        write_changes(html, found, (a[0], b[0]))
    if as_json:
        echo_json({"a": a[0], "b": b[0], **found.as_json(), "html": str(html) if html else None})
        return
    click.echo(f"A is {a[0]}, B is {b[0]}: {found.records:,} records of logged requests")
    for what, count in (("the same answer", found.same), ("another answer", found.changed)):
        click.echo(f"  {what:<24} {count:>9,}")
    for move in found.moves[:_CLASSES_SHOWN]:
        click.echo(f"  {move.answer_a} -> {move.answer_b}: {move.records:,}")
    if len(found.moves) > _CLASSES_SHOWN:
        click.echo(f"  and {len(found.moves) - _CLASSES_SHOWN:,} more changes: --json lists them all")
    for file in found.damaged:
        click.echo(f"  {file} is cut off and was read up to there", err=True)
    if html is not None:
        click.echo(f"  page: {html}")


@contextmanager
def _model(place: str, root: str | None) -> Iterator[Path]:
    """Give the SavedModel that `MODEL@VERSION`, a folder or a URL names.

    Raises:
        ModelReferenceError: It names neither.
    """
    name, at, version = place.partition("@")
    if at and version and "/" not in name:
        with fetched(_store(root).version(name, version).url) as folder:
            yield folder
    elif not is_local(place) or Path(place).is_dir():
        with fetched(place) as folder:
            yield folder
    else:
        raise ModelReferenceError(place)


def _store(root: str | None) -> ModelStore:
    return ModelStore(Home.at(root).models)


def _list_row(
    name: str, found: list[ModelVersion] | Callable[[str], list[ModelVersion]]
) -> dict[str, object]:
    """One model's row; what is wrong with it must not keep the others from being listed."""
    versions: list[ModelVersion] = []
    problem = None
    try:
        versions = found(name) if callable(found) else found
    except (MlplatformError, OSError) as error:
        problem = str(error)
    serving = [version for version in versions if not version.is_withdrawn]
    newest = serving[-1] if serving else None
    push = newest.push if newest else None
    return {
        "name": name,
        "version": newest.version if newest else None,
        "versions": len(serving),
        "labels": {label: version.version for version in serving for label in version.labels},
        "pushed_at": push.pushed_at if push else None,
        "dataset": push.dataset if push else None,
        "metrics": push.metrics if push else {},
        "problem": problem,
    }


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
        "metrics": push.get("metrics", {}),
        "digest": push.get("digest"),
        "is_withdrawn": version.is_withdrawn,
        "is_signed": version.is_signed,
        "integrity": version.integrity(),
        "history": [{key: event[key] for key in _SHOWN if key in event} for event in version.events],
        "path": version.url,
    }


def _metrics_text(metrics: object) -> str:
    assert isinstance(metrics, Mapping)
    return "".join(f"  {name} {value:.4g}" for name, value in metrics.items())
