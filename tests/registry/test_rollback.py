"""What a roll-back takes with it: labels, other processes' roll-backs, and the right to be pushed again."""

import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from mlplatform.errors import GateError
from mlplatform.registry import ModelStore
from mlplatform.registry.errors import ModelWithdrawnError, NothingToRollBackToError
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.model_ledger import ledger_of

Push = Callable[..., int]
Model = Callable[[str], Path]


class TestLabels:
    def test_they_move_back_to_what_they_named_before(self, store: ModelStore, push: Push) -> None:
        push("a", "b", "c")
        store.promote("items", "1")
        store.promote("items", "3")
        store.promote("items", "2", "canary")
        store.rollback("items")
        assert store.labels("items") == {"stable": 1, "canary": 2}
        assert store.version("items", "stable").version == 1
        assert store.ledger("items")[-1]["labels"] == {"stable": 1}

    def test_one_that_named_no_other_version_names_what_serves_instead(
        self, store: ModelStore, push: Push
    ) -> None:
        push("a", "b", "c")
        store.promote("items", "3")
        store.rollback("items", "1")
        assert store.labels("items") == {"stable": 1}

    def test_they_pass_over_versions_that_do_not_serve(self, store: ModelStore, push: Push) -> None:
        push("a", "b", "c", "d")
        for version in "1234":
            store.promote("items", version)
        store.withdraw("items", 2)
        store.rollback("items")
        assert store.labels("items") == {"stable": 3}
        store.rollback("items")
        assert store.labels("items") == {"stable": 1}

    def test_an_undone_roll_back_moves_them_again(self, store: ModelStore, push: Push) -> None:
        push("a", "b")
        store.promote("items", "1")
        store.promote("items", "2")
        store.rollback("items")
        assert store.labels("items") == {"stable": 1}
        store.promote("items", "2")
        assert store.labels("items") == {"stable": 2}
        store.rollback("items")
        assert store.labels("items") == {"stable": 1}

    def test_there_is_none_when_nothing_serves(self, store: ModelStore, push: Push) -> None:
        push("a")
        store.promote("items", "1")
        store.withdraw("items", 1)
        assert store.labels("items") == {}
        assert store.ledger("items")[-1]["labels"] == {"stable": None}

    def test_those_of_an_earlier_release_move_too(
        self, store: ModelStore, push: Push, old_ledger: Callable[[], Path]
    ) -> None:
        """Whose ledger says nothing of labels in the line of a roll-back."""
        push("a", "b")
        store.promote("items", "1")
        store.promote("items", "2")
        base = store.models_dir / "items"
        with old_ledger().open("a") as ledger:
            ledger.write('{"event": "rollback", "at": "2025", "by": "me", "version": 2, "why": ""}\n')
        (base / "withdrawn").mkdir()
        (base / "2").rename(base / "withdrawn" / "2")
        assert store.labels("items") == {"stable": 1}

    def test_one_of_a_folder_that_somebody_deleted_names_what_it_named_before(
        self, store: ModelStore, push: Push
    ) -> None:
        push("a", "b")
        store.promote("items", "1")
        store.promote("items", "2")
        folder = store.models_dir / "items" / "2"
        folder.rename(store.models_dir / "elsewhere")
        assert store.labels("items") == {"stable": 1}
        assert push("c") == 3
        assert store.ledger("items")[-2]["event"] == "remove"


class TestWithdrawnModels:
    def test_one_is_not_pushed_again(self, store: ModelStore, push: Push) -> None:
        push("a", "b")
        store.rollback("items", why="bad on shoes")
        with pytest.raises(ModelWithdrawnError) as raised:
            push("b")
        assert isinstance(raised.value, GateError)
        assert (raised.value.version, raised.value.why) == (2, "bad on shoes")
        event = store.ledger("items")[-1]
        for fact in ("version 2", event["at"], event["by"], "bad on shoes", "models promote items@2"):
            assert str(fact) in str(pickle.loads(pickle.dumps(raised.value)))
        assert [v.version for v in store.versions("items")] == [1, 2]
        assert push("c") == 3

    def test_one_that_was_promoted_is_pushed_again(self, store: ModelStore, push: Push) -> None:
        push("a", "b")
        store.rollback("items")
        store.promote("items", "2")
        assert push("b") == 2

    def test_one_that_is_allowed_is_pushed_and_stays_allowed(
        self, store: ModelStore, push: Push, model: Model
    ) -> None:
        push("a", "b")
        store.rollback("items")
        assert store.push(model("b"), "items", allows_withdrawn=True).version.version == 3
        assert push("c", "b") == 5

    def test_the_latest_decision_about_the_model_counts_not_that_of_one_version(
        self, store: ModelStore, push: Push
    ) -> None:
        push("a", "b", "a")
        store.rollback("items")
        with pytest.raises(ModelWithdrawnError, match="as version 3"):
            push("a")  # though version 1 holds it and serves
        store.promote("items", "1")
        assert push("a") == 4

    def test_one_that_was_removed_meanwhile_stays_refused(self, store: ModelStore, push: Push) -> None:
        push("a", "b")
        store.rollback("items")
        aside = store.models_dir / "items" / "withdrawn"
        aside.rename(store.models_dir / "elsewhere")
        with pytest.raises(ModelWithdrawnError):
            push("b")

    def test_what_servers_could_not_confirm_may_be_pushed_again(
        self, store: ModelStore, model: Model
    ) -> None:
        store.push(model("a"), "items", servers=["h:1"])
        store.take_back("items", 1, why="h:1 is away")
        assert store.version("items", "1").is_withdrawn
        assert store.push(model("a"), "items").version.version == 2

    def test_what_was_decided_about_is_not_taken_back(self, store: ModelStore, model: Model) -> None:
        store.push(model("a"), "items", servers=["h:1"])
        store.promote("items", "1")
        store.take_back("items", 1)
        assert not store.version("items", "1").is_withdrawn


def _rollback(models_dir: Path, barrier: object) -> object:
    barrier.wait()
    try:
        return ModelStore(models_dir).rollback("items").version
    except NothingToRollBackToError as error:
        return error


class TestAtTheSameTime:
    def test_roll_backs_end_without_raw_errors(self, store: ModelStore, push: Push) -> None:
        push(*"abcdef")
        with multiprocessing.Manager() as manager, multiprocessing.get_context("fork").Pool(5) as pool:
            barrier = manager.Barrier(5)
            answers = pool.starmap(_rollback, [(store.models_dir, barrier)] * 5)
        assert all(isinstance(answer, (int, NothingToRollBackToError)) for answer in answers)
        serving = [v.version for v in store.versions("items") if not v.is_withdrawn]
        assert serving == list(range(1, len(serving) + 1))
        assert 1 <= len(serving) < 6
        withdrawn = [v for e in store.ledger("items") if e["event"] == "rollback" for v in e["versions"]]
        assert sorted(withdrawn) == list(range(len(serving) + 1, 7))  # each once

    def test_one_that_comes_while_another_is_at_it_withdraws_no_second_version(
        self, store: ModelStore, push: Push
    ) -> None:
        push("a", "b", "c")
        base = store.models_dir / "items"
        Ledger(ledger_of(store.url)).append(  # its folder is not moved yet
            "models/items", "model.rolled_back", version=3, versions=[3], labels={}
        )
        assert store.rollback("items").version == 2
        assert [v.version for v in store.versions("items") if not v.is_withdrawn] == [1, 2]
        assert sorted(p.name for p in base.iterdir()) == ["1", "2", "lock", "withdrawn"]
