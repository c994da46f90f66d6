"""`mlplatform run` and `mlplatform runs`, as a user calls them.

The first run, the stopped ones and those that must not import TFX are processes of their own.
"""

import json
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def place(tmp_path_factory, pipelines):
    """A folder with copies of the pipelines, a data folder and a root."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(pipelines, folder / "code", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").mkdir()
    (folder / "data/text.txt").write_text("hello")
    return folder


@pytest.fixture
def mlplatform(place, command):
    """Run the command line in `place`: in this process, or with options of Python in one of its own."""

    def call(*arguments, python=()):
        if python:
            return subprocess.run(
                [sys.executable, *python, "-m", "mlplatform.cli.main", *arguments],
                capture_output=True,
                text=True,
                cwd=place,
            )
        done = command(*arguments, cwd=place)
        return subprocess.CompletedProcess(arguments, done.code, done.out, done.err)

    return call


@pytest.fixture
def run(place, mlplatform):
    def call(*arguments, **options):
        name = [
            "run",
            str(place / "code/by_name.py"),
            "--data",
            str(place / "data"),
            "--root",
            str(place / "root"),
        ]
        done = mlplatform(*name, "--json", *arguments, **options)
        return done, json.loads(done.stdout)  # also of a run that failed

    return call


RUNNING = 2


def states(document):
    return {node["id"]: node["state"] for node in document["nodes"]}


def imported_by(done):
    """Return the top-level modules that a command run with `-X importtime` has imported."""
    return {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}


@pytest.mark.parametrize("options", ["--only Make --only Show", "--only Make --to Show"])
def test_one_node_alone_is_one_node(options, mlplatform, place):
    done = mlplatform("run", str(place / "code/by_name.py"), *options.split())
    assert done.returncode == 2
    assert "all nodes between these run" in done.stderr


def test_the_last_lines_of_a_log_cannot_be_fewer_than_none(mlplatform, place):
    done = mlplatform("runs", "logs", "latest", "Make", "--tail", "-1", "--root", str(place / "root"))
    assert done.returncode == 2
    assert "-1 is not in the range x>=0" in done.stderr


class TestOneStory:
    """In this order, as a user would: a run, the same again, edits, a failure, a gate, a look back."""

    def test_1_the_first_run_does_everything(self, run):
        done, document = run(python=["-W", "ignore"])
        assert done.returncode == 0, done.stderr
        assert set(states(document).values()) == {"done"}
        assert "Make: done" in done.stderr

    def test_2_nothing_changed_so_nothing_is_imported(self, run, place):
        done, document = run(python=["-X", "importtime"])
        assert set(states(document).values()) == {"cached"}
        imported = imported_by(done)
        assert "ml_metadata" in imported
        assert not imported & {"tfx", "tensorflow", "apache_beam"}

    def test_3_ml_metadata_has_a_cached_execution_per_node(self, place):
        import ml_metadata
        from ml_metadata.proto import metadata_store_pb2

        config = metadata_store_pb2.ConnectionConfig()
        config.sqlite.filename_uri = str(place / "root/metadata.sqlite")
        store = ml_metadata.MetadataStore(config)
        newest = max(store.get_contexts_by_type("pipeline_run"), key=lambda context: context.id)
        executions = store.get_executions_by_context(newest.id)
        assert [execution.last_known_state for execution in executions] == [5] * 5  # CACHED
        assert all(store.get_events_by_execution_ids([execution.id]) for execution in executions)

    def test_4_what_the_pipeline_read_is_a_miss_when_edited_and_an_option_reaches_into_an_argument(
        self, run, place
    ):
        (place / "data/text.txt").write_text("other")
        (place / "code/settings_of_by_name.py").write_text('SUFFIX = "?"')
        done, document = run("--set", "model.times=3")
        ran = {node["id"]: node["why"] for node in document["nodes"] if node["state"] == "done"}
        assert ran["Make"] == "parameter text: hello! -> other?", done.stderr
        assert ran["Repeat"] == "parameter times: 1 -> 3"
        assert set(ran) == {"Make", "Fail", "Show", "Repeat"}

    def test_5_a_failure_tells_the_cause_first_and_exits_with_1(self, run, place):
        done, document = run("--set", "how=value", "--force", "Repeat")
        assert done.returncode == 1
        assert (document["state"], states(document)["Fail"]) == ("failed", "failed")
        lines = done.stderr[done.stderr.index("mlplatform: ") :].splitlines()
        assert lines[0] == "mlplatform: Fail failed: ValueError: a value is wrong"
        assert "code/steps.py:" in lines[1]
        assert lines[2].strip() == f"log: {max((place / 'root/runs').iterdir())}/logs/Fail.log"
        assert "Traceback" not in done.stderr
        command = f"mlplatform runs logs --root {place / 'root'} {document['run_id']} Fail"
        assert lines[-1].strip() == f"whole log: {command}"

    def test_6_a_gate_exits_with_3(self, run):
        done, document = run("--set", "how=gate")
        assert done.returncode == 3
        assert states(document)["Fail"] == "failed"
        assert "Fail failed: found 1, needed 2" in done.stderr

    def test_7_the_records_tell_the_story(self, mlplatform, place):
        root = ["--root", str(place / "root")]
        listed = json.loads(mlplatform("runs", "list", *root, "--json").stdout)
        assert [row["state"] for row in listed] == ["failed", "failed", "done", "done", "done"]
        assert listed[0]["failed"] == ["Fail"]
        shown = json.loads(mlplatform("runs", "show", listed[1]["run_id"], *root, "--json").stdout)
        assert "a value is wrong" in next(node["error"] for node in shown["nodes"] if node["id"] == "Fail")
        why = json.loads(mlplatform("runs", "why", listed[2]["run_id"], "Repeat", *root, "--json").stdout)
        assert (why["decision"], why["changes"]) == (
            "changed",
            [{"part": "parameter times", "before": "1", "now": "3"}],
        )
        assert (
            "parameter times: 1 -> 3"
            in mlplatform("runs", "why", listed[2]["run_id"], "Repeat", *root).stdout
        )
        assert "raise ValueError" in mlplatform("runs", "logs", listed[1]["run_id"], "Fail", *root).stdout
        compared = mlplatform("runs", "compare", listed[3]["run_id"], listed[2]["run_id"], *root).stdout
        assert "overrides.model.times: - -> 3" in compared
        assert mlplatform("runs", "show", "nonsense", *root).returncode == 2
        ambiguous = mlplatform("runs", "show", listed[0]["run_id"][:4], *root)
        assert ambiguous.returncode == 2
        assert "more than one run" in ambiguous.stderr
        lines = mlplatform("runs", "why", listed[1]["run_id"], *root).stdout.splitlines()
        assert next(line for line in lines if line.startswith("  Fail ")).split()[1] == "failed"
        log = json.loads(mlplatform("runs", "logs", "latest", "_runner", *root, "--json").stdout)
        assert log["log"].endswith("logs/_runner.log")

    def test_8_one_node_alone_whatever_record_is_damaged(self, run, mlplatform, place):
        newest = max((place / "root/runs").iterdir())
        (newest / "run.json").write_text("")
        done, document = run("--only", "Repeat", "--force", "Repeat")
        assert done.returncode == 0, done.stderr
        assert {node for node, state in states(document).items() if state != "skipped"} == {"Repeat"}
        root = ["--root", str(place / "root")]
        listed = json.loads(mlplatform("runs", "list", *root, "--json").stdout)
        assert [row["state"] for row in listed[:2]] == ["done", "unreadable"]
        assert mlplatform("runs", "logs", "latest", "Make", *root).returncode == 1  # it was left out

    def test_9_a_run_that_was_killed_is_put_right_by_an_unchanged_one(self, run, place):
        assert run()[0].returncode == 0  # what the unchanged run below repeats
        process = sleeping_run(place, place / "root")
        process.kill()
        process.communicate(timeout=60)
        done, document = run()
        assert set(states(document).values()) == {"cached"}, done.stderr
        assert [e for e in executions(place / "root/metadata.sqlite") if e.last_known_state == RUNNING] == []


def sleeping_run(place, root):
    """Start `by_name` in a process, and return that once its longest node runs."""
    name = ["run", str(place / "code/by_name.py"), "--data", str(place / "data"), "--root", str(root)]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlplatform.cli.main", *name, "--json", "--set", "seconds=60.5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if "Sleep: started" in line:
            break
    return process


def executions(database):
    import ml_metadata
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(database)
    return ml_metadata.MetadataStore(config).get_executions()


def test_a_module_that_starts_threads_still_runs(mlplatform, place, tmp_path):
    done = mlplatform("run", "code/with_threads.py", "--data", "data", "--root", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    assert "starts threads" in done.stderr
    assert set(states(json.loads(done.stdout)).values()) == {"done"}


SCRIPT = """
import sys
from steps import String, Parameter, OutputArtifact, component
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from mlplatform.orchestration.local import LocalRunner


