"""Approval: waits for a person, survives a restart, and never lets a model pass that nobody agreed to."""

import json
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.proto.orchestration import pipeline_pb2
from tfx.types import standard_artifacts
from tfx.types.channel import Channel

from mlplatform.components import Approval
from mlplatform.components.approval.errors import (
    ApprovalExpiredError,
    ApprovalRefusedError,
    NothingToApproveError,
)
from mlplatform.components.approval.executor import Executor
from mlplatform.components.serving_pusher import executor as pushing
from mlplatform.components.serving_pusher.errors import NotApprovedError, NotBlessedError
from mlplatform.components.serving_pusher.push import push_and_confirm
from mlplatform.config_file import ConfigError
from mlplatform.errors import GateError
from mlplatform.registry import ModelStore, tree_digest
from mlplatform.registry.approvals import Approvals
from mlplatform.registry.events import NOTICE_SENT, VERDICT
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.model_ledger import ledger_of

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY_S = 86_400.0


class KilledError(Exception):
    """The process is killed while it waits."""


class FakeClock:
    """Time that passes when somebody sleeps; then `happens` is called."""

    def __init__(self, happens: Callable[["FakeClock"], object] = lambda clock: None) -> None:
        self.at, self.slept, self._happens = START, [], happens

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += timedelta(seconds=seconds)
        self._happens(self)


def artifact(kind: Any, uri: Path, **properties: int) -> Any:
    made = kind()
    made.uri = str(uri)
    for name, value in properties.items():
        made.set_int_custom_property(name, value)
    return made


def make_model(folder: Path, content: str = "a model") -> Any:
    serving = folder / "Format-Serving"
    serving.mkdir(parents=True)
    (serving / "saved_model.pb").write_text(content)
    return artifact(standard_artifacts.Model, folder)


class Root:
    """A root, and what a launcher does there with the executor."""

    def __init__(self, folder: Path, models: str = "") -> None:
        self.folder, self.models = folder, models or str(folder / "models")
        self.model = make_model(folder / "trained")
        self.ledger = Ledger(ledger_of(self.models))
        self.approvals = Approvals(self.ledger)

    def run(
        self, clock: FakeClock, run: str = "run-1", approvers: tuple[str, ...] = (), **inputs: Any
    ) -> Any:
        """Ask, and return the blessing."""
        node = pipeline_pb2.PipelineNode()
        node.node_info.id = "Approval"
        executor = Executor(BaseExecutor.Context(pipeline_node=node, pipeline_run_id=run, unique_id="1"))
        executor.clock = clock
        blessing = artifact(standard_artifacts.ModelBlessing, self.folder / "approvals" / uuid.uuid4().hex)
        executor.Do(
            {"model": [self.model], **{key: [value] for key, value in inputs.items()}},
            {"approval": [blessing]},
            {
                "models_dir": self.models,
                "model_name": "items",
                "approvers": json.dumps(approvers),
                "time_limit_h": 24.0,
                "poll_s": 60.0,
            },
        )
        return blessing

    def answer(self, is_given: bool = True, name: str = "ann", why: str = "good on shoes") -> None:
        request = self.approvals.find("run-1", START)
        self.approvals.answer(request, approver=name, why=why, is_given=is_given)

    def verdicts(self) -> list[tuple[object, object]]:
        events = self.ledger.events("runs/run-1")
        return [(e.get("is_accepted"), e.get("reasons")) for e in events if e.kind == VERDICT]

    def push(self, **inputs: Any) -> None:
        """Push the model as the pusher's executor does."""
        pushing.Executor().Do(
            {"model": [self.model], **{key: [value] for key, value in inputs.items()}},
            {"pushed_model": [artifact(standard_artifacts.PushedModel, self.folder / "pushed")]},
            {
                "models_dir": self.models,
                "model_name": "items",
                "servers": "[]",
                "timeout_s": 1.0,
                "keep": 0,
            },
        )

    def pushed(self) -> list[int]:
        store = ModelStore(self.models)
        return [version.version for version in store.versions("items")] if store.names() else []


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


def test_a_yes_lets_the_model_pass(root: Root) -> None:
    clock = FakeClock(lambda clock: root.answer() if len(clock.slept) == 3 else None)
    blessing = root.run(clock)
    assert clock.slept == [60.0] * 3
    facts = json.loads(Path(blessing.uri, "approval.json").read_text())
    assert (facts["approver"], facts["why"], facts["model"]) == ("ann", "good on shoes", "items")
    assert root.verdicts() == [(True, [])]
    root.push(approval=blessing)
    assert root.pushed() == [1]
    again = FakeClock()
    root.run(again, "run-2")  # the answer belongs to the model: nobody is asked twice
    assert again.slept == []


