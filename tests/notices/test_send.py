"""Notices, sent to real servers on loopback: what arrives, and that nothing that fails does any harm."""

import json
import socket
import socketserver
import sys
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlplatform.cli.main import cli
from mlplatform.home import Home
from mlplatform.notices.send import Notice, send
from mlplatform.orchestration.local.occasions import notice_of
from mlplatform.orchestration.local.records import NodeRecord, RunFolder, RunRecord
from mlplatform.orchestration.local.run_events import RunEvents
from mlplatform.registry import ModelStore
from mlplatform.registry.events import VERDICT, run_stream
from mlplatform.registry.ledger import Ledger

NOTICE = Notice("failed", "item_category", "Trainer: no photo\n  at train.py:3", "20260101T000000.000-ab12")


def home_with(tmp_path: Path, **settings: object) -> Home:
    home = Home.at(tmp_path / "root")
    Path(home.root).mkdir(exist_ok=True)
    (Path(home.root) / "notices.yaml").write_text(json.dumps(settings))  # which is YAML
    return home


def test_every_way_gets_the_same(
    tmp_path: Path, hook: ThreadingHTTPServer, mail_server: socketserver.ThreadingTCPServer
) -> None:
    taken = tmp_path / "taken.json"
    program = f"import sys, pathlib; pathlib.Path({str(taken)!r}).write_text(sys.stdin.read())"
    home = home_with(
        tmp_path,
        webhook=f"http://127.0.0.1:{hook.server_port}/hook",
        mail={
            "server": "127.0.0.1",
            "port": mail_server.server_address[1],
            "sender": "ml@example.org",
            "to": ["a@example.org", "b@example.org"],
            "tls": "none",
        },
        command=[sys.executable, "-c", program],
        dashboard="https://ml.example.org/",
    )
    assert send(home, NOTICE) == {"webhook": "", "mail": "", "command": ""}
    [(path, posted)] = hook.posted  # type: ignore[attr-defined]
    link = "https://ml.example.org/runs/20260101T000000.000-ab12"
    assert path == "/hook"
    assert posted["text"].splitlines() == [
        "item_category failed", "Trainer: no photo", "  at train.py:3", f"run {NOTICE.run}", link,
    ]  # fmt: skip
    [mail] = mail_server.mails  # type: ignore[attr-defined]
    assert "Subject: item_category failed" in mail
    assert "To: a@example.org, b@example.org" in mail
    assert link in mail
    document = json.loads(taken.read_text())
    assert (document["occasion"], document["run"], document["link"]) == ("failed", NOTICE.run, link)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_what_cannot_be_sent_is_reported_and_the_rest_is_sent(
    tmp_path: Path, hook: ThreadingHTTPServer
) -> None:
    home = home_with(
        tmp_path,
        webhook=f"http://127.0.0.1:{hook.server_port}/broken",
        mail={"server": "127.0.0.1", "port": closed_port(), "sender": "a@b", "to": ["c@d"]},
        command=[sys.executable, "-c", "raise SystemExit(3)"],
    )
    outcome = send(home, NOTICE)
    assert set(outcome) == {"webhook", "mail", "command"}
    assert all(outcome.values())
    assert "500" in outcome["webhook"]


def test_a_webhook_that_leads_elsewhere_is_not_followed(tmp_path: Path, hook: ThreadingHTTPServer) -> None:
    home = home_with(tmp_path, webhook=f"http://127.0.0.1:{hook.server_port}/moved")
    assert "302" in send(home, NOTICE)["webhook"]
    assert [path for path, _ in hook.posted] == ["/moved"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text", ["webhook: ftp://x", "[]", "{", "notify: [sneezed]", "\xff", "mail: {server: x}", "webhok: a"]
)
def test_settings_that_cannot_be_used_fail_nothing(tmp_path: Path, text: str) -> None:
    home = home_with(tmp_path)
    (Path(home.root) / "notices.yaml").write_bytes(text.encode("latin-1"))
    assert "notices.yaml" in send(home, NOTICE)["settings"]