@component
def Say(text: Parameter[str], out: OutputArtifact[String]):
    out.write(text)


if __name__ == "__main__":
    root = sys.argv[1]
    database = metadata.sqlite_metadata_connection_config(f"{root}/metadata.sqlite")
    say = Say(text="hi")
    pipeline = Pipeline("script", f"{root}/artifacts", components=[say], metadata_connection_config=database)
    print(LocalRunner(root).run(pipeline).state)
"""


def test_a_script_without_a_main_guard_is_told_so(warm_python, place, tmp_path):
    (place / "code/unguarded.py").write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    done = warm_python(place / "code/unguarded.py", tmp_path)
    assert done.code != 0
    assert "start the run under `if __name__ == '__main__':`" in done.err.splitlines()[-1]
    assert len(list((tmp_path / "runs").glob("2*"))) == 1  # no run within the run


def test_a_runtime_parameter_is_given_on_the_command_line(mlplatform, place, tmp_path):
    arguments = ["run", "code/by_name.py:with_parameter", "--root", str(tmp_path), "--json"]
    done = mlplatform(*arguments, "--parameter", "times=3")
    assert done.returncode == 0, done.stderr
    assert "repeat 3" in (tmp_path / "calls").read_text()
    done = mlplatform(*arguments)
    assert done.returncode == 2
    assert "no value is given for times" in done.stderr
    assert "--parameter NAME=VALUE" in done.stderr
    done = mlplatform(*arguments, "--parameter", "times")
    assert done.returncode == 2
    assert "give NAME=VALUE" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["item_categroy"], "did you mean 'item_category'"),
        (["code/by_nam.py"], "did you mean 'code/by_name.py'"),
        (["nowhere.pipelines:create_pipeline"], "there is no module 'nowhere'"),
        (["code/by_name.py", "--set", "oops"], "give KEY=VALUE"),
        (["code/by_name.py", "--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(mlplatform, place, tmp_path, arguments, said):
    done = mlplatform("run", *arguments, "--root", str(tmp_path), python=["-X", "importtime"])
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not imported_by(done) & {"tfx", "tensorflow", "apache_beam"}
    assert not (tmp_path / "runs").exists()


def test_data_for_a_pipeline_without_data_is_wrong_usage(mlplatform, place, tmp_path):
    done = mlplatform("run", "code/by_name.py:without_data", "--data", "data", "--root", str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert "takes no argument 'data'" in done.stderr


def test_200_runs_are_listed_without_the_stack(mlplatform, run, place, tmp_path):
    run()
    [newest, *_] = sorted((place / "root/runs").iterdir(), reverse=True)
    for number in range(200):
        shutil.copytree(newest, tmp_path / f"runs/20260101T000000.{number:03d}-0000")
    for arguments in (["list", "--limit", "0"], ["show"]):
        done = mlplatform("runs", *arguments, "--root", str(tmp_path), python=["-X", "importtime"])
        assert done.returncode == 0, done.stderr
        assert not imported_by(done) & {"tfx", "tensorflow", "apache_beam", "ml_metadata", "numpy"}
