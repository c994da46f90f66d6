"""Random sequences of commands, some of them killed, beside a model of what they must do."""

import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mlplatform.registry import ModelStore
from mlplatform.registry.errors import ModelWithdrawnError

CONTENTS = "abcd"
LABELS = ("stable", "canary")


class Expected:
    """The brute-force model: everything that happened, looked through anew for each question."""

    def __init__(self) -> None:
        self.contents: dict[int, str] = {}  # of every version that was ever pushed
        self.happened: list[tuple[str, object]] = []
        self.serving: set[int] = set()
        self.withdrawn: set[int] = set()

    def labels(self) -> dict[str, int]:
        stacks: dict[str, list[int]] = {}
        for kind, facts in self.happened:
            if kind == "promote":
                label, version = facts
                stacks.setdefault(label, []).append(version)
            elif kind in ("withdraw", "remove"):
                gone, instead = facts if kind == "withdraw" else (facts, None)
                for label, stack in stacks.items():
                    named = stack[-1] if stack else None
                    stacks[label] = [version for version in stack if version not in gone]
                    if named in gone and not stacks[label] and instead is not None:
                        stacks[label] = [instead]
        return {label: stack[-1] for label, stack in stacks.items() if stack}

    def is_refused(self, content: str) -> bool:
        refused = False
        for kind, facts in self.happened:
            if kind == "push":
                refused = refused and self.contents[facts] != content
            elif kind == "promote":
                refused = refused and self.contents[facts[1]] != content
            elif kind == "withdraw":
                gone, _ = facts
                refused = refused or content in {self.contents[version] for version in gone}
        return refused

    def push(self, content: str) -> int:
        newest = max(self.serving, default=0)
        if newest and self.contents[newest] == content:
            return newest
        version = max(self.contents, default=0) + 1
        self.contents[version] = content
        self.serving.add(version)
        self.happened.append(("push", version))
        return version

    def promote(self, version: int, label: str) -> None:
        self.withdrawn.discard(version)
        self.serving.add(version)
        self.happened.append(("promote", (label, version)))

    def withdraw(self, versions: set[int], instead: int | None = None) -> None:
        self.serving -= versions
        self.withdrawn |= versions
        self.happened.append(("withdraw", (versions, instead or max(self.serving, default=None))))

    def drop_old(self, keep: int) -> None:
        kept = set(self.labels().values()) | set(sorted(self.serving)[-keep:])
        self.happened.append(("remove", self.serving - kept))
        self.serving &= kept

    def facts(self) -> tuple[list[int], list[int], dict[str, int]]:
        return sorted(self.serving), sorted(self.withdrawn), self.labels()


