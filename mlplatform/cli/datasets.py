"""`mlplatform datasets`: commit, compare, trace and check out dataset versions."""

import math
from collections.abc import Callable
from dataclasses import asdict
from gc import set_threshold
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mlplatform.cli.hints import remember_store
from mlplatform.cli.options import echo_json, json_option, root_option
from mlplatform.errors import UsageError
from mlplatform.home import Home, local_path

if TYPE_CHECKING:
    from mlplatform.datasets import DatasetStore, Manifest
    from mlplatform.datasets.commit import Committed

Command = TypeVar("Command", bound=Callable[..., Any])


class DatasetReferenceError(UsageError):
    """A version was not given as NAME@VERSION, or two were given of different datasets."""

    def __init__(self, reference: str, problem: str) -> None:
        super().__init__(reference, problem)
        self.reference, self.problem = reference, problem

    def __str__(self) -> str:
        return f"{self.reference!r} {self.problem}: give NAME@VERSION, such as items@v3 or items@latest."


def store_options(command: Command) -> Command:
    """Add `--store URL`, `--root DIR` and `--json`."""
    store = click.option(
        "--store",
        metavar="URL",
        default=None,
        callback=remember_store,
        help="Folder or URL of the store [default: ROOT/datasets].",
    )
    return json_option(root_option(store(command)))


def key_option(command: Command) -> Command:
    """Add `--key FEATURE`, which may be given several times."""
    return click.option(
        "--key",
        metavar="FEATURE",
        multiple=True,
        help="Feature that identifies an item; several make one key [default: what the dataset declares].",
    )(command)


def ignored_key_option(command: Command) -> Command:
    """Add `--key FEATURE` to a command that does not tell items apart, so that all take the same options."""
    return click.option(
        "--key",
        metavar="FEATURE",
        multiple=True,
        expose_value=False,
        help="Taken by every command; this one does not tell items apart.",
    )(command)


