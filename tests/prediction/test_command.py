"""`mlplatform predict`: what it prints, and what it finds before anything heavy is loaded."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
import tensorflow as tf
from click.testing import CliRunner

from mlplatform.cli.quiet import quiet_libraries
from mlplatform.registry import ModelStore

_COMMAND = "from mlplatform.cli.main import cli; cli()"


class Twice(tf.Module):
    """Answers twice the length of an Example."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"twice": 2 * tf.strings.length(examples)}


def predict(*words: object, code: str = _COMMAND) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", code, "predict", *map(str, words)],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip


def test_the_answer_alone_is_printed(tmp_path: Path) -> None:
    made = Twice()
    tf.saved_model.save(made, str(tmp_path / "m"), signatures=made.serve.get_concrete_function())
    ModelStore(tmp_path / "home/models").push(tmp_path / "m", "twice", dataset="items@v1")
    with tf.io.TFRecordWriter(str(tmp_path / "in")) as writer:
        writer.write(tf.train.Example().SerializeToString())
    done = predict("twice", tmp_path / "in", tmp_path / "out.parquet", "--root", tmp_path / "home", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["model"], facts["dataset"], facts["rows"]) == ("twice@1", "items@v1", 1)
    noise = ("cuda", "FutureWarning", "TensorFlow binary", "crcmod")
    # TensorFlow from 2.21 on logs lines that begin so before it reads how much it is to log.
    lines = [line for line in done.stderr.splitlines() if not line.startswith("I0000 ")]
    assert not [line for line in lines if any(word in line for word in noise)]


def test_libraries_log_again_when_the_command_has_ended() -> None:
    before = logging.getLogger().level
    levels = []

    @click.command()
    def loads() -> None:
        quiet_libraries()
        levels.append(logging.getLogger().level)

    assert CliRunner().invoke(loads).exit_code == 0
    assert (levels, logging.getLogger().level) == ([logging.ERROR], before)


@pytest.mark.parametrize(
    ("source", "output", "problem"),
    [("in", "out.csv", "must end in"), ("none", "out.parquet", "there is no such file"),
     ("in", "no/out.parquet", "does not exist")],
)  # fmt: skip
def test_a_wrong_place_is_found_before_tensorflow_is_loaded(
    tmp_path: Path, source: str, output: str, problem: str
) -> None:
    (tmp_path / "in").touch()
    code = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {_COMMAND}"
    done = predict("m", tmp_path / source, tmp_path / output, "--root", tmp_path / "home", code=code)
    assert done.returncode == 2
    assert problem in done.stderr
    assert not {"tensorflow", "tfx", "apache_beam"} & {*done.stdout.split()}
