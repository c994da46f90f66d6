"""`mlplatform approve`: a person's yes or no to a push. Reads and writes the ledger; imports no TFX."""

from dataclasses import asdict
from datetime import datetime, timezone

import click

from mlplatform.cli.options import echo_json, json_option, root_option
from mlplatform.home import Home
from mlplatform.orchestration.local.display import aligned


@click.command()
@click.argument("run", required=False)
@click.option("--by", "approver", default="", metavar="NAME", help="Who decides.")
@click.option("--why", default="", help="The reason.")
@click.option("--no", "is_refused", is_flag=True, help="Refuse the push.")
@root_option
@json_option
def approve(
    run: str | None, approver: str, why: str, is_refused: bool, root: str | None, as_json: bool
) -> None:
    """Approve the push that RUN waits with, or refuse it with --no; without RUN, list what waits.

    RUN is a run's id or the beginning of one, or MODEL@DIGEST. The answer belongs to the digest of the
    model's files: it holds for every run with this very model, also where the one that asked was killed or
    its time was over. Of several answers, the last one counts.
    """
    from mlplatform.registry.approvals import Approvals
    from mlplatform.registry.ledger import Ledger

    approvals, now = Approvals(Ledger(Home.at(root).ledger)), datetime.now(timezone.utc)
    if run is None:
        if approver or why or is_refused:
            raise click.UsageError("name the RUN that is meant; mlplatform approve alone lists what waits")
        waiting = approvals.waiting(now)
        if as_json:
            echo_json([asdict(request) for request in waiting])
            return
        if not waiting:
            click.echo("Nothing waits for an approval.")
            return
        rows = [
            (each.name, each.model, each.digest[:12], each.dataset, ", ".join(each.approvers) or "anybody")
            for each in waiting
        ]
        ends = ["until", *(each.expires_at for each in waiting)]
        heads = [("run", "model", "digest", "data", "who may answer"), *rows]
        for line in aligned([(*row, end) for row, end in zip(heads, ends, strict=True)]):
            click.echo(line)
        return
    if not approver or not why:
        raise click.UsageError("give --by NAME and --why REASON: both are kept with the answer")
    request = approvals.find(run, now)
    answer = approvals.answer(request, approver=approver, why=why, is_given=not is_refused)
    if as_json:
        echo_json(asdict(answer))
        return
    word = "approved" if answer.is_given else "refused"
    click.echo(f"{answer.approver} {word} {answer.model}@{answer.digest[:12]}, asked by {request.name}")
    if request.expires_at <= now.isoformat(timespec="seconds"):
        click.echo("The run does not wait any more: run it again.")