def test_a_root_at_a_url_is_polled_as_well(tmp_path: Path) -> None:
    root = Root(tmp_path / "root", f"memory://approval-{tmp_path.name}/models")
    clock = FakeClock(lambda clock: root.answer() if len(clock.slept) == 2 else None)
    blessing = root.run(clock)
    assert clock.slept == [60.0] * 2
    root.push(approval=blessing)
    assert root.pushed() == [1]


def test_a_stock_pusher_takes_the_blessing(root: Root) -> None:
    blessing = root.run(FakeClock(lambda clock: root.answer()))
    # All that `tfx.components.util.model_utils.is_model_blessed` looks at.
    assert blessing.get_int_custom_property("blessed") == 1


def test_a_no_is_a_gates_no_and_says_who_and_why(root: Root) -> None:
    with pytest.raises(
        ApprovalRefusedError, match=r"ann refused to push 'items' at .*: bad on hats"
    ) as raised:
        root.run(FakeClock(lambda clock: root.answer(is_given=False, why="bad on hats")))
    assert isinstance(raised.value, GateError)
    [(is_accepted, reasons)] = root.verdicts()
    assert is_accepted is False
    assert "bad on hats" in reasons[0]
    with pytest.raises(ApprovalRefusedError):  # and stays one, without another question
        root.run(FakeClock(), "run-2")
    root.answer(name="bob", why="the hats are fixed")
    assert root.run(FakeClock(), "run-3").get_string_custom_property("approver") == "bob"


def test_without_an_answer_the_time_limit_is_a_no(root: Root) -> None:
    clock = FakeClock()
    with pytest.raises(ApprovalExpiredError, match=r"nobody \(ann, bob\) answered from 2026-01-01"):
        root.run(clock, approvers=("ann", "bob"))
    assert sum(clock.slept) == DAY_S
    assert root.approvals.waiting(clock.at) == []
    assert root.verdicts()[0][0] is False
    with pytest.raises(ApprovalExpiredError):  # another run asks anew, for as long
        root.run(clock, "run-2", approvers=("ann", "bob"))
    assert sum(clock.slept) == 2 * DAY_S


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_run_that_was_killed_while_it_waited_goes_on_waiting(root: Root, is_answered: bool) -> None:
    def killed(clock: FakeClock) -> None:
        if len(clock.slept) == 60:  # an hour
            raise KilledError

    clock = FakeClock(killed)
    with pytest.raises(KilledError):
        root.run(clock)
    if is_answered:
        root.answer()
    later = FakeClock()
    later.at = clock.at
    if is_answered:
        root.run(later, "run-2")
        assert later.slept == []
        return
    with pytest.raises(ApprovalExpiredError):
        root.run(later, "run-2")
    assert later.at == START + timedelta(days=1)  # the first question's limit holds on
    assert [request.run for request in root.approvals.of_run("run-2")] == ["run-2"]


def test_a_container_that_tries_again_asks_once(root: Root) -> None:
    def killed(clock: FakeClock) -> None:
        raise KilledError

    for _ in range(2):
        with pytest.raises(KilledError):
            root.run(FakeClock(killed))
    assert len(root.approvals.of_run("run-1")) == 1


