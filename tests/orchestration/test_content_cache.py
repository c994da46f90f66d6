"""The cache never takes what it cannot know to be the same, and says why."""

import io
import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from mlplatform.orchestration.local.display import Lines
from mlplatform.orchestration.local.records import RunFolder

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("warm_start")]


def value_of(record, node):
    [artifact] = record.node(node).outputs["out"]
    return Path(artifact.uri).read_text()


def states(record):
    return {node.id: node.state for node in record.nodes}


@pytest.fixture
def code(tmp_path, pipelines, monkeypatch):
    """Copies of `cached`, `computed` and their helpers, which the nodes of this test import."""
    folder = tmp_path / "code"
    folder.mkdir()
    for name in ("cached.py", "helper_of_cached.py", "computed.py", "helper_of_computed.py"):
        shutil.copy(pipelines / name, folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def own_runner(tmp_path):
    """A runner whose processes find this test's copies."""
    from mlplatform.orchestration.local import LocalRunner

    runner = LocalRunner(tmp_path / "home", parallelism=2, display=Lines(io.StringIO()))
    yield runner
    runner.close()


class TestCode:
    def test_a_helper_is_code_and_so_is_a_variable_that_it_reads(self, code, own_runner, tmp_path):
        overrides = {"root": str(tmp_path / "root")}

        def run():
            record = own_runner.run_reference(str(code / "cached.py:create_help"), overrides=overrides)
            return record.node("Help")

        helper = code / "helper_of_cached.py"
        before = helper.read_text()
        assert run().state == "done"
        assert run().state == "cached"
        helper.write_text(before + "\n# edited\n")
        assert run().why == f"code edited: {helper}"
        assert run().state == "cached"
        helper.write_text(before)
        again = run()
        assert again.state == "cached"  # the first result is still there
        assert "same inputs, code and libraries as in run" in again.why

    def test_a_file_that_is_imported_by_its_place_is_known_after_the_first_run(
        self, runner, pipeline, tmp_path
    ):
        import cached

        found = tmp_path / "plugins/found.py"
        found.parent.mkdir()
        found.write_text("TEXT = 'one'")

        def run():
            return runner.run(pipeline(cached.Import(folder=f"{tmp_path}/plugins")))

        run()
        assert states(run()) == {"Import": "cached"}
        found.write_text("TEXT = 'two'")
        third = run()
        assert value_of(third, "Import") == "two"
        assert third.node("Import").why == f"code edited: {found}"

    def test_code_that_is_edited_while_the_pipeline_runs(self, code, own_runner, tmp_path):
        mark = tmp_path / "mark"
        mark.mkdir()

        def edit():
            while not (mark / "started").exists():
                time.sleep(0.05)
            source = code / "cached.py"
            source.write_text(source.read_text().replace('ANSWER = "v1"', 'ANSWER = "v2"'))
            (mark / "go on").write_text("")

        editor = threading.Thread(target=edit)
        editor.start()
        reference = str(code / "cached.py")
        first = own_runner.run_reference(reference, overrides={"mark": str(mark)})
        editor.join()
        assert value_of(first, "Say") == "v1"
        assert "cached.py was edited after this run had loaded it" in first.node("Say").why
        assert "changed while it ran" in first.node("Wait").why
        second = own_runner.run_reference(reference, overrides={"mark": str(mark)})
        assert value_of(second, "Say") == "v2"
        assert second.node("Say").state == "done"
        third = own_runner.run_reference(reference, overrides={"mark": str(mark)})
        assert set(states(third).values()) == {"cached"}

    @pytest.mark.slow
    def test_a_script_defines_its_components_itself_and_finds_its_arguments_in_the_nodes(
        self, warm_python, tmp_path
    ):
        script = tmp_path / "script.py"
        source = (
            "import sys\n"
            "from tfx.dsl.component.experimental.annotations import OutputArtifact\n"
            "from tfx.dsl.component.experimental.decorators import component\n"
            "from tfx.orchestration import metadata\n"
            "from tfx.orchestration.pipeline import Pipeline\n"
            "from tfx.types.standard_artifacts import String\n"
            "from mlplatform.orchestration.local import LocalRunner\n"
            "@component\n"
            "def Say(out: OutputArtifact[String]):\n"
            "    out.write('v1' + sys.argv[2])\n"
            "if __name__ == '__main__':\n"
            "    root = sys.argv[1]\n"
            "    database = metadata.sqlite_metadata_connection_config(f'{root}/m.sqlite')\n"
            "    record = LocalRunner(root).run(Pipeline('script', f'{root}/a', components=[Say()],\n"
            "        enable_cache=True, metadata_connection_config=database))\n"
            "    node = record.node('Say')\n"
            "    print(node.state, open(node.outputs['out'][0].uri).read())\n"
        )

        def run(text):
            script.write_text(text)
            done = warm_python(script, tmp_path, " there")
            return done.out.strip() or done.err

        assert run(source) == "done v1 there"
        assert run(source) == "cached v1 there"
        assert run(source.replace("v1", "v2")) == "done v2 there"


class TestData:
    def test_a_folder_that_a_parameter_names_by_any_name(self, runner, pipeline, tmp_path):
        import cached

        data = tmp_path / "data"
        data.mkdir()
        (data / "a").write_text("one")

        def run():
            return runner.run(pipeline(cached.Read(data_dir=str(data))))

        run()
        assert states(run()) == {"Read": "cached"}
        (data / "a").write_text("two")
        third = run()
        assert value_of(third, "Read") == "two"
        assert third.node("Read").why == f"folder {data}, which a parameter names, has other content"

    def test_a_file_that_arrives_in_the_folder_while_it_is_read(self, runner, pipeline, tmp_path):
        import cached

        data, mark = tmp_path / "data", tmp_path / "mark"
        for folder in (data, mark):
            folder.mkdir()
        (data / "a").write_text("one")

        def run():
            return runner.run(pipeline(cached.ReadSlowly(data_dir=str(data), mark=str(mark))))

        def add():
            deadline = time.monotonic() + 60
            while not (mark / "read").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            (data / "b").write_text("two")
            (mark / "go on").write_text("")

        adding = threading.Thread(target=add, daemon=True)
        adding.start()
        first = run()
        adding.join()
        assert value_of(first, "ReadSlowly") == "a"
        assert f"not for later runs: {data} changed while it ran" in first.node("ReadSlowly").why
        second = run()
        assert value_of(second, "ReadSlowly") == "a b"
        assert states(run()) == {"ReadSlowly": "cached"}

    def test_a_folder_that_the_node_writes_to_is_no_input(self, runner, pipeline, tmp_path):
        import cached

        data = tmp_path / "data"
        data.mkdir()
        assert states(runner.run(pipeline(cached.Count(data_dir=str(data))))) == {"Count": "done"}
        assert states(runner.run(pipeline(cached.Count(data_dir=str(data))))) == {"Count": "cached"}

    @pytest.mark.parametrize("how", ["python", "tensorflow"])
    def test_however_it_changes_that(self, how, runner, pipeline, tmp_path):
        import cached

        data = tmp_path / "data"
        data.mkdir()
        (data / "a").write_text("one")
        for state in ("done", "cached"):
            record = runner.run(pipeline(cached.Clean(data_dir=str(data), how=how)))
            assert states(record) == {"Clean": state}, record.node("Clean").why
        assert list(data.iterdir()) == []

    def test_a_lock_that_comes_and_goes_leaves_the_folder_an_input(self, runner, pipeline, tmp_path):
        import cached

        data = tmp_path / "data"
        data.mkdir()

        def run():
            return runner.run(pipeline(cached.CountLocked(data_dir=str(data))))

        assert value_of(run(), "CountLocked") == "0"
        assert states(run()) == {"CountLocked": "cached"}
        (data / "a").write_text("one")
        assert value_of(run(), "CountLocked") == "1"

    def test_data_that_changes_while_it_is_read(self, runner, pipeline, tmp_path):
        import cached

        words = tmp_path / "words"
        words.write_text("as it was")

        def run():
            return runner.run(pipeline(cached.ReadLate(mark="", words=str(words))))

        assert f"not for later runs: {words} changed while it ran" in run().node("ReadLate").why
        words.write_text("as it was")
        second = run()
        assert second.node("ReadLate").state == "done"
        assert f"{words} changed while run" in second.node("ReadLate").why

    def test_an_input_that_changes_while_it_is_read(self, runner, pipeline):
        import cached

        make = cached.Help(text="meddled")
        record = runner.run(pipeline(make, cached.Meddle(source=make.outputs["out"])))
        assert "changed while it ran" in record.node("Meddle").why


class TestRepetition:
    def test_it_knows_what_the_module_imports_under_a_computed_name_and_an_interrupted_one_leaves_it_whole(
        self, code, own_runner, monkeypatch
    ):
        def run():
            return own_runner.run_reference(str(code / "computed.py"))

        def interrupted(folder, details):
            if details.node == "Say":
                raise KeyboardInterrupt
            write(folder, details)

        assert states(run()) == {"Say": "done", "Repeat": "done"}
        helper = code / "helper_of_computed.py"
        helper.write_text("TEXT = 'two'")
        second = run()
        assert value_of(second, "Say") == "two"
        assert second.node("Say").why == f"code edited: {helper}"
        third = run()
        assert states(third) == {"Say": "cached", "Repeat": "cached"}
        assert third.node("Say").why.startswith("nothing changed since run")
        write = RunFolder.write_details
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "write_details", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run()
        for _ in range(2):
            assert states(run()) == {"Say": "cached", "Repeat": "cached"}


class TestOutputs:
    def test_changed_outputs_are_known_without_the_memory_and_an_older_result_serves(
        self, runner, pipeline, tmp_path
    ):
        import cached

        def run():
            return runner.run(pipeline(cached.Help(text="kept")))

        first = run()
        [output] = first.node("Help").outputs["out"]
        runner._force = ("Help",)
        second = run()
        runner._force = ()
        [newest] = second.node("Help").outputs["out"]
        shutil.rmtree(runner._home.cache / "nodes")
        Path(newest.uri).write_text("meddled with")
        third = run()
        assert third.node("Help").state == "cached"
        assert third.node("Help").outputs["out"][0].id == output.id
        Path(output.uri).write_text("meddled with")
        shutil.rmtree(runner._home.cache / "nodes")
        assert run().node("Help").why == "its earlier outputs are gone or were changed"


class TestPushes:
    def test_what_is_wanted_is_what_is_pushed(self, runner, pipeline, tmp_path):
        import cached

        models = tmp_path / "models"

        def run(text):
            make = cached.Help(text=text)
            push = cached.Push(source=make.outputs["out"], models_dir=str(models))
            return states(runner.run(pipeline(make, push)))

        def served():
            return (max(models.iterdir()) / "model").read_text()

        assert run("a") == {"Help": "done", "Push": "done"}
        assert run("a") == {"Help": "cached", "Push": "cached"}
        run("b")
        assert served() == "b!"
        assert run("a") == {"Help": "cached", "Push": "done"}
        assert served() == "a!"
        assert run("a") == {"Help": "cached", "Push": "cached"}

    @pytest.mark.parametrize("change", ["removed", "replaced", "overtaken"])
    def test_a_destination_that_changed_is_pushed_to_again(self, runner, pipeline, tmp_path, change):
        import cached

        models = tmp_path / "models"

        def run():
            make = cached.Help(text="a")
            push = cached.Push(source=make.outputs["out"], models_dir=str(models))
            return runner.run(pipeline(make, push)).node("Push")

        run()
        if change == "removed":
            shutil.rmtree(models)
        elif change == "replaced":
            (models / "1/model").write_text("another")
        else:
            (models / "7").mkdir()
        again = run()
        assert again.state == "done"
        assert "pushed" in again.why
        assert run().state == "cached"


def test_why_tells_the_parts_of_a_hit(runner, pipeline):
    import cached

    runner.run(pipeline(cached.Help(text="explained")))
    record = runner.run(pipeline(cached.Help(text="explained")))
    details = json.loads((runner._home.runs / record.run_id / "nodes/Help.json").read_text())
    assert details["decision"] == "hit"
    assert details["parts"]["parameter text"] == "explained"
    assert details["changes"] == []
    assert any(part.startswith("library tfx") for part in details["parts"])
