"""Commands that are killed before each of their steps: what is left is what was, or what was to be.

See `killed_at` for how.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlplatform.registry import ModelStore

Check = Callable[..., None]
KilledAt = Callable[[int, Callable[[], object]], bool]
Folders = Callable[[], tuple[list[int], list[int]]]
Push = Callable[..., int]
Model = Callable[[str], Path]
Action = Callable[[], object]


def facts(store: ModelStore) -> tuple[list[int], list[int], dict[str, int]]:
    """What a reader sees: versions that serve, withdrawn ones, labels."""
    versions = store.versions("items")
    return (
        [v.version for v in versions if not v.is_withdrawn],
        [v.version for v in versions if v.is_withdrawn],
        store.labels("items"),
    )


@pytest.fixture
def check_every_step(
    store: ModelStore, killed_at: KilledAt, folders: Folders, stream: Path
) -> Callable[..., None]:
    """Run an action again and again, killed one step later each time, and look at what is left."""

    def check(prepare: Action, action: Action, before: object, after: object) -> None:
        seen = set()
        for step in range(500):
            base = store.models_dir / "items"
            if base.exists():
                base.rename(store.models_dir.parent / f"step-{step}")
                stream.rename(store.models_dir.parent / f"stream-{step}")
            prepare()
            assert facts(store) == before
            was_killed = killed_at(step, action)
            found = facts(store)
            assert found in (before, after)
            assert set(found[2].values()) <= set(found[0]), "a label names a version that does not serve"
            assert set(found[0]) <= set(folders()[0]), "a version that serves has no folder"
            seen.add("before" if found == before else "after")
            ledger = len(store.ledger("items"))
            store.confirm("items", 1, [])  # the next that writes settles what was left
            assert facts(store) == found
            assert folders() == found[:2]
            assert len(store.ledger("items")) - ledger in (
                1,
                2,
            )  # one may be made up for
            if not was_killed:
                assert found == after
                assert seen == {"before", "after"}
                return
        raise AssertionError("it never ended")

    return check


@pytest.fixture
def two(store: ModelStore, push: Push) -> Action:
    """Prepare versions 1 and 2, `stable` on 2 and before on 1."""

    def two() -> None:
        push("a", "b")
        store.promote("items", "1")
        store.promote("items", "2")

    return two


def test_a_roll_back(store: ModelStore, check_every_step: Check, two: Action) -> None:
    check_every_step(
        two,
        lambda: store.rollback("items", why="bad"),
        before=([1, 2], [], {"stable": 2}),
        after=([1], [2], {"stable": 1}),
    )


def test_a_roll_back_of_several_versions(store: ModelStore, check_every_step: Check, push: Push) -> None:
    def prepare() -> None:
        push("a", "b", "c")
        store.promote("items", "3")

    check_every_step(
        prepare,
        lambda: store.rollback("items", "1"),
        before=([1, 2, 3], [], {"stable": 3}),
        after=([1], [2, 3], {"stable": 1}),
    )


def test_a_promotion_of_a_withdrawn_version(store: ModelStore, check_every_step: Check, two: Action) -> None:
    def prepare() -> None:
        two()
        store.rollback("items")

    check_every_step(
        prepare,
        lambda: store.promote("items", "2", "canary"),
        before=([1], [2], {"stable": 1}),
        after=([1, 2], [], {"stable": 1, "canary": 2}),
    )


def test_a_removal(store: ModelStore, check_every_step: Check, two: Action, push: Push) -> None:
    def prepare() -> None:
        two()
        push("c", "d")

    check_every_step(
        prepare,
        lambda: store.drop_old("items", 3),
        before=([1, 2, 3, 4], [], {"stable": 2}),
        after=([2, 3, 4], [], {"stable": 2}),
    )


def test_a_push(store: ModelStore, check_every_step: Check, two: Action, push: Push, model: Model) -> None:
    model("c")
    check_every_step(
        two,
        lambda: push("c"),
        before=([1, 2], [], {"stable": 2}),
        after=([1, 2, 3], [], {"stable": 2}),
    )


def test_a_roll_back_that_was_killed_is_finished_by_the_same_command(
    store: ModelStore, killed_at: KilledAt, folders: Folders, push: Push, stream: Path
) -> None:
    step = 0
    while True:
        if store.models_dir.exists():
            store.models_dir.rename(store.models_dir.parent / f"step-{step}")
            stream.rename(store.models_dir.parent / f"stream-{step}")
        push("a", "b", "c")
        was_killed = killed_at(step, lambda: store.rollback("items"))
        if folders()[0] == [1, 2, 3]:  # servers of the folder still see it
            assert store.rollback("items").version == 2
        assert facts(store)[:2] == ([1, 2], [3])
        if not was_killed:
            return
        step += 1


def test_a_full_disk_leaves_all_as_it_was(
    store: ModelStore, push: Push, stream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push("a", "b")
    events = sorted(stream.iterdir())

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        store.rollback("items")
    monkeypatch.undo()
    assert facts(store) == ([1, 2], [], {})
    assert sorted(stream.iterdir()) == events


def test_the_first_write_to_a_root_of_release_0_1(
    store: ModelStore,
    check_every_step: Check,
    two: Action,
    old_ledger: Callable[[], Path],
) -> None:
    def prepare() -> None:
        two()
        old_ledger()

    check_every_step(
        prepare,
        lambda: store.promote("items", "1"),
        before=([1, 2], [], {"stable": 2}),
        after=([1, 2], [], {"stable": 1}),
    )