def _hours(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if math.isnan(value):  # is in every range
        raise click.BadParameter("nan is no number of hours.", ctx, param)
    return value


@click.group()
def datasets() -> None:
    """Dataset versions: commit, compare, trace, check out.

    VERSION is v3, a tag, the beginning of a digest, or latest.
    """
    set_threshold(100_000)  # a command is short, and its imports alone cause hundreds of collections


@datasets.command()
@click.argument("name")
@click.argument("examples_dir")
@key_option
@click.option("--label", metavar="FEATURE", default=None, help="Feature that holds the class.")
@click.option("-m", "--message", default="", help="Why, for the log.")
@click.option(
    "--train-split",
    metavar="SPLIT",
    multiple=True,
    help="Split that is trained on [default: what the dataset declares, else train].",
)
@click.option("--firewall/--no-firewall", default=True, help="Refuse held-out items in training.")
@click.option(
    "--near-duplicates-apart", is_flag=True, help="Refuse photos in training that look like held-out ones."
)
@click.option("--beam", is_flag=True, help="Do the work on Beam, in this process: any size, less speed.")
@click.option(
    "--beam-flag", metavar="FLAG", multiple=True, help="A flag for Beam, such as --runner=FlinkRunner."
)
@store_options
def commit(
    name: str,
    examples_dir: str,
    key: tuple[str, ...],
    label: str | None,
    message: str,
    train_split: tuple[str, ...],
    firewall: bool,
    near_duplicates_apart: bool,
    beam: bool,
    beam_flag: tuple[str, ...],
    store: str | None,
    root: str | None,
    as_json: bool,
) -> None:
    """Commit the Examples in EXAMPLES_DIR (its Split-* folders) as a version of NAME."""
    committed = _open(store, root).commit(
        name,
        examples_dir,
        key=key or None,
        label=label,
        message=message,
        training_splits=train_split or None,
        is_firewall_on=firewall,
        near_duplicates_apart=near_duplicates_apart,
        beam_options=beam_flag if beam or beam_flag else None,
    )
    _echo_commit(name, committed, as_json)


def _echo_commit(name: str, committed: "Committed", as_json: bool) -> None:
    manifest = committed.manifest
    if as_json:
        echo_json(
            {
                "dataset": name,
                "version": manifest.version,
                "digest": manifest.digest,
                "is_new": committed.is_new,
                "records": {split: facts.records for split, facts in manifest.splits.items()},
                "added": committed.added,
                "removed": committed.removed,
                "stored_bytes": committed.stored_bytes,
            }
        )
        return
    state = "new" if committed.is_new else "the same content is there already"
    click.echo(f"{name}@{manifest.version}  {manifest.digest[:12]}  {state}")
    counts = {split: facts.records for split, facts in manifest.splits.items()}
    click.echo(f"  {_records(counts)}; {committed.added:,} added, {committed.removed:,} removed")
    click.echo(f"  {committed.stored_bytes / 1e6:,.1f} MB added to the store")


@datasets.command()
@click.argument("name")
@click.option(
    "--from",
    "corrections",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    required=True,
    help="CSV file with the key's columns, such as item_id, and the label's.",
)
@key_option
@click.option(
    "--label", metavar="FEATURE", default=None, help="Feature to correct [default: the declared one]."
)
@click.option("-m", "--message", default="", help="Why, for the log.")
@store_options
def relabel(
    name: str,
    corrections: str,
    key: tuple[str, ...],
    label: str | None,
    message: str,
    store: str | None,
    root: str | None,
    as_json: bool,
) -> None:
    """Commit the newest version of NAME with other labels: only the records that change are written."""
    committed = _open(store, root).relabel(name, corrections, key=key or None, label=label, message=message)
    _echo_commit(name, committed, as_json)


@datasets.command()
@click.argument("reference", metavar="NAME@VERSION")
@click.option(
    "--from",
    "file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="Declare this taxonomy for the version.",
)
@ignored_key_option
@store_options
def taxonomy(reference: str, file: Path | None, store: str | None, root: str | None, as_json: bool) -> None:
    """Print the taxonomy of a version, or declare one."""
    opened = _open(store, root)
    name, version = _reference(reference)
    if file is not None:
        from mlplatform.taxonomy import read_taxonomy

        manifest = opened.declare_taxonomy(name, version, read_taxonomy(file).text)
    else:
        manifest = opened.show(name, version)
    if as_json:
        echo_json({"dataset": name, "version": manifest.version, "taxonomy": manifest.taxonomy or None})
    elif file is not None:
        click.echo(f"{name}@{manifest.version} has the taxonomy of {file}")
    else:
        click.echo(
            manifest.taxonomy or f"{name}@{manifest.version} declares no taxonomy.", nl=not manifest.taxonomy
        )


@datasets.command("list")
@ignored_key_option
@store_options
def list_datasets(store: str | None, root: str | None, as_json: bool) -> None:
    """List the datasets and their newest versions."""
    opened = _open(store, root)
    newest = [opened.show(name) for name in opened.names()]
    if as_json:
        echo_json([_row(manifest) for manifest in newest])
        return
    if not newest:
        click.echo(f"{opened.url} holds no dataset yet.")
    for manifest in newest:
        click.echo(f"{manifest.dataset:<24} {_line(manifest)}")


@datasets.command()
@click.argument("name")
@click.option(
    "-n", "--number", type=click.IntRange(min=0), default=0, help="Only the newest N versions; 0: all."
)
@ignored_key_option
@store_options
def log(name: str, number: int, store: str | None, root: str | None, as_json: bool) -> None:
    """List the versions of NAME, the newest first."""
    opened = _open(store, root)
    manifests = opened.log(name)[: number or None]
    tags = _tags_by_version(opened, name)
    if as_json:
        echo_json([{**_row(manifest), "tags": tags.get(manifest.version, [])} for manifest in manifests])
        return
    for manifest in manifests:
        marks = tags.get(manifest.version)
        click.echo(_line(manifest) + (f"  [{', '.join(marks)}]" if marks else ""))


@datasets.command()
@click.argument("reference", metavar="NAME[@VERSION]")
@ignored_key_option
@store_options
def show(reference: str, store: str | None, root: str | None, as_json: bool) -> None:
    """Show a version: its splits, where it comes from, what it added to the store, what was made of it."""
    opened = _open(store, root)
    name, version = _reference(reference, default="latest")
    manifest = opened.show(name, version)
    tags = _tags_by_version(opened, name).get(manifest.version, [])
    uses = [use for use in opened.uses(name) if use.version == manifest.version]
    erased = opened.erased(name, manifest.version)
    if as_json:
        echo_json({**_row(manifest), "erased": erased, "tags": tags, "uses": [asdict(use) for use in uses]})
        return
    click.echo(f"{name}@{manifest.version}" + (f"  [{', '.join(tags)}]" if tags else ""))
    for what, text in (
        ("digest", manifest.digest),
        ("parent", manifest.parent or "none"),
        ("created", f"{manifest.created_at} by {manifest.created_by}"),
        ("source", manifest.source),
        ("message", manifest.message or "none"),
        ("key", ", ".join(manifest.key) or "none declared"),
        ("change", f"{manifest.added:,} added, {manifest.removed:,} removed"),
        ("stored", f"{manifest.stored_bytes / 1e6:,.1f} MB added, {len(manifest.packs)} packs read"),
    ):
        click.echo(f"  {what:<8} {text}")
    for split, facts in manifest.splits.items():
        gone = f"; {erased[split]:,} erased since" if split in erased else ""
        click.echo(f"  split {split}: {facts.records:,} records, {facts.distinct:,} different{gone}")
    for use in uses:  # models and pushes made from it, verdicts of the data gate
        click.echo(f"  {use.kind} {use.name} ({use.at[:16]}) {use.detail}".rstrip())


@datasets.command()
@click.argument("old", metavar="NAME@A")
@click.argument("new", metavar="NAME@B")
@key_option
@click.option("--label", metavar="FEATURE", default=None, help="Feature that holds the class.")
@click.option("--html", "html_file", metavar="FILE", default=None, help="Write a page with pictures, too.")
@store_options
def diff(
    old: str,
    new: str,
    key: tuple[str, ...],
    label: str | None,
    html_file: str | None,
    store: str | None,
    root: str | None,
    as_json: bool,
) -> None:
    """Say what changed from one version to another."""
    html = local_path(html_file, "--html") if html_file else None
    opened = _open(store, root)
    name, before = _reference(old)
    other, after = _reference(new)
    if name != other:
        raise DatasetReferenceError(new, f"is no version of {name!r}")
    found = opened.diff(name, before, after, key=key or None, label=label)
    counts = {kind: found.count(kind) for kind in ("added", "removed", "changed", "moved", "ambiguous")}
    if html is not None:
        from mlplatform.reports.dataset_diff_page import write_dataset_diff

        write_dataset_diff(html, opened, found)
    if as_json:
        echo_json(
            {
                "dataset": name,
                "old": found.old.version,
                "new": found.new.version,
                "key": list(found.key),
                **counts,
                "unchanged": found.unchanged,
                "by_split": found.by_split,
                "by_label": found.by_label,
                "html": str(html) if html else None,
            }
        )
        return
    click.echo(f"{name}: {found.old.version} -> {found.new.version}, by {', '.join(found.key) or 'content'}")
    for what, count in {**counts, "unchanged": found.unchanged}.items():
        click.echo(f"  {what:<10} {count:>12,}")
    changed = sorted(found.by_label.items(), key=lambda item: -sum(item[1].values()))
    for text, row in changed[:20]:
        shown = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in row.items() if count)
        click.echo(f"  {found.label} {text or '(none)'}: {shown}")
    if len(changed) > 20:
        click.echo(f"  and {len(changed) - 20:,} more classes: --json lists them all")
    if html is not None:
        click.echo(f"  page: {html}")


