"""The pages of the dashboard: each answers what a new user asks, as HTML and as JSON."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest

from mlplatform.home import Home
from mlplatform.orchestration.local.records import ArtifactRecord, NodeRecord, RunFolder, RunRecord
from mlplatform.registry import ModelStore
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.run_marks import tag_run
from mlplatform.ui.index import FORMAT, RunFilter, RunIndex
from mlplatform.ui.root_pages import open_waivers
from mlplatform.ui.server import Pages
from mlplatform.ui.site import Site

Get = Callable[[str], SimpleNamespace]
FIRST, FAILED, SECOND = (f"2026010{day}T010203.000-aaa{day}" for day in (1, 2, 3))
ALL = [
    "/",
    "/runs",
    "/runs?q=failed",
    f"/runs/{FIRST}",
    f"/runs/{FAILED}",
    f"/runs/{SECOND}",
    f"/runs/{SECOND}/nodes/Trainer",
    f"/runs/{SECOND}/logs/Trainer",
    f"/runs/{SECOND}/logs/_runner",
    f"/runs/{SECOND}/approval",
    f"/runs/{FAILED}/approval",
    "/compare",
    f"/compare?run={FIRST}&run={SECOND}",
    "/datasets",
    "/datasets/items",
    "/datasets/items/versions/v2",
    "/datasets/items/diff?old=v1&new=v2",
    "/datasets/items/record",
    "/datasets/items/record?key=item-3",
    "/models",
    "/models/item_category",
    "/models/item_category/versions/1",
    "/lineage",
    "/lineage?what=item_category@2&hops=0",
    "/gates",
    "/disk",
]


@pytest.mark.parametrize("target", ALL)
def test_every_page_and_its_twin(get: Get, target: str) -> None:
    page = get(target)
    assert page.status == 200
    assert isinstance(page.data, dict)
    # The policy of the pages lets nothing of this kind work, nor anything of another host.
    assert not re.search(r"<script|\son\w+=|style=|javascript:|https?://", page.text)
    assert page.text.count("<h1") == 1
    assert re.search(r"<title>[^<]+</title>", page.text)
    for control in re.findall(r"<(?:input|select)\b[^>]*>", page.text):
        assert "hidden" in control or "aria-label" in control or "<label" in page.text


def test_every_link_of_every_page_leads_somewhere(get: Get) -> None:
    seen, left = set(), ["/"]
    while left:
        target = left.pop()
        page = get(target)
        assert page.status == 200, target
        if not page.type.startswith("text/html") or target.startswith("/files/"):
            continue
        found = re.findall(r'(?:href|src|action)="(/[^"#]*)"', page.text)
        for each in (link.replace("&amp;", "&") for link in found):
            if each not in seen and not each.startswith("/assets/") and "format=json" not in each:
                seen.add(each)
                if "/diff" not in each or "old=" in each:
                    left.append(each)
    assert {target.partition("?")[0] for target in ALL} <= {target.partition("?")[0] for target in seen}


def test_why_did_the_run_fail(get: Get) -> None:
    assert FAILED in get("/").text  # one click away
    page = get(f"/runs/{FAILED}")
    assert page.text.index("no photo could be read") < page.text.index("<svg")
    assert "3 records of train have no label" in page.text
    assert f"/runs/{FAILED}/logs/Trainer" in page.text
    assert "no photo could be read" in get(f"/runs/{FAILED}/logs/Trainer").text


def test_which_photos_were_new_and_which_models_saw_an_item(get: Get) -> None:
    page = get("/datasets/items/diff?old=v1&new=v2")
    assert page.data["counts"] == {
        "added": 10, "removed": 2, "changed": 1, "moved": 0, "ambiguous": 0, "unchanged": 27,
    }  # fmt: skip
    assert page.text.count('src="data:image/jpeg') == 14  # added, removed, and the changed one twice
    record = get("/datasets/items/record?key=item-3")
    assert [one["label"] for one in record.data["records"]] == ["hats", "shoes"]
    assert [m["name"] for m in record.data["made"] if m["kind"] == "model"] == [
        "item_category@1",
        "item_category@2",
    ]
    assert "No record" in get("/datasets/items/record?key=item-4711").text


def test_what_serves_now_and_who_approved_it(get: Get) -> None:
    assert "ann" in get("/models").text  # one click from anywhere
    [model] = get("/models").data["models"]
    assert (model["newest"]["version"], model["newest"]["approval"]["approver"]) == (2, "ann")
    card = get("/models/item_category/versions/2")
    assert "fewer wrong shoes" in card.text
    assert f"/runs/{SECOND}/approval" in card.text
    assert get("/models/item_category/versions/1").data["approval"] is None


def test_what_waits_for_an_approval(get: Get) -> None:
    for target in ("/", "/gates"):
        assert f"/runs/{FAILED}/approval" in get(target).text
    page = get(f"/runs/{FAILED}/approval")
    assert (page.data["waits"], page.data["approvers"], page.data["may_approve"]) == (True, ["bob"], False)
    assert f"mlplatform approve {FAILED} --by NAME" in page.text
    assert "<form" not in page.text
    assert get(f"/runs/{FIRST}/approval").status == 404


def test_what_serves_and_where_it_came_from(get: Get) -> None:
    [model] = get("/models").data["models"]
    assert (model["newest"]["version"], model["labels"]) == (2, {"stable": 1})
    card = get("/models/item_category/versions/stable").data
    assert [dataset["name"] for dataset in card["datasets"]] == ["items@v1"]
    assert [gate["gate"] for gate in card["gates"]] == ["ModelValidator"]
    assert [event["event"] for event in card["events"]] == ["push", "promote"]


def test_classes_over_versions_are_counted_from_the_records(get: Get) -> None:
    data = get("/datasets/items").data
    rows = {row["label"]: row["counts"] for row in data["classes"]}
    assert rows == {"hats": [10, 12], "shirts": [10, 12], "shoes": [10, 14]}
    assert data["class_splits"] == {"v1": {"eval": 6, "train": 24}, "v2": {"eval": 6, "train": 32}}


def test_what_differs_between_two_runs_comes_first(get: Get) -> None:
    data = get(f"/compare?run={SECOND}&run={FIRST}").data
    assert [run["run_id"] for run in data["runs"]] == [FIRST, SECOND]
    assert data["differences"]["data"][0]["values"] == ["items@v1", "items@v2"]
    assert data["differences"]["arguments"] == [{"name": "epochs", "values": [None, "3"], "differs": True}]
    assert data["same"]["versions"] == 2


def test_a_log_is_searched_whole(get: Get) -> None:
    data = get(f"/runs/{FIRST}/logs/Trainer?q=STEP").data
    assert (data["found"], data["lines"]) == (2, ["2: step 1 of 2", "3: step 2 of 2"])
    assert get(f"/files/logs/{FIRST}/Trainer").text.startswith("Trainer begins")


def test_runs_are_filtered_and_paged(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    for number in range(7):
        folder = RunFolder(home.runs / f"2026010{number + 1}T000000.000-0000")
        folder.create()
        state = "failed" if number % 2 else "done"
        nodes = [NodeRecord("Train", "T", "failed" if number % 2 else "done")]
        folder.write(RunRecord(folder.run_id, f"p{number % 3}", state=state, nodes=nodes))
        folder.release()
    index = RunIndex(home, every_s=0)
    index.refresh()
    first = index.page(RunFilter(), count=3)
    assert [run["run_id"][:8] for run in first] == ["20260107", "20260106", "20260105"]
    rest = index.page(RunFilter(), before=first[-1]["run_id"], count=9)
    assert [run["run_id"][:8] for run in rest] == ["20260104", "20260103", "20260102", "20260101"]
    assert index.counts(RunFilter(state="failed")) == {"done": 4, "failed": 3}
    assert {run["pipeline"] for run in index.page(RunFilter(pipeline="p1"))} == {"p1"}
    assert index.page(RunFilter(words="train FAILED"))[0]["state"] == "failed"
    assert index.page(RunFilter(words="100%")) == index.page(RunFilter(words="_' OR 1=1 --")) == []
    tag_run(Ledger(home.ledger), first[0]["run_id"], add=["best"])
    index.refresh()
    assert [run["tags"] for run in index.page(RunFilter(tag="best"))] == [["best"]]
    assert len(index.page(RunFilter(words="best"))) == 1
    index.close()


def test_a_new_run_and_its_end_are_seen_at_the_next_look(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    index = RunIndex(home, every_s=0)
    index.refresh()
    assert index.page(RunFilter()) == []
    folder = RunFolder(home.runs / "20260101T000000.000-0000")
    folder.create()
    record = RunRecord(folder.run_id, "p")
    folder.write(record)
    index.refresh()
    assert index.page(RunFilter())[0]["state"] == "running"
    record.state = "done"
    folder.write(record)
    index.refresh()
    assert index.page(RunFilter())[0]["state"] == "done"
    folder.release()
    index.close()
    # Kept: another process starts with what this one knew.
    (folder.path / "run.json").write_text("{}")
    again = RunIndex(home, every_s=0)
    again.refresh()
    assert again.page(RunFilter())[0]["state"] == "done"
    again.close()


@pytest.mark.parametrize("damage", ["garbled", "folder"])
def test_a_damaged_index_is_made_anew(tmp_path: Path, damage: str) -> None:
    home = Home.at(tmp_path)
    file = home.cache / "ui" / f"runs-{FORMAT}.sqlite"
    if damage == "folder":
        file.mkdir(parents=True)  # as good as a root that cannot be written
    else:
        file.parent.mkdir(parents=True)
        file.write_bytes(b"no database" * 1000)
    Ledger(home.ledger).append("runs/one", "run.started", pipeline="p")
    index = RunIndex(home, every_s=0)
    index.refresh()
    assert [run["run_id"] for run in index.page(RunFilter())] == ["one"]
    index.close()


def test_a_root_at_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    home = Home.at("memory://ui/root")
    ledger = Ledger(home.ledger)
    ledger.append("runs/one", "run.started", pipeline="p")
    ledger.append("runs/one", "run.finished", state="done", metrics={"top_1": 0.5})
    site = Site(home, every_s=0)
    pages = Pages(site)
    [run] = json.loads(pages.answer("/runs.json").body)["runs"]
    assert (run["run_id"], run["metrics"]) == ("one", {"top_1": 0.5})
    for target in ("/", "/runs/one", "/models", "/datasets", "/lineage?what=one", "/gates", "/disk"):
        assert pages.answer(target).status == 200
    site.index.close()


def test_open_waivers_are_those_of_the_last_verdicts(own_home: Home) -> None:
    ledger = Ledger(own_home.ledger)

    def decide(run: str, *waivers: dict) -> None:
        ledger.append(
            f"runs/{run}",
            "verdict",
            node="DataValidator",
            gate="DataValidator",
            is_accepted=True,
            waivers=waivers,
        )

    facts = {"kind": "leak", "feature": "item_id", "split": "", "by": "ann", "why": "<b>twice</b>"}
    decide(FIRST, {**facts, "until": "2026-01-31", "is_used": True})
    site = Site(own_home, every_s=0)
    assert site.waivers() == [], "a later run's verdict has none"
    site.index.close()
    later = {**facts, "until": "9999-12-31", "is_used": False}
    of_model = {"threshold": "per_class_recall", "class_name": "<i>hat", "slice": "color = red", "by": "ann",
                "why": "new", "until": "9999-12-31", "is_used": True}  # fmt: skip
    decide(
        SECOND, {**facts, "until": "2026-01-31", "is_used": True}, later, of_model, {**facts, "until": "soon"}
    )
    site = Site(own_home, every_s=0)
    found = site.waivers()
    days = {day: open_waivers(found, date(2026, *day)) for day in ((1, 30), (1, 31), (2, 1))}
    assert [[row["days_left"] for row in rows][:-2] for rows in days.values()] == [[1], [0], []]
    assert {row["run"] for row in days[1, 30]} == {SECOND}
    page = Pages(site).answer("/gates").body.decode()
    assert "Open waivers" in page
    assert "not found any more" in page
    assert "&lt;b&gt;twice&lt;/b&gt;" in page
    assert "per class recall of <code>&lt;i&gt;hat</code> in color = red" in page
    site.index.close()


def test_an_empty_root_says_what_to_do(tmp_path: Path) -> None:
    site = Site(Home.at(tmp_path / "nothing"))
    pages = Pages(site)
    for target in ("/", "/runs", "/models", "/datasets", "/gates", "/disk", "/lineage", "/compare"):
        answer = pages.answer(target)
        assert answer.status == 200, answer.body.decode()
    assert b"mlplatform run" in pages.answer("/").body
    site.index.close()


def test_prepared_pages_compile_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(home)
    prepared = Pages(site)
    prepared.prepare()
    monkeypatch.delattr(jinja2.Environment, "compile")
    assert {prepared.answer(target).status for target in ALL} == {200}
    site.index.close()


def test_nothing_heavy_is_loaded_to_look(home: Home) -> None:
    targets = [target for target in ALL if "datasets" not in target]
    code = (
        "import sys, json\nfrom mlplatform.home import Home\nfrom mlplatform.ui.server import Pages\n"
        "from mlplatform.ui.site import Site\n"
        f"pages = Pages(Site(Home.at({home.root!r})))\n"
        f"assert {{pages.answer(t).status for t in {targets!r}}} == {{200}}\n"
        "from mlplatform.cli.main import cli\n"
        f"cli(['lineage', 'item_category@1', '--root', {home.root!r}], standalone_mode=False)\n"
        "heavy = {'tensorflow', 'tfx', 'apache_beam', 'ml_metadata', 'keras', 'grpc', 'pandas'}\n"
        "print(sorted(heavy & {m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_lineage_takes_what_happens_since(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "root")
    ledger = Ledger(home.ledger)
    ledger.append("runs/one", "run.started", pipeline="p", code={"commit": "abcdef1"})
    site = Site(home, every_s=0)
    graph = site.graph()
    assert set(graph.around("run:one").nodes) == {"run:one", "code:abcdef1"}
    assert (graph.last("run"), graph.names("code", "abc"), graph.node("run:two")) == (
        "one",
        ["abcdef1"],
        None,
    )
    ledger.append("runs/one", "dataset.used", dataset="d@v1", digest="x")
    ledger.append("runs/two", "run.finished", state="done", reused=["one"])
    assert set(site.graph().around("dataset:d@v1", "down").nodes) == {"dataset:d@v1", "run:one", "run:two"}
    model = tmp_path / "model"
    model.mkdir()
    (model / "saved_model.pb").write_text("x")
    ModelStore(home.models).push(model, "m", run="two")
    assert "model:m@1" in site.graph().around("code:abcdef1", "down").nodes
    site.index.close()


def test_what_the_dataset_store_does_not_need_is_said(own_home: Home) -> None:
    left = Path(own_home.datasets) / "items" / "packs" / f"{'0' * 32}.tfrecord"
    left.write_bytes(bytes(5000))
    os.utime(left, (1, 1))  # of a commit that was killed long ago
    site = Site(own_home)
    pages = Pages(site)
    before = json.loads(pages.answer("/disk.json").body)  # a request waits for no measurement
    assert before["is_live"] or before["parts"]
    site.disk.wait()
    data = json.loads(pages.answer("/disk.json").body)
    assert not data["is_live"]
    assert data["gc"]["freed"] == [{"kind": "dataset files", "count": 1, "bytes": 5000}]
    assert {part["part"] for part in data["parts"]} >= {"datasets", "ledger", "models", "reports", "runs"}
    assert all(part["bytes"] > 0 for part in data["parts"] if part["part"] != "cache")
    site.index.close()


def test_pages_and_assets_are_small(get: Get, pages: Pages) -> None:
    sizes = {
        target: len(gzip.compress(get(target).text.encode()))
        for target in ALL
        if "key=" not in target and "diff" not in target
    }
    assert max(sizes.values()) <= 15_000, sizes
    assert sum(len(pages.answer(f"/assets/{name}").body) for name in ("style.css", "icon.svg")) <= 150_000


def test_figures_of_runs_stand_beside_each_other_with_their_intervals(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "root")
    for number, (value, low, high) in enumerate([(0.8, 0.75, 0.85), (0.9, 0.86, 0.94), (0.7, None, None)], 1):
        evaluation = home.pipelines / str(number)
        evaluation.mkdir(parents=True)
        figure = {"value": value, "low": low, "high": high} if low is not None else value
        (evaluation / "metrics.json").write_text(json.dumps({"quality": {"top_1": figure, "photos": 40}}))
        folder = RunFolder(home.runs / f"2026010{number}T000000.000-0000")
        folder.create()
        output = {"evaluation": [ArtifactRecord(number, "ModelEvaluation", str(evaluation))]}
        folder.write(
            RunRecord(
                folder.run_id, "p", state="done", nodes=[NodeRecord("Gate", "G", "done", outputs=output)]
            )
        )
        folder.release()
    site = Site(home)
    target = "/compare?" + "&".join(f"run={folder.name}" for folder in sorted(home.runs.iterdir()))
    page = Pages(site).answer(target).body.decode()
    figures = {
        row["name"]: row for row in json.loads(Pages(site).answer(f"{target}&format=json").body)["figures"]
    }
    assert figures["top_1"]["values"] == [0.8, 0.9, 0.7]
    assert figures["top_1"]["intervals"] == [[0.75, 0.85], [0.86, 0.94], None]
    assert page.count('class="interval"') == 2
    assert "0.9 (0.86 to 0.94)" in page
    assert page.count("<figure>") == 1  # what is the same in all of them needs no drawing
    site.index.close()


@pytest.mark.soak
def test_every_page_in_a_browser(address: str, look_at: Callable[..., None]) -> None:
    for target in [*ALL, "/nothing"]:
        look_at(address + target)
