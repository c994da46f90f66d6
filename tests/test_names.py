"""One name is one thing: no two classes of the product are called the same."""

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
OF_TFX = {"Driver", "Executor"}  # what TFX calls these of every component


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for folder in ("mlplatform", "components", "pipelines"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for name in re.findall(r"^ *class (\w+)[(:]", file.read_text("utf-8"), re.MULTILINE):
                places[name].append(str(file.relative_to(ROOT)))
    assert len(places) > 500
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in OF_TFX} == {}