@datasets.command()
@click.argument("reference", metavar="NAME@VERSION")
@click.argument("folder", metavar="DIR")
@click.option("--copy", is_flag=True, help="Copy whole packs instead of linking them.")
@ignored_key_option
@store_options
def checkout(
    reference: str, folder: str, copy: bool, store: str | None, root: str | None, as_json: bool
) -> None:
    """Write a version to DIR as Examples that TFX reads.

    Linked files are the store's own, read-only ones: replace them, do not edit them in place.
    """
    opened = _open(store, root)
    manifest = opened.show(*_reference(reference))
    path = opened.checkout(manifest.dataset, manifest.version, folder, link=not copy)
    _report(opened, manifest, path, as_json)


@datasets.command()
@click.argument("reference", metavar="NAME@VERSION")
@click.argument("folder", metavar="DIR")
@ignored_key_option
@store_options
def export(reference: str, folder: str, store: str | None, root: str | None, as_json: bool) -> None:
    """Write a version to DIR as Parquet, one file per split."""
    opened = _open(store, root)
    manifest = opened.show(*_reference(reference))
    _report(opened, manifest, opened.export(manifest.dataset, manifest.version, folder), as_json)


@datasets.command()
@click.argument("reference", metavar="NAME@VERSION")
@click.argument("tag_name", metavar="TAG")
@ignored_key_option
@store_options
def tag(reference: str, tag_name: str, store: str | None, root: str | None, as_json: bool) -> None:
    """Let TAG name a version, and no longer the one that it named before."""
    manifest = _open(store, root).tag(*_reference(reference), tag_name)
    if as_json:
        echo_json({"dataset": manifest.dataset, "version": manifest.version, "tag": tag_name})
    else:
        click.echo(f"{manifest.dataset}@{tag_name} is {manifest.version}")