def test_nobody_is_notified_of_what_is_not_asked_for(tmp_path: Path, hook: ThreadingHTTPServer) -> None:
    home = home_with(tmp_path, notify=["refused"], webhook=f"http://127.0.0.1:{hook.server_port}/hook")
    assert send(home, NOTICE) == {}
    assert send(Home.at(tmp_path / "other"), NOTICE) == {}
    assert hook.posted == []  # type: ignore[attr-defined]


def test_a_hostile_name_is_no_header_of_a_mail(
    tmp_path: Path, mail_server: socketserver.ThreadingTCPServer
) -> None:
    mail = {
        "server": "127.0.0.1",
        "port": mail_server.server_address[1],
        "sender": "a@b",
        "to": ["c@d"],
        "tls": "none",
    }
    assert send(home_with(tmp_path, mail=mail), Notice("failed", "x\r\nBcc: evil@example.org")) == {
        "mail": ""
    }
    [text] = mail_server.mails  # type: ignore[attr-defined]
    assert "\nBcc:" not in text.partition("\r\n\r\n")[0].replace("\r", "")


def ended_run(home: Home, number: int, state: str, *, is_refused: bool = False) -> RunRecord:
    """Write a run of the pipeline `p` as the runner does; return its record."""
    folder = RunFolder(home.runs / f"2026010{number}T000000.000-0000")
    folder.create()
    node = NodeRecord("Train", "T", "failed" if state == "failed" else "done", "first run")
    node.error = "no memory" if state == "failed" else ""
    record = RunRecord(folder.run_id, "p", nodes=[node])
    written = RunEvents(home, folder)
    written.run_started(record)
    if is_refused:
        facts = {"node": "Train", "gate": "Train", "is_accepted": False, "reasons": ["too bad"]}
        Ledger(home.ledger).append(run_stream(folder.run_id), VERDICT, **facts)
    record.state = state  # type: ignore[assignment]
    folder.write(record)
    folder.release()
    written.run_finished(record)
    assert written.close() == ""
    return record


def test_a_run_notifies_once_of_what_became_of_it(tmp_path: Path, hook: ThreadingHTTPServer) -> None:
    home = home_with(tmp_path, webhook=f"http://127.0.0.1:{hook.server_port}/hook")
    for number, state in enumerate(("done", "failed", "done", "cancelled", "done", "failed"), 1):
        ended_run(home, number, state, is_refused=number == 6)
    said = [posted["text"].splitlines()[:2] for _, posted in hook.posted]  # type: ignore[attr-defined]
    assert said == [
        ["p failed", "Train: no memory"],
        ["p works again", "run 20260102T000000.000-0000 failed"],
        ["p was refused by a gate", "too bad"],
    ]
    events = Ledger(home.ledger).events("runs/20260102T000000.000-0000")
    assert [(e.kind, e.get("way")) for e in events if e.kind.startswith("notice")] == [
        ("notice.sent", "webhook")
    ]


def test_a_notice_that_cannot_be_sent_is_no_problem_of_the_run(tmp_path: Path) -> None:
    home = home_with(tmp_path, webhook=f"http://127.0.0.1:{closed_port()}/hook")
    record = ended_run(home, 1, "failed")
    [event] = [e for e in Ledger(home.ledger).events(run_stream(record.run_id)) if e.kind == "notice.failed"]
    assert "refused" in str(event.get("problem"))
    assert notice_of(home, Ledger(home.ledger), record) == Notice(
        "failed", "p", "Train: no memory", record.run_id
    )


def test_a_roll_back_is_notified(tmp_path: Path, hook: ThreadingHTTPServer) -> None:
    home = home_with(tmp_path, webhook=f"http://127.0.0.1:{hook.server_port}/hook")
    for content in ("one", "two"):
        model = tmp_path / content
        model.mkdir()
        (model / "saved_model.pb").write_text(content)
        ModelStore(home.models).push(model, "items")
    done = CliRunner().invoke(
        cli, ["models", "rollback", "items", "--why", "dark photos", "--root", home.root]
    )
    assert done.exit_code == 0, done.output
    [(_, posted)] = hook.posted  # type: ignore[attr-defined]
    assert posted["text"].splitlines() == ["items was rolled back", "version 1 serves again: dark photos"]
