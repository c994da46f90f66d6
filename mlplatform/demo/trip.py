"""The whole trip on embedded photos: draw, run the pipeline, serve, ask about unseen photos, write a page."""

import base64
import csv
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform.demo.photos import make_photos
from mlplatform.errors import MlplatformError
from mlplatform.home import Home
from mlplatform.orchestration.local import LocalRunner
from mlplatform.orchestration.local.ledger_runs import read_runs
from mlplatform.orchestration.local.records import RunRecord
from mlplatform.registry import ModelStore
from mlplatform.reports.page import picture
from mlplatform.reports.run_page import Fact, NodeRow, Prediction, RunPage, Swatch, write_run_page

MODEL, COLORS = "item_category", "item_color"
# Pipelines of the trip, and the column of the photos' listing with what their model answers.
TRUTHS = {MODEL: "label", COLORS: "color"}
# The photos are small, so a small image size loses little and is several times as fast as the default.
SETTINGS = {MODEL: {"model": {"image_size": 128}}, COLORS: {}}
SERVER_START_S = 90.0

Say = Callable[[str], object]


class ServerDidNotStartError(MlplatformError):
    """The model server ended, or was not ready in time."""

    def __init__(self, log: Path, exit_code: int | None, last_lines: str) -> None:
        super().__init__(log, exit_code, last_lines)
        self.log, self.exit_code, self.last_lines = log, exit_code, last_lines

    def __str__(self) -> str:
        how = (
            f"was not ready within {SERVER_START_S:g} s"
            if self.exit_code is None
            else f"ended with exit code {self.exit_code}"
        )
        return f"the model server {how}; its last lines ({self.log}):\n{self.last_lines}"


@dataclass(frozen=True)
class UnseenPhoto:
    """A photo that no training saw, and its category or colour."""

    path: Path
    truth: str


def run_trip(
    out: Path, say: Say, *, categories: int = 24, per_category: int = 60, pipeline: str = MODEL
) -> Path:
    """Make the trip in the folder `out`; return the page that it writes.

    A second trip in the same folder keeps the photos and what is cached.

    Args:
        out: Folder of everything that the trip makes.
        say: Called with each line of the report.
        categories: How many categories of photos, where none were drawn there yet.
        per_category: How many photos of each.
        pipeline: One of `TRUTHS`.

    Raises:
        ServerDidNotStartError: The model server was not ready in time.
    """
    started = time.monotonic()
    photos, home, page = out / "photos", Home.at(out / "home"), out / "page.html"
    if photos.exists():
        say(f"1. Taking the item photos in {photos}")
    else:
        say("1. Drawing item photos")
        make_photos(photos, categories=categories, per_category=per_category)

    words = pipeline.replace("_", "-")
    say(f"2. Running the {words} pipeline: ingest, version, validate, train, validate, push")
    record = LocalRunner(home.root).run_reference(pipeline, data=str(photos), overrides=SETTINGS[pipeline])

    say("3. Starting the model server and asking it about photos it has never seen")
    unseen = list(read_unseen(photos, TRUTHS[pipeline]))
    with serving(home.root, out / "server.log") as rest_port:
        answers = [ask_all(rest_port, pipeline, photo.path.read_bytes()) for photo in unseen]

    right = 0
    for photo, answer in zip(unseen, answers, strict=True):
        classes, scores = answer["classes"], answer["scores"]
        is_right = classes[0] == photo.truth
        right += is_right
        mark = "" if is_right else "   wrong"
        say(f"   {photo.path.name:<18} {classes[0]:<14} {scores[0]:6.1%}   it is: {photo.truth}{mark}")
    say(f"   {right} of {len(unseen)} right")

    write_run_page(page, _page(pipeline, record, unseen, answers, out, home))
    say(
        _FAREWELL.format(
            seconds=time.monotonic() - started,
            page=page,
            photos=photos,
            home=home.root,
            photo=unseen[0].path,
            dataset="items" if pipeline == MODEL else "item_colors",
            model=pipeline,
            space=" " * (15 - len(pipeline)),
        )
    )
    return page


_FAREWELL = """
Done in {seconds:.0f} s.
  page with the pictures   {page}
  photos and listing       {photos}
  runs, datasets, models   {home}

Try next, with .venv/bin on your PATH:
  export MLPLATFORM_HOME={home}
  mlplatform runs show latest                 what ran, how long, and why
  mlplatform datasets log {dataset:<20}the dataset's versions
  mlplatform models show {model:<21}what was pushed, from which run and data
  mlplatform demo serve {model:<22}ask it in a browser
  mlplatform serve --rest_api_port 8501       serve it, and ask it about a photo:
    {{ printf '{{"signature_name": "image_bytes", "instances": [{{"b64": "'
      base64 -w0 {photo}
      printf '"}}]}}'; }} | curl -s localhost:8501/v1/models/{model}:predict -d @-
  mlplatform run {model} --data PHOTOS{space}your own photos"""