@datasets.command()
@click.argument("reference", metavar="NAME@VERSION")
@click.option(
    "--near",
    type=click.IntRange(min=0, max=15),
    default=15,
    show_default=True,
    help="How many of 128 bits may differ; 0 finds the same picture alone.",
)
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default=None,
    help="Write a page with the photos.",
)
@ignored_key_option
@store_options
def duplicates(
    reference: str, near: int, html: Path | None, store: str | None, root: str | None, as_json: bool
) -> None:
    """List photos of a version that look alike, within and between splits."""
    from mlplatform.datasets.duplicates import find_duplicates

    name, version = _reference(reference, "latest")
    found = find_duplicates(_open(store, root), name, version, near=near, with_content=html is not None)
    rows = [
        [{"item_id": photo.item_id, "split": photo.split, "label": photo.label} for photo in group]
        for group in found.groups
    ]
    if html is not None:
        from mlplatform.reports.page import picture, write_page
        from mlplatform.reports.thumbnails import thumbnail

        pictures = [[picture(thumbnail(photo.content, 160)) for photo in group] for group in found.groups]
        groups = [list(zip(*both, strict=True)) for both in zip(rows, pictures, strict=True)]
        write_page(html, "duplicates.html", title=reference, photos=found.photos, groups=groups)
    if as_json:
        echo_json({"photos": found.photos, "unreadable": found.unreadable, "groups": rows})
        return
    for group in rows:
        splits = sorted({row["split"] for row in group})
        click.echo(f"{len(group)} photos{', between splits ' + ' and '.join(splits) if splits[1:] else ''}")
        for row in group:
            click.echo(f"  {row['split']}  {row['item_id']}  {row['label']}".rstrip())
    click.echo(f"{len(rows)} groups among {found.photos} photos")


@datasets.command()
@click.argument("name")
@click.argument("values", metavar="KEY...", nargs=-1, required=True)
@key_option
@store_options
@click.pass_context
def blame(
    ctx: click.Context,
    name: str,
    values: tuple[str, ...],
    key: tuple[str, ...],
    store: str | None,
    root: str | None,
    as_json: bool,
) -> None:
    """Say which versions of NAME, and models and pushes made from them, saw the item KEY.

    With several key features give a value for each, in their order. Without --key, KEY may also be the text
    of any feature, or the name of a file. Exit code 1 where nothing is found.
    """
    found = _open(store, root).blame(name, values, key=key or None)
    if as_json:
        echo_json({"dataset": name, **_blame_row(found)})
    else:
        _echo_blame(name, found)
    ctx.exit(0 if found.records or found.erased else 1)


