"""Killed at any moment, written by many at once, on a full disk and without permission."""

import errno
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlplatform.datasets import DatasetStore

KILLS = int(os.environ.get("SOAK_STORE_KILLS", "500"))
KILL_LOOP = Path(__file__).with_name("kill_loop.py")


def kill_loop(folder: Path, kills: int, seed: int, *verbs: str) -> dict[str, int]:
    command = [sys.executable, str(KILL_LOOP), str(folder), str(kills), str(seed), *verbs]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_kills_lose_nothing_and_show_nothing_half_made(tmp_path: Path) -> None:
    hits = kill_loop(tmp_path, 20, 11, "commit", "first", "checkout", "gc", "tag")
    assert min(hits.values()) >= 4


@pytest.mark.slow
def test_kills_of_commits_on_beam(tmp_path: Path) -> None:
    assert min(kill_loop(tmp_path, 4, 12, "beam").values()) >= 4


@pytest.mark.soak
def test_five_hundred_kills(tmp_path: Path, soak_seed: int) -> None:
    for at in range(KILLS // 100):
        kill_loop(tmp_path / str(at), 100, soak_seed + at, "commit", "first", "beam", "checkout", "gc", "tag")


COMMIT = """
import sys
from mlplatform.datasets import DatasetStore
store = DatasetStore(sys.argv[1])
for source in sys.argv[2:]:
    committed = store.commit("d", source, message=source)
    assert committed.manifest.digest in {one.digest for one in store.log("d")}
    store.tag("d", committed.manifest.digest, "newest")
    store.gc("d", is_dry_run=False, grace_s=0)
"""


def test_writers_in_several_processes_all_land(
    tmp_path: Path, write_examples: Callable[..., Path], store: DatasetStore
) -> None:
    writers, commits = 4, 5
    shared = [b"shared-%d" % n for n in range(200)]
    sources = [
        [
            write_examples(
                tmp_path / f"in-{w}-{c}",
                {"train": [shared, [b"own-%d-%d-%d" % (w, c, n) for n in range(50)]]},
            )
            for c in range(commits)
        ]
        for w in range(writers)
    ]
    same = write_examples(tmp_path / "same", {"train": [shared]})
    children = [
        subprocess.Popen(
            [sys.executable, "-c", COMMIT, store.url, str(same), *map(str, mine)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for mine in sources
    ]
    for child in children:
        _, complaint = child.communicate(timeout=300)
        assert child.returncode == 0, complaint[-2000:]
    versions = store.log("d")
    assert [one.number for one in reversed(versions)] == list(range(1, writers * commits + 2))
    assert {one.message for one in versions} == {str(same), *(str(path) for mine in sources for path in mine)}
    for one, parent in itertools.pairwise(versions):
        assert one.parent == parent.digest
    assert store.verify("d").is_whole
    assert set(store.tags("d")) == {"newest"}


def test_a_full_disk_is_one_clear_error_and_no_version(
    tmp_path: Path, write_examples: Callable[..., Path]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True
    )
    if mount.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        store = DatasetStore(small / "store")
        known = b"a" * 1000
        store.commit("d", write_examples(tmp_path / "one", {"train": [[known] * 3]}))
        rows = [os.urandom(1000) for _ in range(3000)]
        large = write_examples(tmp_path / "two", {"train": [rows]})
        loose = write_examples(tmp_path / "three", {"train": [[known, *rows]]})
        zipped = write_examples(tmp_path / "four", {"train": [[known, *rows]]}, gz=True)
        for source in (large, loose, zipped):
            with pytest.raises(OSError, match="No space left") as caught:
                store.commit("d", source)
            assert caught.value.errno == errno.ENOSPC
            assert caught.value.filename, "the error names the file"
            assert [one.version for one in store.log("d")] == ["v1"]
            assert store.verify("d").is_whole
            assert store.gc("d", grace_s=0) == []
        command = [sys.executable, "-m", "mlplatform.cli.main", "datasets", "commit", "d", str(loose)]
        done = subprocess.run([*command, "--store", store.url], capture_output=True, text=True)
        assert done.returncode == 1
        assert re.fullmatch(rf"mlplatform: {store.url}/d/\.aside/\w+: No space left on device\n", done.stderr)
        roomy = DatasetStore(tmp_path / "store")
        roomy.commit("d", large)
        with pytest.raises(OSError, match="No space left"):
            roomy.checkout("d", "v1", small / "out", link=False)
        assert not (small / "out").exists()
        assert [path.name for path in small.iterdir()] == ["store"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can become somebody without permissions")
def test_a_store_that_may_not_be_written_is_one_clear_error(
    tmp_path: Path, write_examples: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    from mlplatform.cli.main import main

    source = write_examples(tmp_path / "in", {"train": [[b"a"]]})
    closed = tmp_path / "closed"
    closed.mkdir()
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    DatasetStore(tmp_path / "open").commit("d", source)  # loads what the child needs and may not read
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        sys.argv = ["mlplatform", "datasets", "commit", "d", str(source), "--store", str(closed / "store")]
        try:
            main()
        except SystemExit as stop:
            sys.stderr.flush()
            os._exit(int(stop.code or 0))
        os._exit(99)
    _, status = os.waitpid(child, 0)
    complaint = capfd.readouterr().err
    assert os.waitstatus_to_exitcode(status) == 1, complaint
    assert "Permission denied" in complaint
    assert str(closed) in complaint
    assert "Traceback" not in complaint