class Commands(RuleBasedStateMachine):
    """Runs each command on a store and on the model; a killed one has happened in full or not at all."""

    def __init__(self, killed_at: Callable[[int, Callable[[], object]], bool]) -> None:
        super().__init__()
        self.killed_at = killed_at

    kills = st.none() | st.integers(0, 25)

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = ModelStore(self.folder / "models")
        for content in CONTENTS:
            (self.folder / content).mkdir()
            (self.folder / content / "saved_model.pb").write_text(content)
        self.expected = Expected()

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, kill: int | None, command: Callable[[], object], effect: Callable[[], object]) -> None:
        before = self.found()
        if kill is None:
            command()
        else:
            self.killed_at(kill, command)
        if kill is None or self.found() != before:
            effect()

    def found(self) -> tuple[list[int], list[int], dict[str, int]]:
        if "items" not in self.store.names():
            return [], [], {}
        versions = self.store.versions("items")
        return (
            [v.version for v in versions if not v.is_withdrawn],
            [v.version for v in versions if v.is_withdrawn],
            self.store.labels("items"),
        )

    def folders(self) -> tuple[list[int], list[int]]:
        base = self.store.models_dir / "items"
        return tuple(
            sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
            if folder.is_dir()
            else []
            for folder in (base, base / "withdrawn")
        )

    @rule(content=st.sampled_from(CONTENTS), is_allowed=st.booleans(), kill=kills)
    def push(self, content: str, is_allowed: bool, kill: int | None) -> None:
        newest = max(self.expected.serving, default=0)
        is_newest = newest > 0 and self.expected.contents[newest] == content
        if self.expected.is_refused(content) and not is_allowed and not is_newest:
            with pytest.raises(ModelWithdrawnError):
                self.store.push(self.folder / content, "items")
            return
        self.run(
            kill,
            lambda: self.store.push(self.folder / content, "items", allows_withdrawn=is_allowed),
            lambda: self.expected.push(content),
        )

    @precondition(lambda self: self.expected.serving | self.expected.withdrawn)
    @rule(choice=st.randoms(use_true_random=False), label=st.sampled_from(LABELS), kill=kills)
    def promote(self, choice: Any, label: str, kill: int | None) -> None:
        version = choice.choice(sorted(self.expected.serving | self.expected.withdrawn))
        before = self.found()
        effect = self.expected.promote
        is_same = before[2].get(label) == version
        self.run(
            None if is_same else kill,  # done or not, it would look alike
            lambda: self.store.promote("items", str(version), label),
            lambda: effect(version, label),
        )

    @precondition(lambda self: len(self.expected.serving) > 1)
    @rule(kill=kills)
    def roll_back(self, kill: int | None) -> None:
        *_, before, newest = sorted(self.expected.serving)
        if self.folders()[0] != sorted(self.expected.serving):
            self.store.confirm("items", newest, [])  # what was killed before is settled: this is another one
        self.run(
            kill,
            lambda: self.store.rollback("items", why="bad"),
            lambda: self.expected.withdraw({newest}, before),
        )

    @precondition(lambda self: len(self.expected.serving) > 1)
    @rule(kill=kills)
    def roll_back_to_the_oldest(self, kill: int | None) -> None:
        oldest, *above = sorted(self.expected.serving)
        self.run(
            kill,
            lambda: self.store.rollback("items", str(oldest)),
            lambda: self.expected.withdraw(set(above), oldest),
        )

    @precondition(lambda self: self.expected.serving)
    @rule(choice=st.randoms(use_true_random=False), kill=kills)
    def withdraw(self, choice: Any, kill: int | None) -> None:
        version = choice.choice(sorted(self.expected.serving))
        self.run(
            kill,
            lambda: self.store.withdraw("items", version),
            lambda: self.expected.withdraw({version}),
        )

    @precondition(lambda self: self.expected.serving)
    @rule(keep=st.integers(1, 3))
    def remove(self, keep: int) -> None:
        self.store.drop_old("items", keep)
        self.expected.drop_old(keep)

    @invariant()
    def the_store_is_as_expected(self) -> None:
        if not hasattr(self, "store") or "items" not in self.store.names():
            return
        found = self.found()
        assert found == self.expected.facts()
        assert set(found[2].values()) <= set(found[0])
        assert set(found[0]) <= set(self.folders()[0])

    @precondition(lambda self: self.expected.serving)
    @rule()
    def the_next_that_writes_leaves_ledger_and_folders_alike(self) -> None:
        self.store.confirm("items", max(self.expected.serving), [])
        assert self.folders() == self.expected.facts()[:2]
        digests = [e["digest"] for e in self.store.ledger("items") if e["event"] == "push"]
        assert len(digests) == len(self.expected.contents)
        assert all(a for a, _ in itertools.zip_longest(digests, self.expected.contents))


QUICK = settings(
    max_examples=6,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_any_sequence(killed_at: Any) -> None:
    run_state_machine_as_test(lambda: Commands(killed_at), settings=QUICK)


@pytest.mark.soak
def test_any_of_many_long_sequences(killed_at: Any) -> None:
    run_state_machine_as_test(
        lambda: Commands(killed_at), settings=settings(QUICK, max_examples=100, stateful_step_count=40)
    )