def read_unseen(photos: Path, truth: str = "label") -> Iterator[UnseenPhoto]:
    """Yield the unseen photos that `make_photos` drew, with their truth: the column of that name."""
    with (photos / "unseen.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield UnseenPhoto(photos / row["path"], row[truth])


@contextmanager
def serving(root: str, log: Path) -> Iterator[int]:
    """Run `mlplatform serve` on free ports while the block runs; yields its REST port.

    Raises:
        ServerDidNotStartError: It ended or was not ready in time.
    """
    command = [sys.executable, "-m", "mlplatform.cli.main", "serve", "--root", root]
    with log.open("w") as file:
        server = subprocess.Popen(
            [*command, "--port", "0", "--rest_api_port", "0"],
            stdout=file,
            stderr=file,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        yield _wait_until_ready(server, log)
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()


def ask(rest_port: int, model: str, image: bytes) -> tuple[list[str], list[float]]:
    """Ask a model server on this machine what an encoded photo shows.

    Returns:
        Category names, best first, and their scores, 0 to 1.
    """
    answer = ask_all(rest_port, model, image)
    return answer["classes"], answer["scores"]


def ask_all(rest_port: int, model: str, image: bytes) -> dict[str, Any]:
    """Ask a model server on this machine about an encoded photo; return all outputs by name."""
    instance = {"b64": base64.b64encode(image).decode()}
    request = urllib.request.Request(
        f"http://127.0.0.1:{rest_port}/v1/models/{model}:predict",
        data=json.dumps({"signature_name": "image_bytes", "instances": [instance]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)["predictions"][0]
    return answer


def swatches(answer: Mapping[str, Any]) -> list[Swatch]:
    """Return the palette of a colour model's answer; empty for any other model's."""
    colors = zip(answer.get("palette_rgb", ()), answer.get("palette_share", ()), strict=True)
    return [Swatch(tuple(round(value) for value in rgb), share) for rgb, share in colors if share > 0]


def _wait_until_ready(server: "subprocess.Popen[bytes]", log: Path) -> int:
    deadline = time.monotonic() + SERVER_START_S
    while time.monotonic() < deadline and server.poll() is None:
        ready = re.search(r"REST\D+[\d.]+:(\d+)", log.read_text("utf-8", "replace"))
        if ready:
            return int(ready[1])
        time.sleep(0.1)
    last_lines = "\n".join(log.read_text("utf-8", "replace").splitlines()[-10:])
    raise ServerDidNotStartError(log, server.poll(), last_lines)


def made_times(record: RunRecord, runs: Iterable[RunRecord]) -> tuple[dict[str, float], float]:
    """Return what the results of a run cost when they were made, also where they are cached now.

    Args:
        record: The run.
        runs: All runs, newest first.

    Returns:
        Seconds per node, and of the whole run: of the newest run in which a node ran.
    """
    before = [one for one in runs if one.pipeline == record.pipeline and one.run_id <= record.run_id]
    ran = [one for one in before if any(node.state == "done" for node in one.nodes)]
    made_s = {node.id: node.seconds for node in record.nodes}
    for earlier in reversed(ran):
        made_s |= {node.id: node.seconds for node in earlier.nodes if node.state == "done"}
    return made_s, ran[0].wall_s if ran else record.wall_s


def _page(
    pipeline: str,
    record: RunRecord,
    unseen: Sequence[UnseenPhoto],
    answers: Sequence[Mapping[str, Any]],
    out: Path,
    home: Home,
) -> RunPage:
    predictions = [
        Prediction(
            picture(photo.path.read_bytes()),
            photo.truth,
            answer["classes"],
            answer["scores"],
            swatches(answer),
        )
        for photo, answer in zip(unseen, answers, strict=True)
    ]
    pushed = ModelStore(home.models).version(pipeline, "latest")
    right = sum(p.is_right for p in predictions)
    made_s, wall_s = made_times(record, read_runs(home))
    return RunPage(
        pipeline=pipeline,
        run_id=record.run_id,
        started_at=record.started_at,
        wall_s=wall_s,
        nodes=[NodeRow(node.id, node.state, made_s[node.id], node.why) for node in record.nodes],
        figures=[
            Fact("unseen photos right", f"{right} / {len(predictions)}"),
            Fact("dataset", pushed.push.dataset if pushed.push else "?"),
            Fact("model version", str(pushed.version)),
        ],
        predictions=predictions,
        places=[
            Fact("photos and listing", str(out / "photos")),
            Fact("dataset store", home.datasets),
            Fact("pushed model", pushed.url),
            Fact("reports of the gates", home.reports),
            Fact("logs of the run", str(home.runs / record.run_id)),
        ],
    )
