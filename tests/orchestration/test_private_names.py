"""Patches of private names: each is as the table says, and a name that changed is left unpatched."""

import json

import pytest

from mlplatform.beam import worker
from mlplatform.orchestration.local.patches import beam_in_process
from mlplatform.private_names import TABLE, Patch, apply_patches

COUNT = """
import logging, sys
import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import fn_runner
from mlplatform.orchestration.local.patches import beam_in_process
logging.basicConfig(stream=sys.stdout, format="WARNING %(message)s", force=True)
{change}
beam_in_process.prepare()
with beam.Pipeline() as pipeline:
    counted = pipeline | beam.Create(range(7)) | beam.combiners.Count.Globally()
    counted | beam.Map(lambda count: print("COUNT", count))
"""


PROBLEMS = """
import json
from mlplatform.private_names import TABLE, problem_of
print(json.dumps({name: problem_of(name) for name in TABLE}))
"""


@pytest.mark.e2e
def test_the_installed_libraries_are_as_the_table_says(warm_python):
    # In a process of its own: in this one, tests of components may have replaced the names already.
    done = warm_python("-c", PROBLEMS)
    assert done.code == 0, done.err
    assert json.loads(done.out.splitlines()[-1]) == dict.fromkeys(TABLE, "")


def test_every_patch_of_beam_names_what_it_replaces():
    patches = (*beam_in_process.PATCHES, worker.CONNECT_FIRST)
    assert all(patch.names and set(patch.names) <= TABLE.keys() for patch in patches)


RENAMED = """
def newly_named(self, name):  # as Beam itself would then call it
    if name != "_execute_bundle":
        raise AttributeError(name)
    return self._under_another_name

fn_runner.FnApiRunner._under_another_name = fn_runner.FnApiRunner._execute_bundle
del fn_runner.FnApiRunner._execute_bundle
fn_runner.FnApiRunner.__getattr__ = newly_named
"""
OTHERWISE = """
run = fn_runner.ProgressRequester.run
fn_runner.ProgressRequester.run = lambda self, how=None: run(self)
"""


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (RENAMED, "FnApiRunner._execute_bundle is not there"),
        (OTHERWISE, "ProgressRequester.run takes self, how"),
    ],
)
def test_beam_runs_unpatched_where_a_name_changed(warm_python, change, problem):
    done = warm_python("-c", COUNT.format(change=change))
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "COUNT 7" in lines
    [warning] = [line for line in lines if line.startswith("WARNING the libraries are used unpatched")]
    assert problem in warning
    assert "tested with Beam 2.70.0" in warning


def test_the_patches_whose_names_are_there_are_applied_all_the_same(monkeypatch, caplog):
    applied = []
    monkeypatch.setitem(TABLE, "json:dumps_quickly", TABLE[next(iter(TABLE))])
    monkeypatch.setitem(TABLE, "json:dumps", TABLE[next(iter(TABLE))])
    apply_patches(
        [
            Patch(lambda: applied.append("gone"), ("json:dumps", "json:dumps_quickly")),
            Patch(lambda: applied.append("there"), ("json:dumps",)),
        ]
    )
    assert applied == ["there"]
    assert caplog.text.count("json:dumps_quickly is not there") == 1
    assert json.dumps(1) == "1"
