"""Components for the tests of the cache, and a pipeline of them; edited by the tests, in a copy."""

import shutil
import time
from pathlib import Path

import helper_of_cached
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.types.standard_artifacts import PushedModel, String

ANSWER = "v1"


@component
def Wait(mark: Parameter[str], out: OutputArtifact[String]):
    (Path(mark) / "started").write_text("")
    while not (Path(mark) / "go on").exists():
        time.sleep(0.05)
    out.write("waited")


@component
def Say(after: InputArtifact[String], out: OutputArtifact[String]):
    out.write(ANSWER)


@component
def Help(text: Parameter[str], out: OutputArtifact[String]):
    out.write(helper_of_cached.answer(text))


@component
def Read(data_dir: Parameter[str], out: OutputArtifact[String]):
    out.write("".join(sorted(file.read_text() for file in Path(data_dir).iterdir())))


@component
def ReadSlowly(data_dir: Parameter[str], mark: Parameter[str], out: OutputArtifact[String]):
    out.write(" ".join(sorted(file.name for file in Path(data_dir).iterdir())))
    (Path(mark) / "read").write_text("")
    deadline = time.monotonic() + 60
    while not (Path(mark) / "go on").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@component
def CountLocked(data_dir: Parameter[str], out: OutputArtifact[String]):
    lock = Path(data_dir) / ".lock"
    lock.touch()
    out.write(str(len(list(Path(data_dir).iterdir())) - 1))
    lock.unlink()


@component
def Clean(data_dir: Parameter[str], how: Parameter[str], out: OutputArtifact[String]):
    if how == "python":
        shutil.rmtree(data_dir)
        Path(data_dir).mkdir()
    else:
        import tensorflow as tf

        for file in tf.io.gfile.glob(f"{data_dir}/*"):
            tf.io.gfile.remove(file)
    out.write("clean")


@component
def Count(data_dir: Parameter[str], out: OutputArtifact[String]):
    found = len(list(Path(data_dir).iterdir()))
    (Path(data_dir) / "counted").mkdir()
    (Path(data_dir) / "counted" / "before").write_text(str(found))
    out.write(str(found))


@component
def ReadLate(mark: Parameter[str], words: Parameter[str], out: OutputArtifact[String]):
    text = Path(words).read_text()
    Path(words).write_text("changed meanwhile")
    out.write(text)


@component
def Meddle(source: InputArtifact[String], out: OutputArtifact[String]):
    out.write(source.read())
    Path(source.uri).write_text("changed meanwhile")


@component
def Import(folder: Parameter[str], out: OutputArtifact[String]):
    import importlib.util

    spec = importlib.util.spec_from_file_location("found", str(Path(folder) / "found.py".lower()))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    out.write(module.TEXT)


@component
def Push(source: InputArtifact[String], models_dir: Parameter[str], pushed: OutputArtifact[PushedModel]):
    version = Path(models_dir) / str(len(list(Path(models_dir).glob("*"))) + 1)
    version.mkdir(parents=True)
    (version / "model").write_text(source.read())
    Path(pushed.uri).mkdir(parents=True, exist_ok=True)
    pushed.set_string_custom_property("pushed_destination", str(version))


def create_pipeline(root, mark):
    wait = Wait(mark=mark)
    return Pipeline(
        pipeline_name="cached",
        pipeline_root=f"{root}/artifacts",
        components=[wait, Say(after=wait.outputs["out"])],
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(f"{root}/metadata.sqlite"),
    )


def create_help(root):
    return Pipeline(
        pipeline_name="help",
        pipeline_root=f"{root}/artifacts",
        components=[Help(text="hi")],
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(f"{root}/metadata.sqlite"),
    )
