"""Approvals in a ledger: who may answer, which answer counts, which request is meant; local and at a URL."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlplatform.cli.main import cli
from mlplatform.home import Home
from mlplatform.registry.approvals import (
    AnswerTextError,
    ApprovalRequest,
    Approvals,
    NoApprovalWantedError,
    NotAnApproverError,
)
from mlplatform.registry.ledger import Ledger

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture(params=["local", "url"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    return Home.at(tmp_path if request.param == "local" else f"memory://{tmp_path.name}-{id(request)}")


@pytest.fixture
def approvals(home: Home) -> Approvals:
    return Approvals(Ledger(home.ledger))


def ask(
    approvals: Approvals, digest: str, run: str, model: str = "items", **facts: object
) -> ApprovalRequest:
    facts = {"now": NOW, "time_limit_s": 3600.0, **facts}
    return approvals.ask(model, digest, run=run, **facts)[0]  # type: ignore[arg-type]


def test_what_waits_until_it_is_answered_or_over(approvals: Approvals) -> None:
    first, other = ask(approvals, "d1", "run-1"), ask(approvals, "d2", "run-2", "colours")
    assert {each.run for each in approvals.waiting(NOW)} == {"run-1", "run-2"}
    approvals.answer(first, approver="ann", why="fine", is_given=True)
    assert approvals.waiting(NOW) == [other]
    assert approvals.waiting(NOW + timedelta(hours=1)) == []
    assert approvals.expire(other) is None
    assert approvals.waiting(NOW) == []
    given = approvals.expire(first)  # an answer that came just in time stands
    assert given is not None
    assert (given.approver, given.is_given, given.run) == ("ann", True, "run-1")


def test_only_those_who_are_named_may_answer(approvals: Approvals) -> None:
    request = ask(approvals, "d1", "run-1", approvers=["ann", "bob"])
    with pytest.raises(NotAnApproverError, match=r"'eve' may not decide .*: ann, bob may"):
        approvals.answer(request, approver="eve", why="please", is_given=True)
    wider = ask(approvals, "d1", "run-2")
    approvals.answer(wider, approver="eve", why="please", is_given=True)
    assert approvals.answer_to("items", "d1", ["ann", "bob"]) is None
    assert approvals.waiting(NOW) == [request]  # still: eve's word is none for that run


@pytest.mark.parametrize(("name", "why"), [("", "x"), ("ann", " "), ("a\nb", "x"), ("ann", "x" * 2001)])
def test_an_answer_has_a_name_and_a_reason(approvals: Approvals, name: str, why: str) -> None:
    request = ask(approvals, "d1", "run-1")
    with pytest.raises(AnswerTextError):
        approvals.answer(request, approver=name, why=why, is_given=True)
    assert approvals.answers("items") == []


def test_which_request_is_meant(approvals: Approvals) -> None:
    ask(approvals, "aaa1", "run-1", "items")
    ask(approvals, "bbb1", "run-1", "colours")
    last = ask(approvals, "ccc1", "run-2")
    assert approvals.find("run-2", NOW) == last
    assert approvals.find("items@ccc", NOW) == last
    with pytest.raises(NoApprovalWantedError, match="more than one request: colours@bbb1, items@aaa1"):
        approvals.find("run-1", NOW)
    assert approvals.find("colours@b", NOW).digest == "bbb1"
    with pytest.raises(NoApprovalWantedError, match="no run 'run-9' asks for an approval; waiting: run-1"):
        approvals.find("run-9", NOW)


def run(home: Home, *words: str) -> Result:
    return CliRunner().invoke(cli, ["approve", *words, "--root", home.root])


def test_the_command(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    approvals = Approvals(Ledger(home.ledger))
    assert "Nothing waits" in run(home).stdout
    asked = ask(
        approvals, "d" * 64, "run-1", now=datetime.now(timezone.utc), approvers=["ann"], dataset="items@v3"
    )
    assert all(word in run(home).stdout for word in ("run-1", "items@v3", "ann", "d" * 12))
    [row] = json.loads(run(home, "--json").stdout)
    assert (row["digest"], row["run"]) == (asked.digest, "run-1")
    assert run(home, "run-1", "--by", "ann").exit_code == 2  # without a reason
    assert run(home, "run-1", "--by", "eve", "--why", "x").exit_code == 2
    refused = run(home, "run", "--by", "ann", "--why", "bad on hats", "--no")
    assert "ann refused items@dddddddddddd" in refused.stdout
    again = json.loads(run(home, "items@ddd", "--by", "ann", "--why", "fixed", "--json").stdout)
    assert again["is_given"] is True
    answer = approvals.answer_to("items", asked.digest)
    assert answer is not None
    assert (answer.is_given, answer.why) == (True, "fixed")
