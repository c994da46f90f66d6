"""`mlplatform predict`: ask a pushed model about many records."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click

from mlplatform.cli.options import echo_json, engine_option, json_option, root_option
from mlplatform.cli.quiet import quiet_libraries
from mlplatform.cli.run import parse_engine_options
from mlplatform.home import Home
from mlplatform.orchestration.engine import parse_engine
from mlplatform.registry import ModelStore
from mlplatform.registry.version_files import fetched


@click.command()
@click.argument("reference", metavar="MODEL[@VERSION]")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("output", metavar="OUTPUT", type=click.Path(path_type=Path))
@click.option(
    "--signature", default="serving_default", show_default=True, help="The signature of the model to ask."
)
@click.option("--engine", metavar="NAME", default=None, help="Do the work on this engine of Beam.")
@engine_option
@root_option
@json_option
def predict(
    reference: str,
    source: Path,
    output: Path,
    signature: str,
    engine: str | None,
    engine_options: tuple[str, ...],
    root: str | None,
    as_json: bool,
) -> None:
    """Write the answers of MODEL to every record of INPUT to OUTPUT, a row each.

    INPUT is a folder of photos, a Parquet file, or a file or folder of Examples; OUTPUT a file that does not
    exist and ends in .parquet or .tfrecord. VERSION is a number, a label or latest [default: latest].
    """
    # What can be wrong is found before TensorFlow is loaded.
    from mlplatform.prediction.outputs import check_output
    from mlplatform.prediction.pieces import pieces

    check_output(output)
    pieces(source)
    name, _, wanted = reference.partition("@")
    version = ModelStore(Home.at(root).models).version(name, wanted or "latest")
    chosen = parse_engine(parse_engine_options(engine, engine_options))
    quiet_libraries()
    from mlplatform.prediction.predict import Model
    from mlplatform.prediction.predict import predict as write_predictions

    with ExitStack() as places:
        model = Model(
            folder=str(places.enter_context(fetched(version.url))),
            name=f"{name}@{version.version}",
            dataset=version.push.dataset if version.push else "",
            signature=signature,
        )
        arguments = chosen.arguments if chosen else ()
        found = write_predictions(model, source, output, beam_arguments=arguments)
    if as_json:
        echo_json({"model": model.name, "dataset": model.dataset, "output": str(output), **asdict(found)})
        return
    click.echo(f"{model.name}: {found.rows} rows of {found.records} records, {output}")
    for reason, count in sorted(found.rejected.items()):
        click.echo(f"  {count} without a prediction, {reason}")
    for reject in found.rejects[:5]:
        click.echo(f"    {reject.key}: {reject.detail}")