@datasets.command()
@click.argument("name")
@click.argument("values", metavar="KEY...", nargs=-1, required=True)
@key_option
@click.option("--erase", is_flag=True, help="Erase the item's records from the store, for good.")
@click.option("--why", default="", help="The reason, kept with the records' ids.")
@store_options
@click.pass_context
def forget(
    ctx: click.Context,
    name: str,
    values: tuple[str, ...],
    key: tuple[str, ...],
    erase: bool,
    why: str,
    store: str | None,
    root: str | None,
    as_json: bool,
) -> None:
    """Say everything that used the item KEY; with --erase, erase its records from every version.

    With several key features give a value for each, in their order. Exit code 1 where there is no such item,
    now or before.
    """
    opened = _open(store, root)
    done = opened.forget(name, values, key=key or None, is_erasing=erase, why=why)
    is_known = bool(done.blame.records or done.blame.erased)
    if as_json:
        echo_json({"dataset": name, **_blame_row(done.blame), "is_erased": done.is_erased})
    else:
        _echo_blame(name, done.blame)
        if done.is_erased:
            click.echo("Its records are erased from the store, and a commit that brings the item back fails.")
        elif done.blame.records:
            click.echo("Nothing was erased. Erase its records with --erase.")
        elif not is_known and not key and len(values) == 1:
            for feature in opened.blame(name, values).found_in:  # never erased by: others may hold it, too
                click.echo(f"Records hold it in {feature}: forget those with --key {feature}.")
    ctx.exit(0 if is_known else 1)


@datasets.command()
@click.argument("reference", metavar="NAME[@VERSION]")
@ignored_key_option
@store_options
@click.pass_context
def verify(ctx: click.Context, reference: str, store: str | None, root: str | None, as_json: bool) -> None:
    """Read everything and report whatever is not what was written. Exit code 1 if something is not."""
    name, version = _reference(reference, default="")
    found = _open(store, root).verify(name, version or None)
    if as_json:
        echo_json({**asdict(found), "is_whole": found.is_whole})
    else:
        for problem in found.problems:
            needed = f" (needed by {', '.join(problem.versions)})" if problem.versions else ""
            click.echo(f"{problem.path}: {problem.what}{needed}")
            for record in problem.records:
                click.echo(f"  record {record}")
        state = "all is what was written" if found.is_whole else f"{len(found.problems)} problem(s)"
        click.echo(f"{name}: {found.records:,} records read, {state}")
    ctx.exit(0 if found.is_whole else 1)


@datasets.command()
@click.argument("name", required=False)
@click.option("--delete", is_flag=True, help="Delete; without it, only say what would be deleted.")
@click.option(
    "--grace-hours",
    type=click.FloatRange(min=0),
    callback=_hours,
    default=24.0,
    show_default=True,
    help="Spare what is younger.",
)
@ignored_key_option
@store_options
def gc(
    name: str | None, delete: bool, grace_hours: float, store: str | None, root: str | None, as_json: bool
) -> None:
    """Find, and with --delete remove, what no version needs."""
    found = _open(store, root).gc(name, is_dry_run=not delete, grace_s=grace_hours * 3600)
    free = [one for one in found if not one.is_spared]
    if as_json:
        echo_json(
            {
                "is_dry_run": not delete,
                "files": len(free),
                "bytes": sum(one.size for one in free),
                "spared": len(found) - len(free),
                "garbage": [asdict(one) for one in found],
            }
        )
        return
    for one in free:
        click.echo(f"{'deleted' if delete else 'would delete'} {one.path} ({one.size / 1e6:,.1f} MB)")
    spared = len(found) - len(free)
    click.echo(
        f"{len(free):,} files, {sum(one.size for one in free) / 1e6:,.1f} MB"
        + (f"; {spared:,} younger than {grace_hours:g} hours were spared" if spared else "")
        + ("" if delete or not free else ". Delete them with --delete.")
    )


def _open(store: str | None, root: str | None) -> "DatasetStore":
    from mlplatform.datasets import DatasetStore

    return DatasetStore(store or Home.at(root).datasets)


def _reference(reference: str, default: str | None = None) -> tuple[str, str]:
    name, _, version = reference.partition("@")
    if not version and default is None:
        raise DatasetReferenceError(reference, "names no version")
    return name, version or default or ""


