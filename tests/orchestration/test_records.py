"""The records of a run, as they are read back."""

from mlplatform.orchestration.local.records import NodeDetails, RunFolder


def test_a_nodes_record_that_a_power_cut_emptied_is_as_none(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    assert folder.read_details("n") is None
    folder.write_details(NodeDetails("n", why="first"))
    assert folder.read_details("n") == NodeDetails("n", why="first")
    folder.details("n").write_bytes(b"")
    assert folder.read_details("n") is None
