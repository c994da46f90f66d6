"""`mlplatform gc`: removes what a root does not keep. Reads records, ledger and SQLite; imports no TFX."""

from dataclasses import asdict
from datetime import datetime, timezone

import click

from mlplatform.cli.options import echo_json, json_option, root_option
from mlplatform.home import Home
from mlplatform.orchestration.local.display import aligned


@click.command()
@click.option(
    "--keep", type=click.IntRange(min=1), default=None, help="Newest runs of each pipeline to keep."
)
@click.option("--days", type=click.FloatRange(min=0), default=None, help="Days to keep every run.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only say what would be removed.")
@click.option("--yes", "is_agreed", is_flag=True, help="Remove also where the root has no policy.")
@root_option
@json_option
def gc(
    keep: int | None, days: float | None, is_dry_run: bool, is_agreed: bool, root: str | None, as_json: bool
) -> None:
    """Remove what the root's retention.yaml does not keep: old runs, their artifacts and reports, and more.

    Where there is no such file, says what the default policy would remove, and removes it with --yes alone.
    What is kept loses nothing that it depends on; the ledger keeps what happened in runs that are removed.
    """
    from mlplatform.retention.collect import collect
    from mlplatform.retention.policy import POLICY_FILE, RetentionPolicy, read_policy

    home = Home.at(root)
    found = read_policy(home)
    changes = {"keep_runs": keep, "keep_days": days}
    policy = (found or RetentionPolicy()).model_copy(
        update={name: value for name, value in changes.items() if value is not None}
    )
    is_dry_run = is_dry_run or (found is None and not is_agreed)
    done = collect(home, policy, datetime.now(timezone.utc), is_dry_run=is_dry_run)
    if as_json:
        document = {"root": home.root, "is_dry_run": is_dry_run, "policy": policy.model_dump()}
        echo_json({**document, "has_policy": found is not None, **asdict(done), "bytes": done.bytes})
        return
    verb = "would remove" if is_dry_run else "removed"
    rows: list[tuple[str, ...]] = [
        (f"{each.count:,}", each.kind, f"{each.bytes / 1e6:,.1f} MB") for each in done.freed if each.count
    ]
    click.echo(
        f"{verb} {len(done.removed_runs):,} runs and kept {len(done.kept):,}; {done.bytes / 1e6:,.1f} MB"
    )
    for line in aligned(rows) if rows else ():
        click.echo(f"  {line}")
    if found is None and is_dry_run:
        values = ", ".join(f"{name} {value:g}" for name, value in policy.model_dump().items())
        click.echo(f"The root has no {POLICY_FILE}; this is by {values}. Write that file, or give --yes.")
