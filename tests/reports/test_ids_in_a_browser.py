"""Ids of 32 and 64 digits stand on one line, on a wide screen and on a phone."""

from pathlib import Path
from typing import Any

import pytest

from mlplatform.reports.data_page import DataPage, OffenderCard, ProblemRow, write_data_page
from mlplatform.reports.model_page import Mistake, ModelPage, write_model_page
from mlplatform.reports.page import picture

pytestmark = pytest.mark.soak

IDS = ("0123456789abcdef" * 2, "0123456789abcdef" * 4)
PHOTO = picture(b"x" * 100)


def data_page(path: Path) -> Path:
    offenders = [OffenderCard("train", name, "shoes", "2 labels", PHOTO) for name in IDS]
    problem = ProblemRow("block", "labels", "label", "train", "two labels", 2, offenders)
    return write_data_page(path, DataPage(False, "given", [], {"train": 9}, [problem], [], []))


def model_page(path: Path) -> Path:
    page = ModelPage(
        title="items",
        made_at="today",
        is_accepted=True,
        reasons=[],
        records=2,
        figures=[],
        baseline="",
        sections=[],
        pairs={},
        mistakes=[Mistake(PHOTO, name, "shoes", "shirts", 0.9) for name in IDS],
        checks=[],
        costs=[],
    )
    return write_model_page(path, page)


@pytest.mark.parametrize("write", [data_page, model_page])
@pytest.mark.parametrize("width", [1200, 360])
def test_ids_are_not_broken_over_lines(browser: Any, tmp_path: Path, write: Any, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 740})
    page.goto(write(tmp_path / "page.html").as_uri())
    lines = page.evaluate(
        """[...document.querySelectorAll(".id")].map(element => {
            const range = document.createRange();
            range.selectNodeContents(element);
            const tops = new Set([...range.getClientRects()].map(each => each.top));
            return [element.textContent, element.title, tops.size];
        })"""
    )
    page.close()
    assert lines == [[name, name, 1] for name in IDS]
