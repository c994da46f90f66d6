"""verify names what is damaged, and goes on whatever it meets."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlplatform.datasets import DatasetStore

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, write_examples: Write, store: DatasetStore) -> Path:
    store.commit("d", write_examples(tmp_path / "a", {"train": [[b"a", b"b"]]}))
    store.commit("d", write_examples(tmp_path / "b", {"train": [[b"b", b"c"]]}))
    store.tag("d", "v1", "gold")
    store.record_use("d", "v1", "model", "m@1")
    return Path(store.url) / "d"


def test_files_of_others_are_no_damage(folder: Path, store: DatasetStore) -> None:
    for place in ("versions", "tags", "tags/gold", "uses", "packs", "bitmaps", "keys", "seen"):
        (folder / place).mkdir(exist_ok=True)
        (folder / place / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "versions" / "v1.json.orig").write_bytes(b"{}")
    (folder / "versions" / "vx.json").write_bytes(b"{}")
    found = store.verify("d")
    assert found.is_whole, found.problems
    assert found.records == 3


@pytest.mark.parametrize("kind", ["versions/v1.json", "bitmaps", "packs/*.index", "packs/*.tfrecord", "uses"])
def test_a_file_that_cannot_be_read_is_one_problem_among_others(
    kind: str, folder: Path, store: DatasetStore
) -> None:
    pattern = kind if "." in kind else f"{kind}/*"
    path = sorted(folder.glob(pattern))[0]
    path.unlink()
    path.mkdir()
    (packs := sorted((folder / "packs").glob("*.tfrecord")))[-1].chmod(0o644)
    whole = [pack for pack in packs if pack.is_file()][-1]
    whole.write_bytes(whole.read_bytes()[:-1] + b"?")
    problems = {problem.path for problem in store.verify("d").problems}
    assert f"d/{path.relative_to(folder)}" in problems
    assert f"d/packs/{whole.name}" in problems


def test_one_version_is_verified_on_its_own(folder: Path, store: DatasetStore) -> None:
    (pack,) = (one.name for one in store.show("d", "v2").packs if one not in store.show("d", "v1").packs)
    (folder / "packs" / f"{pack}.tfrecord").unlink()
    assert store.verify("d", "v1").is_whole
    (problem,) = store.verify("d", "v2").problems
    assert (problem.path, problem.what, problem.versions) == (
        f"d/packs/{pack}.tfrecord",
        "it is missing",
        ["v2"],
    )
