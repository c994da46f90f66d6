"""A kept report is there in full or not at all."""

import re
from pathlib import Path

import pytest

from mlplatform.home import RemotePathError
from mlplatform.reports.kept import keep_report


def test_a_report_appears_with_all_its_files(tmp_path: Path) -> None:
    reports = tmp_path / "new" / "reports"
    seen: list[bool] = []

    def write(folder: Path) -> None:
        (folder / "verdict.json").write_text("{}")
        seen.append(any(not path.name.startswith(".") for path in reports.iterdir()))
        (folder / "report.html").write_text("<p>no</p>")

    first, second = (keep_report(reports, "Gate", write) for _ in range(2))
    assert seen == [False, True], "nothing is to be seen while it is written"
    assert sorted(path.name for path in first.iterdir()) == ["report.html", "verdict.json"]
    assert sorted(reports.iterdir()) == [first, second]
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
