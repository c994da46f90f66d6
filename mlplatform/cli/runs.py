"""`mlplatform runs`: what ran, why, and what it printed. Reads plain JSON; imports no TFX."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlplatform.cli.hints import with_root
from mlplatform.cli.options import echo_json, host_option, json_option, root_option
from mlplatform.home import Home
from mlplatform.orchestration.local.cache.key_changes import describe_change, short, shortened
from mlplatform.orchestration.local.comparing import compare_runs
from mlplatform.orchestration.local.display import aligned, memory, seconds
from mlplatform.orchestration.local.ledger_runs import (
    KeptRun,
    LedgerRun,
    all_runs,
    find_run,
    log_of,
    summary_of,
)
from mlplatform.orchestration.local.records import NodeDetails, NodeRecord, node_states
from mlplatform.registry.ledger import Ledger

if TYPE_CHECKING:
    from mlplatform.orchestration.kubeflow.client import KubeflowClient


@click.group()
def runs() -> None:
    """Runs: list, show, compare, explain, read their logs.

    RUN is a run's id, the beginning of one, or `latest`.
    """


@runs.command("list")
@click.option("--pipeline", default=None, help="Only runs of this pipeline.")
@click.option("--limit", default=20, show_default=True, help="At most this many, newest first; 0: all.")
@root_option
@host_option
@json_option
def list_runs(pipeline: str | None, limit: int, root: str | None, host: str | None, as_json: bool) -> None:
    """List runs, newest first; with --host, those of a cluster."""
    home = Home.at(root)
    rows = []
    for row in _summaries(home, host):
        if pipeline is None or row["pipeline"] == pipeline:
            rows.append(row)
            if len(rows) == limit:
                break
    if as_json:
        echo_json(rows)
        return
    if not rows:
        click.echo(f"No run is recorded {f'by {host}' if host else f'under {home.root}'} yet.")
        return
    header = ("run", "pipeline", "started", "state", "time", "ran", "cached", "top-1", "failed")
    lines = [
        (
            row["run_id"],
            row["pipeline"],
            row["started_at"],
            row["state"],
            seconds(row["wall_s"]),
            str(row["nodes"].get("done", 0)),
            str(row["nodes"].get("cached", 0)),
            f"{row['metrics']['top_1']:.3f}" if "top_1" in row["metrics"] else "",
            ", ".join(row["failed"]),
        )
        for row in rows
    ]
    for line in aligned([header, *lines]):
        click.echo(line)


@runs.command()
@click.argument("run", default="latest")
@root_option
@host_option
@json_option
def show(run: str, root: str | None, host: str | None, as_json: bool) -> None:
    """Show one run: its nodes, their times, reasons and artifacts; with --host, one of a cluster."""
    if host is not None:
        from mlplatform.orchestration.kubeflow.runner import KubeflowRunner

        record = KubeflowRunner(root, host=host).status(run)
        folder: KeptRun = LedgerRun(Ledger(Home.at(root).ledger), Home.at(root), record.run_id)
    else:
        folder = find_run(Home.at(root), run)
        record = folder.read()
    if as_json:
        echo_json(asdict(record))
        return
    click.echo(f"run {record.run_id} of {record.pipeline}: {record.state}, {seconds(record.wall_s)}")
    click.echo(f"  started {record.started_at}  records {folder.place}")
    rows = [(n.id, n.state, seconds(n.seconds), memory(n), short(n.why)) for n in record.nodes]
    for line in aligned([("node", "state", "time", "memory", "why"), *rows]):
        click.echo(line)
    for node in record.nodes:
        for key, artifacts in node.outputs.items():
            for artifact in artifacts:
                click.echo(f"  {node.id}.{key}: {artifact.type} {artifact.uri}")
    for node in record.failed:
        click.echo(f"{node.id} failed: {node.error}\n  log: {folder.log_place(node.id)}")
        click.echo(with_root(f"  whole log: mlplatform runs logs {record.run_id} {node.id}"))


@runs.command()
@click.argument("before")
@click.argument("now", default="latest")
@root_option
@json_option
def compare(before: str, now: str, root: str | None, as_json: bool) -> None:
    """Say what differs between the runs BEFORE and NOW."""
    home = Home.at(root)
    found = compare_runs(find_run(home, before), find_run(home, now))
    if as_json:
        echo_json(asdict(found))
        return
    click.echo(f"{found.before} -> {found.now}")
    for change in [*found.arguments, *found.versions]:
        click.echo(f"  {change['part']}: {change['before'] or '-'} -> {change['now'] or '-'}")
    for change in found.metrics:
        click.echo(f"  {change['part']}: {change['before'] or '-'} -> {change['now'] or '-'}")
    rows = [
        (node.id, _side(node.before), _side(node.now), "other outputs" if node.has_other_outputs else "")
        for node in found.nodes
    ]
    for line in aligned([("node", "before", "now", ""), *rows]):
        click.echo(line)
    for node in found.nodes:
        for change in node.changes:
            click.echo(f"  {node.id}: {describe_change(change)}")


@runs.command()
@click.argument("run")
@click.argument("node", required=False)
@root_option
@json_option
def why(run: str, node: str | None, root: str | None, as_json: bool) -> None:
    """Say why NODE ran in RUN, or why an earlier result was taken; without NODE, a line for each."""
    folder = find_run(Home.at(root), run)
    record = folder.read()
    if node is None:
        reasons = {each.id: _reason(each, folder.read_details(each.id)) for each in record.nodes}
        if as_json:
            echo_json({each.id: {"state": each.state, "why": reasons[each.id]} for each in record.nodes})
            return
        for line in aligned(
            [("node", "state", "why"), *((n.id, n.state, short(reasons[n.id])) for n in record.nodes)]
        ):
            click.echo(line)
        return
    found, details = record.node(node), folder.read_details(node)
    if as_json:
        echo_json(
            {"state": found.state, **(asdict(details) if details else {"node": node, "why": found.why})}
        )
        return
    click.echo(f"{node}: {found.state}; {_reason(found, details)}")
    if details is None or not details.key:
        return
    if details.compared_with:
        click.echo(
            f"  compared with run {details.compared_with}: {len(details.changes)} parts of the key differ"
        )
    for change in details.changes:
        click.echo(f"    {describe_change(change)}")
    click.echo(f"  key {details.key}, made of:")
    for part, value in details.parts.items():
        if not part.startswith("library "):
            click.echo(f"    {part} = {shortened(value)}")
    libraries = [part for part in details.parts if part.startswith("library ")]
    click.echo(f"    and the versions of {len(libraries)} libraries (--json lists them)")


@runs.command()
@click.argument("run")
@click.argument("node")
@click.option("--tail", type=click.IntRange(min=0), default=0, help="Only the last N lines; 0: all.")
@root_option
@json_option
def logs(run: str, node: str, tail: int, root: str | None, as_json: bool) -> None:
    """Print the log of NODE in RUN; NODE `_runner`: that of making the pipeline."""
    folder = find_run(Home.at(root), run)
    lines = log_of(folder, node).splitlines()
    lines = lines[-tail:] if tail else lines
    if as_json:
        echo_json({"node": node, "log": folder.log_place(node), "lines": lines})
        return
    for line in lines:
        click.echo(line)


@runs.command()
@click.argument("run")
@click.argument("tags", nargs=-1)
@click.option("--remove", "removed", multiple=True, metavar="TAG", help="Remove this tag (repeatable).")
@root_option
@json_option
def tag(run: str, tags: tuple[str, ...], removed: tuple[str, ...], root: str | None, as_json: bool) -> None:
    """Add TAGS to RUN; print those that it has."""
    from mlplatform.registry.ledger import Ledger
    from mlplatform.registry.run_marks import tag_run

    home = Home.at(root)
    run_id = find_run(home, run).run_id
    has = tag_run(Ledger(home.ledger), run_id, add=tags, remove=removed)
    if as_json:
        echo_json({"run_id": run_id, "tags": has})
    else:
        click.echo(f"{run_id}: {', '.join(has) or 'no tags'}")


@runs.command()
@click.argument("run")
@click.argument("text")
@root_option
def note(run: str, text: str, root: str | None) -> None:
    """Add a note to RUN, for everybody to read."""
    from mlplatform.registry.ledger import Ledger
    from mlplatform.registry.run_marks import note_on_run

    home = Home.at(root)
    run_id = find_run(home, run).run_id
    note_on_run(Ledger(home.ledger), run_id, text)
    click.echo(f"noted on {run_id}")


@runs.command()
@click.argument("run")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The file: NAME.json or NAME.html."
)
@root_option
def export(run: str, output: Path, root: str | None) -> None:
    """Write all that is known of RUN into one file, to be kept: a JSON document, or a page.

    With its nodes, cache keys, figures, data, verdicts, events and the ends of its logs. The page needs no
    network.
    """
    from mlplatform.files import write_json
    from mlplatform.orchestration.local.run_document import exported_run
    from mlplatform.reports.run_report import write_run_report

    if output.suffix not in (".json", ".html"):
        raise click.BadParameter(f"{output} ends neither in .json nor in .html", param_hint="--output")
    home = Home.at(root)
    document = exported_run(home, find_run(home, run))
    if output.suffix == ".json":
        write_json(output, document)
    else:
        write_run_report(output, document)
    click.echo(f"{document['run_id']}: {output}")


@runs.command()
@click.argument("run", default="latest")
@root_option
@host_option
def cancel(run: str, root: str | None, host: str | None) -> None:
    """Have RUN, which this machine runs, end as by Ctrl-C; with --host, one of a cluster."""
    if host is not None:
        from mlplatform.orchestration.kubeflow.runner import KubeflowRunner

        KubeflowRunner(root, host=host).cancel(run)
        return
    from mlplatform.orchestration.local.runner import LocalRunner

    LocalRunner(root).cancel(run)


@runs.group()
def recurring() -> None:
    """List, pause, resume and delete the recurring runs of a cluster.

    RUN is a recurring run's id, the beginning of one, or its name.
    """


@recurring.command("list")
@host_option
@json_option
def list_recurring(host: str | None, as_json: bool) -> None:
    """List the recurring runs."""
    found = list(_client(host).recurring_runs())
    if as_json:
        echo_json(found)
        return
    rows = [
        (
            str(each.get("recurring_run_id", "")),
            str(each.get("display_name", "")),
            str(each.get("trigger", {}).get("cron_schedule", {}).get("cron", "")),
            str(each.get("status", "")),
        )
        for each in found
    ]
    for line in aligned([("recurring run", "name", "schedule", "status"), *rows]):
        click.echo(line)


@recurring.command()
@click.argument("run")
@host_option
def pause(run: str, host: str | None) -> None:
    """Have RUN start no further runs until it is resumed."""
    client = _client(host)
    client.enable_recurring_run(client.find_recurring_run(run)["recurring_run_id"], is_enabled=False)


@recurring.command()
@click.argument("run")
@host_option
def resume(run: str, host: str | None) -> None:
    """Have RUN start runs again."""
    client = _client(host)
    client.enable_recurring_run(client.find_recurring_run(run)["recurring_run_id"], is_enabled=True)


@recurring.command()
@click.argument("run")
@host_option
def delete(run: str, host: str | None) -> None:
    """Delete RUN; the runs that it started stay."""
    client = _client(host)
    client.delete_recurring_run(client.find_recurring_run(run)["recurring_run_id"])


def _client(host: str | None) -> "KubeflowClient":
    from mlplatform.orchestration.kubeflow.client import KubeflowClient

    return KubeflowClient.at(host)


def _summaries(home: Home, host: str | None) -> Iterator[dict[str, Any]]:
    if host is None:
        yield from (asdict(summary_of(each)) for each in all_runs(home))
        return
    from mlplatform.orchestration.kubeflow.cluster_runs import record_of

    for run in _client(host).runs():
        record = record_of(home, run)
        yield {
            "run_id": record.run_id,
            "pipeline": record.pipeline,
            "started_at": record.started_at,
            "state": record.state,
            "wall_s": record.wall_s,
            "nodes": node_states(record),
            "failed": [node.id for node in record.failed],
            "metrics": {},
        }


def _reason(node: NodeRecord, details: NodeDetails | None) -> str:
    return node.why or (details.why if details else "") or "no reason recorded"


def _side(side: dict[str, Any] | None) -> str:
    return f"{side['state']} {seconds(side['seconds'])}" if side else "-"
