"""The page that needs no server: the evaluation's figures, the errors first, nothing from outside."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlplatform.demo.facts import read_facts
from mlplatform.demo.offline import MOST_BYTES, write_page_of
from mlplatform.home import Home

Ask = Callable[..., Any]


def test_it_carries_the_figures_of_the_evaluation_and_the_errors_first(
    ask_about: Ask, tmp_path: Path, home: Home
) -> None:
    made = write_page_of(ask_about("colour"), tmp_path / "sub" / "page.html")
    text = (tmp_path / "sub" / "page.html").read_text()
    assert made["bytes"] == len(text.encode()) < MOST_BYTES
    metrics = json.loads((Path(home.root).parent / "e1" / "metrics.json").read_text())["quality"]
    assert {f["name"]: (f["value"], f["low"], f["high"]) for f in made["figures"]} == {
        name: (figure["value"], figure["low"], figure["high"])
        for name, figure in metrics.items()
        if isinstance(figure, dict) and figure.get("value") is not None
    }
    assert f'<span class="figure">{metrics["top_1"]["value"]:.4g}</span><span class="soft">top 1' in text
    assert "on 27 records of validation" in text
    # All 24 samples are of the 27 held-out records; whoever is labelled wrongly is answered otherwise.
    assert made["records"] == 24
    assert made["wrong"] == text.count('<div class="bad">red')
    assert 0 < made["wrong"] <= 3
    assert text.index("Wrong, the most certain first") < text.index("<h3>Right</h3>")
    assert text.count("data:image/jpeg;base64,") == 24
    for label in ("blue", "green", "red"):
        assert f"<tr><td>{label}</td>" in text
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert "http" not in re.sub(r"data:image[^\"]*", "", text)


def test_numbers_stand_beside_their_truth(ask_about: Ask, tmp_path: Path) -> None:
    made = write_page_of(ask_about("fare"), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "The worst first" in text
    assert (made["right"], made["wrong"], made["records"]) == (0, 0, 24)
    errors = [float(found) for found in re.findall(r"off by ([\d.e-]+)</span>", text)]
    assert errors == sorted(errors, reverse=True)
    assert max(errors) == pytest.approx(0.1, abs=0.01)


def test_without_data_and_evaluation_it_says_so(ask_about: Ask, tmp_path: Path) -> None:
    made = write_page_of(ask_about("columns"), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert made["records"] == 0
    assert "No evaluation of this version is recorded" in text
    assert "no record can be shown" in text


def test_an_evaluation_of_another_model_is_not_taken(own_home: Home) -> None:
    """The figures of the push decide which evaluation of the run is its own."""
    from mlplatform.registry import ModelStore

    found = read_facts(own_home, "colour@2")
    assert found.evaluation is not None
    push = found.found.push
    assert push is not None
    models, source = ModelStore(own_home.models), Path(own_home.root).parent / "pushed"
    source.mkdir()
    (source / "saved_model.pb").write_text("another")
    models.push(source, "colour", run=push.run, dataset="items@v1", metrics={**push.metrics, "top_1": 0.5})
    assert read_facts(own_home, "colour").evaluation is None
    assert read_facts(own_home, "colour@2").evaluation is not None


@pytest.mark.soak
@pytest.mark.parametrize("name", ["colour", "fare", "columns"])
def test_it_opens_in_a_browser(
    ask_about: Ask, tmp_path: Path, look_at: Callable[..., None], name: str
) -> None:
    write_page_of(ask_about(name), tmp_path / "page.html")
    look_at((tmp_path / "page.html").as_uri())
