"""Each data step on each engine, and with a task manager killed meanwhile, finds what it finds in process."""

import functools
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from comparing import assert_same
from data_steps import STEPS, Found, prepare

from mlplatform.orchestration.engine import parse_engine

CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing"
EVERY = 16  # photo of each class

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not CLOTHING.is_dir(), reason=f"the development data {CLOTHING} is not there"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the clothing photos and a file that is no photo, ingested, with a model for them."""
    folder = tmp_path_factory.mktemp("steps")
    for kind in sorted(CLOTHING.glob("train/*")):
        (folder / "photos" / kind.name).mkdir(parents=True)
        for photo in sorted(kind.glob("*.jpg"))[::EVERY]:
            shutil.copy(photo, folder / "photos" / kind.name)
    (folder / "photos/hat/broken.jpg").write_bytes(b"no photo")
    prepare(folder, 64)
    return folder


@pytest.fixture(scope="module")
def here(folder: Path) -> Callable[[str], Found]:
    """What a step finds in this process."""

    @functools.cache
    def found(name: str) -> Found:
        place = folder / f"here-{name}"
        place.mkdir()
        return STEPS[name](folder, None, place)

    return found


@pytest.mark.parametrize("name", STEPS)
def test_a_step_finds_the_same(
    block: dict[str, Any], name: str, folder: Path, here: Callable[[str], Found], tmp_path: Path
) -> None:
    engine = parse_engine(block)
    assert engine is not None
    found = STEPS[name](folder, engine.arguments, tmp_path)
    assert found.records == here(name).records > 100
    assert_same(found.facts, here(name).facts)


@pytest.mark.parametrize("name", STEPS)
def test_a_task_manager_that_is_killed_costs_no_record(
    flink: Any,
    on_flink: dict[str, Any],
    name: str,
    folder: Path,
    here: Callable[[str], Found],
    tmp_path: Path,
) -> None:
    engine = parse_engine(on_flink)
    assert engine is not None
    seconds = []
    for is_hit in (False, True):
        place = tmp_path / str(is_hit)
        place.mkdir()
        started = time.perf_counter()
        if is_hit:
            with flink.kill_a_busy_one() as killed:
                found = STEPS[name](folder, engine.arguments, place)
                seconds.append(time.perf_counter() - started)
            assert killed
        else:
            found = STEPS[name](folder, engine.arguments, place)
            seconds.append(time.perf_counter() - started)
        assert found.records == here(name).records
        assert_same(found.facts, here(name).facts)
    print(f"\n{name}: {seconds[0]:.1f} s, {seconds[1]:.1f} s with a task manager killed")
    _, alive = psutil.wait_procs(flink.orphans(), timeout=60)
    assert alive == []