def _tags_by_version(opened: "DatasetStore", name: str) -> dict[str, list[str]]:
    tags: dict[str, list[str]] = {}
    for text, manifest in opened.tags(name).items():
        tags.setdefault(manifest.version, []).append(text)
    return tags


def _row(manifest: "Manifest") -> dict[str, Any]:
    return {
        "dataset": manifest.dataset,
        "version": manifest.version,
        "digest": manifest.digest,
        "parent": manifest.parent or None,
        "records": {split: facts.records for split, facts in manifest.splits.items()},
        "distinct": {split: facts.distinct for split, facts in manifest.splits.items()},
        "added": manifest.added,
        "removed": manifest.removed,
        "stored_bytes": manifest.stored_bytes,
        "packs": len(manifest.packs),
        "key": manifest.key,
        "label": manifest.label or None,
        "created_at": manifest.created_at,
        "created_by": manifest.created_by,
        "message": manifest.message,
        "source": manifest.source,
    }


def _records(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} in {split}" for split, count in counts.items())


def _line(manifest: "Manifest") -> str:
    change = f"+{manifest.added:,} -{manifest.removed:,}"
    when = manifest.created_at[:16].replace("T", " ")
    return (
        f"{manifest.version:<6} {manifest.digest[:12]}  {when}  {manifest.records:>12,} records  "
        f"{change:<20} {manifest.message}"
    ).rstrip()


def _report(opened: "DatasetStore", manifest: "Manifest", path: Path, as_json: bool) -> None:
    """Print what a checkout or an export wrote: records that were erased are no longer among them."""
    erased = opened.erased(manifest.dataset, manifest.version)
    written = {split: facts.records - erased.get(split, 0) for split, facts in manifest.splits.items()}
    if as_json:
        echo_json(
            {
                "dataset": manifest.dataset,
                "version": manifest.version,
                "digest": manifest.digest,
                "path": str(path),
                "records": written,
                "erased": erased,
            }
        )
    else:
        gone = f" (without {sum(erased.values()):,} that were erased)" if erased else ""
        click.echo(f"{manifest.dataset}@{manifest.version}: {_records(written)}{gone} -> {path}")


def _blame_row(found: Any) -> dict[str, Any]:
    return {
        "key": list(found.key),
        "value": found.value,
        "found_in": list(found.found_in),
        "versions": found.versions,
        "records": [asdict(record) for record in found.records],
        "uses": [asdict(use) for use in found.uses],
        "copies": [{**asdict(copy), "is_there": copy.is_there} for copy in found.copies],
        "erased": [{"at": one.at, "why": one.why, "versions": one.versions} for one in found.erased],
    }


def _echo_blame(name: str, found: Any) -> None:
    for one in found.erased:
        why = f" ({one.why})" if one.why else ""
        held = ", ".join(one.versions)
        click.echo(f"{found.value} was erased on {one.at[:16]}{why}: {held} held it.")
    if not found.records:
        if not found.erased:
            asked = f"an item with {', '.join(found.key)} = {found.value}" if found.key else found.value
            click.echo(f"No version of {name} has {asked}. Ask by another feature with --key FEATURE.")
        return
    if found.found_in:
        click.echo(f"{found.value} is no key; records hold it in {', '.join(found.found_in)}:")
    for record in found.records:
        label = f"  {record.label}" if record.label else ""
        click.echo(f"record {record.record}{label}")
        for one in record.appearances:
            times = f", {one.copies} times" if one.copies > 1 else ""
            click.echo(f"  {one.version} {one.split}{times}")
    for use in found.uses:
        click.echo(f"{use.kind} {use.name} was made from {use.version} ({use.at[:16]}) {use.detail}".rstrip())
    states = {True: "is still there", False: "is no longer there", None: "elsewhere: look there"}
    for copy in found.copies:
        click.echo(f"{copy.kind} of {copy.version}: {copy.place} ({states[copy.is_there]})")
    click.echo("Not known here: what was ingested, copies of these folders, request logs, backups.")
