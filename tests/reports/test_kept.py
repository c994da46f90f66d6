"""A kept report is there in full or not at all."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlplatform.home import RemotePathError
from mlplatform.reports.kept import keep_report, kept_reports


def test_a_report_appears_with_all_its_files(tmp_path: Path) -> None:
    reports = tmp_path / "new" / "reports"
    seen: list[int] = []

    def write(folder: Path) -> None:
        (folder / "verdict.json").write_text("{}")
        seen.append(sum(path.name.startswith("Gate") for path in reports.iterdir()))
        (folder / "report.html").write_text("<p>no</p>")

    first, second = (keep_report(reports, "Gate", write) for _ in range(2))
    assert seen == [0, 1], "nothing is to be seen while it is written"
    assert sorted(path.name for path in first.iterdir()) == ["report.html", "verdict.json"]
    assert sorted(reports.iterdir()) == [first, second, reports / "index.html"]
    assert re.fullmatch(r"Gate-\d{8}T\d{12}Z", first.name)


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "verdict.json").write_text("{}")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        keep_report(tmp_path, "Gate", write)
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_kept_on_this_machine() -> None:
    with pytest.raises(RemotePathError, match="reports_dir is 's3://bucket/reports'"):
        keep_report("s3://bucket/reports", "Gate", lambda folder: None)
    assert not Path("s3:").exists()


def test_the_index_lists_every_verdict_with_time_run_decision_and_link(tmp_path: Path) -> None:
    def verdict(text: str, *, has_page: bool = True) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            (folder / "verdict.json").write_text(text)
            if has_page:
                (folder / "report.html").write_text("<p>page</p>")

        return write

    kept = [
        keep_report(tmp_path, "DataValidator", verdict('{"accepted": true}'), run="run <1>"),
        keep_report(tmp_path, "Model-Gate", verdict('{"accepted": false}')),
        keep_report(tmp_path, "Gate", verdict("{", has_page=False)),
    ]
    (tmp_path / "DataValidator-notes").mkdir()
    found = kept_reports(tmp_path)
    assert [(r.gate, r.is_accepted, r.run, r.page) for r in found] == [
        ("Gate", None, "", ""),
        ("Model-Gate", False, "", f"{kept[1].name}/report.html"),
        ("DataValidator", True, "run <1>", f"{kept[0].name}/report.html"),
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", report.at) for report in found)
    page = (tmp_path / "index.html").read_text()
    assert "run &lt;1&gt;" in page
    assert page.index("unknown") < page.index("rejected") < page.index(">accepted<")
    links = re.findall(r'href="([^"]+)"', page)
    assert [(tmp_path / link).is_file() for link in links] == [True, True]


def test_gates_that_keep_reports_at_once_are_all_in_the_index(tmp_path: Path) -> None:
    def keep(number: int) -> Path:
        return keep_report(tmp_path, f"Gate{number}", lambda folder: (folder / "report.html").write_text(""))

    with ThreadPoolExecutor(8) as threads:
        kept = list(threads.map(keep, range(40)))
    page = (tmp_path / "index.html").read_text()
    assert all(folder.name in page for folder in kept)