def test_a_ledger_that_is_away_for_a_while_ends_no_waiting(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Approvals.answer_to

    def answer_to(self: Approvals, *words: Any) -> Any:
        if clock.slept and len(clock.slept) < 3:
            raise ConnectionError("the network is away")
        return real(self, *words)

    monkeypatch.setattr(Approvals, "answer_to", answer_to)
    clock = FakeClock(lambda clock: root.answer() if len(clock.slept) == 4 else None)
    assert root.run(clock).get_int_custom_property("blessed") == 1


def test_nobody_is_asked_about_what_a_gate_refuses(root: Root, tmp_path: Path) -> None:
    refused = artifact(standard_artifacts.ModelBlessing, tmp_path / "b", blessed=0)
    with pytest.raises(NothingToApproveError, match="blessing say no"):
        root.run(FakeClock(), blessing=refused)
    assert root.approvals.of_run("run-1") == []


def test_people_are_notified_once_that_they_are_asked(root: Root, tmp_path: Path) -> None:
    received = tmp_path / "received"
    command = ["sh", "-c", f"cat >> {received}"]
    (root.folder / "notices.yaml").write_text(
        json.dumps({"command": command, "dashboard": "https://ml.example.org"})
    )
    with pytest.raises(ApprovalExpiredError):
        root.run(FakeClock())
    notice = json.loads(received.read_text())
    assert notice["title"] == "items waits for an approval"
    assert "mlplatform approve run-1 --by NAME" in notice["text"]
    assert notice["link"] == "https://ml.example.org/runs/run-1"
    assert [e.get("occasion") for e in root.ledger.events("runs/run-1") if e.kind == NOTICE_SENT] == [
        "approval_wanted"
    ]


def test_an_approval_of_another_model_pushes_nothing(root: Root) -> None:
    blessing = root.run(FakeClock(lambda clock: root.answer()))
    root.model = make_model(root.folder / "retrained", "another model")
    for inputs in ({"approval": blessing}, {"blessing": blessing}):
        with pytest.raises(NotApprovedError, match="the approval is of items@"):
            root.push(**inputs)
    assert root.pushed() == []


def test_a_no_after_the_approval_stops_the_push(root: Root) -> None:
    blessing = root.run(FakeClock(lambda clock: root.answer()))
    root.answer(is_given=False, name="bob", why="seen in the demo")
    with pytest.raises(NotApprovedError, match="bob refused it since: seen in the demo"):
        root.push(approval=blessing)
    assert root.pushed() == []


def test_what_is_no_approval_is_none(root: Root, tmp_path: Path) -> None:
    gate = artifact(standard_artifacts.ModelBlessing, tmp_path / "gate", blessed=1)
    with pytest.raises(NotApprovedError):
        root.push(approval=gate)
    refused = artifact(standard_artifacts.ModelBlessing, tmp_path / "refused", blessed=0)
    with pytest.raises(NotBlessedError, match="approval say no"):
        root.push(approval=refused)
    forged = root.run(FakeClock(lambda clock: root.answer()))
    Path(forged.uri, "approval.json").write_text("not JSON")
    with pytest.raises(NotApprovedError):
        root.push(approval=forged)
    assert root.pushed() == []


CONTENTS, NAMES = ("one", "two", "three"), ("items", "colours")
ANSWERS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(CONTENTS), st.booleans()), max_size=6)


@settings(max_examples=20)
@given(
    answers=ANSWERS,
    pushed=st.sampled_from(CONTENTS),
    shown=st.tuples(st.sampled_from(NAMES), st.sampled_from(CONTENTS)),
)
def test_only_a_model_whose_last_answer_is_yes_is_ever_pushed(
    tmp_path_factory: pytest.TempPathFactory,
    answers: list[tuple[str, str, bool]],
    pushed: str,
    shown: tuple[str, str],
) -> None:
    """Whatever was answered about whichever models, and whatever approval the pusher is shown."""
    folder = tmp_path_factory.mktemp("push")
    digests = {}
    for content in CONTENTS:
        (folder / content).mkdir()
        (folder / content / "saved_model.pb").write_text(content)
        digests[content] = tree_digest(folder / content)
    store = ModelStore(folder / "models")
    approvals = Approvals(Ledger(ledger_of(store.url)))
    last: dict[tuple[str, str], bool] = {}
    for name, content, is_given in answers:
        request, _ = approvals.ask(
            name, digests[content], now=START, time_limit_s=DAY_S, run=f"{name}-{content}"
        )
        approvals.answer(request, approver="ann", why="so", is_given=is_given)
        last[name, content] = is_given
    may_pass = shown == ("items", pushed) and last.get(("items", pushed)) is True
    try:
        push_and_confirm(folder / pushed, store, "items", approved=(shown[0], digests[shown[1]]))
    except NotApprovedError:
        assert not may_pass
        assert store.names() == []
    else:
        assert may_pass
        assert store.version("items", "1").push.digest == digests[pushed]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"time_limit_h": 0}, "time_limit_h is 0"),
        ({"poll_s": -1}, "poll_s is -1"),
        ({"approvers": [""]}, "approvers"),
    ],
)
def test_what_cannot_work_is_reported_when_it_is_declared(changes: dict[str, Any], says: str) -> None:
    model = Channel(type=standard_artifacts.Model)
    with pytest.raises(ConfigError, match=says):
        Approval(model, "models", "items", **changes)
