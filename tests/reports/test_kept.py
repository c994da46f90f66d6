"""A kept report is there in full or not at all, on a disk and at a URL."""

import re
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlplatform.reports.kept import keep_report, kept_reports
from mlplatform.storage import open_storage


@pytest.fixture(params=["folder", "memory", "s3"])
def reports(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of reports that is not there yet."""
    if request.param == "folder":
        return str(tmp_path / "new" / "reports")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/reports"
    return f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}/reports"


def verdict(text: str, *, has_page: bool = True) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "verdict.json").write_text(text)
        if has_page:
            (folder / "report.html").write_text("<p>page</p>")

    return write


def test_a_report_appears_with_all_its_files(reports: str) -> None:
    seen: list[list[str]] = []

    def write(folder: Path) -> None:
        (folder / "verdict.json").write_text("{}")
        seen.append(open_storage(reports).paths(""))
        (folder / "report.html").write_text("<p>no</p>")

    first, second = (keep_report(reports, "Gate", write, run=run) for run in ("1", "2"))
    assert (first, second) == (f"{reports}/1/Gate", f"{reports}/2/Gate")
    assert seen[0] == [], "nothing is to be seen while it is written"
    assert open_storage(reports).paths("") == [
        *(f"{run}/Gate{file}" for run in "12" for file in (".json", "/report.html", "/verdict.json")),
        "index.html",
    ]


def test_a_report_that_cannot_be_written_leaves_nothing(reports: str) -> None:
    def write(folder: Path) -> None:
        (folder / "verdict.json").write_text("{}")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        keep_report(reports, "Gate", write)
    assert open_storage(reports).paths("") == []


def test_nodes_of_one_name_in_one_run_each_keep_their_report(reports: str) -> None:
    def keep(number: int) -> str:
        return keep_report(reports, "Gate", verdict(f'{{"accepted": true, "n": {number}}}'), run="r")

    with ThreadPoolExecutor(3) as threads:
        kept = list(threads.map(keep, range(3)))
    assert sorted(kept) == [f"{reports}/r/Gate", f"{reports}/r/Gate-2", f"{reports}/r/Gate-3"]
    texts = [open_storage(folder).read("verdict.json") for folder in kept]
    assert texts == [b'{"accepted": true, "n": %d}' % number for number in range(3)]
    assert len(kept_reports(reports)) == 3


def test_the_index_lists_every_verdict_with_time_run_decision_and_link(reports: str) -> None:
    kept = [
        keep_report(reports, "DataValidator", verdict('{"accepted": true}'), run="run <1>/x:y"),
        keep_report(reports, "Model-Gate", verdict('{"accepted": false}'), run=".."),
        keep_report(reports, "Gate", verdict("{", has_page=False)),
    ]
    storage = open_storage(reports)
    storage.put("notes/mine.txt", b"1")
    storage.put("killed/Gate.json", b'{"gate": "Gate"}')  # its files are still to come
    found = kept_reports(reports)
    places = [folder.removeprefix(f"{reports}/") for folder in kept]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", place) for place in places)
    assert [(r.gate, r.is_accepted, r.run, r.page) for r in found] == [
        ("Gate", None, "", ""),
        ("Model-Gate", False, "..", f"{places[1]}/report.html"),
        ("DataValidator", True, "run <1>/x:y", f"{places[0]}/report.html"),
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", report.at) for report in found)
    page = storage.read("index.html").decode()
    assert "run &lt;1&gt;" in page
    assert page.index("unknown") < page.index("rejected") < page.index(">accepted<")
    links = re.findall(r'href="([^"]+)"', page)
    assert [storage.read(link) for link in links] == [b"<p>page</p>"] * 2


def test_reports_of_before_there_were_folders_of_runs_are_listed(tmp_path: Path) -> None:
    old = tmp_path / "Data-Gate-20261124T030635415305Z"
    old.mkdir()
    verdict('{"accepted": false}')(old)
    (old / "run.json").write_text('{"run": "r1"}')
    (tmp_path / "Gate-notes").mkdir()
    (tmp_path / "Gate-notes" / "x").write_text("")
    keep_report(tmp_path, "Gate", verdict('{"accepted": true}'), run="r2")
    assert [(r.at, r.gate, r.is_accepted, r.run, r.page) for r in kept_reports(tmp_path)][1:] == [
        ("2026-11-24 03:06:35", "Data-Gate", False, "r1", f"{old.name}/report.html")
    ]
    assert old.name in (tmp_path / "index.html").read_text()


def test_facts_that_cannot_be_read_do_not_hide_other_reports(tmp_path: Path) -> None:
    keep_report(tmp_path, "Gate", verdict('{"accepted": true}'), run="a")
    for name, text in (("b", "{"), ("c", '{"at": "yesterday", "accepted": "no"}'), ("d", "[]")):
        verdict("{}")(Path(keep_report(tmp_path, "Gate", verdict("{}"), run=name)))
        (tmp_path / name / "Gate.json").write_text(text)
    found = {report.page: (report.at != "", report.is_accepted) for report in kept_reports(tmp_path)}
    assert found == {
        "a/Gate/report.html": (True, True),
        **dict.fromkeys([f"{name}/Gate/report.html" for name in "bcd"], (False, None)),
    }


def test_gates_that_keep_reports_at_once_are_all_in_the_index(reports: str) -> None:
    def keep(number: int) -> str:
        return keep_report(
            reports, "Gate", lambda folder: (folder / "report.html").write_text(""), run=f"r{number}"
        )

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(keep, range(12)))
    page = open_storage(reports).read("index.html").decode()
    assert all(f"r{number}/Gate/report.html" in page for number in range(12))
