"""`mlplatform serve`: the model server as a process."""

from dataclasses import MISSING, fields
from typing import Any

import click

from mlplatform.cli.options import root_option
from mlplatform.serving.settings import ServerSettings


def _with_flags(command: Any) -> Any:
    """Add a flag for each setting, under its own name."""
    for setting in reversed([s for s in fields(ServerSettings) if s.name != "root"]):
        kind = str(setting.type)
        options: dict[str, Any] = {"help": setting.metadata["help"], "default": setting.default}
        if "bool" in kind:  # both --flag and --flag=true, as TensorFlow Serving takes them
            options |= {"type": bool, "is_flag": False, "flag_value": "true", "metavar": "BOOL"}
        elif "tuple" in kind:
            options |= {"multiple": True, "metavar": "NAME"}
        else:
            options |= {"type": type(setting.default)}
        options["show_default"] = setting.default not in (None, "", (), MISSING)
        command = click.option(f"--{setting.name}", **options)(command)
    return command


@click.command()
@root_option
@_with_flags
@click.option("--log_level", default="info", type=click.Choice(["debug", "info", "warning", "error"]))
def serve(root: str | None, log_level: str, **flags: Any) -> None:
    """Serve models over gRPC and REST, with TensorFlow Serving's interfaces and flags.

    Without --model_base_path or --model_config_file, every model pushed under the root folder is served, new
    ones as they appear. SIGTERM lets requests in flight finish.
    """
    settings = {**flags, "root": root or ""}
    ServerSettings(**settings)  # wrong flags are told before anything heavy is loaded
    from mlplatform.serving.process import serve_until_stopped

    serve_until_stopped(settings, log_level=log_level)
