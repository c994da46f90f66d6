"""`mlplatform serve`: the model server as a process."""

from dataclasses import MISSING, fields
from typing import Any

import click

from mlplatform.cli.options import root_option
from mlplatform.serving.settings import ServerSettings, SettingsError

# TensorFlow Serving's flags that scripts pass and that mean nothing here: accepted, and reported.
IDLE_FLAGS = (
    "enable_profiler",
    "enable_signature_method_name_check",
    "flush_filesystem_caches",
    "num_load_threads",
    "num_tflite_interpreters_per_pool",
    "num_tflite_pools",
    "num_unload_threads",
    "per_process_gpu_memory_fraction",
    "platform_config_file",
    "remove_unused_fields_from_bundle_metagraph",
    "skip_initialize_tpu",
    "thread_pool_factory_config_file",
    "use_alts_credentials",
    "use_tflite_model",
    "xla_cpu_compilation_enabled",
)


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
    for name in IDLE_FLAGS:
        hide: dict[str, Any] = {"hidden": True, "is_flag": False, "flag_value": "true", "default": None}
        command = click.option(f"--{name}", **hide)(command)
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
    for name in IDLE_FLAGS:
        if flags.pop(name) is not None:
            click.echo(f"mlplatform serve: --{name} has no effect on this server", err=True)
    settings = {**flags, "root": root or ""}
    try:
        ServerSettings(**settings)  # before anything heavy is loaded
    except SettingsError as error:
        raise SettingsError(error.named("--")) from None
    from mlplatform.serving.process import serve_until_stopped

    serve_until_stopped(settings, log_level=log_level)
