"""A pushed version as one HTML file: held-out records with its answers, the worst first, and its figures."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mlplatform.demo.answers import ModelAnswer
from mlplatform.demo.asking import Asking
from mlplatform.demo.errors import FieldError, PhotoError
from mlplatform.demo.facts import read_facts
from mlplatform.demo.forms import Form
from mlplatform.demo.model_server import served
from mlplatform.demo.pages import facts_json, make_templates
from mlplatform.demo.samples import HeldOutRecord
from mlplatform.home import Home
from mlplatform.registry import ModelStore
from mlplatform.reports.page import picture, write_html
from mlplatform.reports.thumbnails import thumbnail
from mlplatform.serving.client import Client

MOST_BYTES = 5_000_000
_PICTURE_SIDE = 160  # pixels
_PICTURES = 4_000_000  # characters of all pictures
_MOST_CARDS = 300
_THREADS = 4


@dataclass(frozen=True)
class Card:
    """A held-out record with its answer, as the page shows it.

    Attributes:
        key: What a person finds it by.
        split: Its split.
        truth: Its truth, in words; empty where it has none.
        picture: Its photo as a data URI; empty where it has none.
        features: Its other features in words.
        answer: The answer in words.
        score: The score of the answer, where it has one.
        is_right: The answer is the truth, or one of several; None where that cannot be said.
        error: Distance of a number from the truth.
        problem: Why there is no answer.
    """

    key: str
    split: str
    truth: str
    picture: str
    features: Sequence[tuple[str, str]]
    answer: str
    score: float | None = None
    is_right: bool | None = None
    error: float | None = None
    problem: str = ""


def write_demo_page(
    home: Home, reference: str, out: Path, *, samples: int = 200, seed: int = 1
) -> dict[str, Any]:
    """Write the page of a pushed version, in one step.

    Args:
        home: The root.
        reference: NAME, or NAME@VERSION.
        out: The HTML file; its folder is made.
        samples: Held-out records to ask about; at most 300 of them, chosen by chance, are shown.
        seed: The same seed chooses the same records.

    Returns:
        `name`, `records`, `right` and `wrong` (those shown), `bytes`, and the `figures` of the evaluation.

    Raises:
        ModelNotFoundError: There is no such model.
        ModelVersionNotFoundError: It has no such version.
        WithdrawnVersionError: It was rolled back.
        ModelServerEndedError: The model cannot be loaded.
        OSError: The file cannot be written.
    """
    facts = read_facts(home, reference)
    with ExitStack() as open_:
        base_path = ModelStore(home.models).base_path(facts.model)
        server = open_.enter_context(served(facts.model, base_path, [facts.version]))
        client = open_.enter_context(Client(server.address, timeout_s=60.0))
        asking = Asking(client, facts, samples=samples, seed=seed)
        open_.callback(asking.close)
        return write_page_of(asking, out, seed=seed)


def write_page_of(asking: Asking, out: Path, *, seed: int = 1) -> dict[str, Any]:
    """Write the page of a version that is asked by `asking`; see `write_demo_page`."""
    facts = asking.shown.facts
    cards = _cards(asking)
    about = facts_json(facts)
    classes = list(facts.evaluation.classes.values()) if facts.evaluation else []
    text = (
        make_templates()
        .get_template("demo_offline.html")
        .render(
            data=about,
            limits=facts.limits(),
            seed=seed,
            wrong=[card for card in cards if card.is_right is False],
            right=[card for card in cards if card.is_right],
            others=[card for card in cards if card.is_right is None],
            measured=[asdict(one) for one in classes],
            unmeasured=[name for name in facts.classes if name not in facts.evaluation.classes]
            if facts.evaluation
            else list(facts.classes),
        )
    )
    write_html(out, text)
    return {
        "name": facts.name,
        "records": len(cards),
        "right": sum(card.is_right is True for card in cards),
        "wrong": sum(card.is_right is False for card in cards),
        "bytes": len(text.encode()),
        "figures": about["evaluation"]["figures"] if about["evaluation"] else [],
    }


def _cards(asking: Asking) -> list[Card]:
    """Return a card for each sample, as many as fit, the most wrong first."""
    if not asking.shown.forms:
        return []
    form = asking.shown.forms[0]
    with ThreadPoolExecutor(_THREADS) as threads:
        made = list(threads.map(lambda sample: _card(asking, form, sample), asking.samples[:_MOST_CARDS]))
    kept, size = [], 0
    for card in made:  # in the order of chance, so that those that fit are as good as all are
        size += len(card.picture)
        if size > _PICTURES:
            break
        kept.append(card)
    return sorted(kept, key=lambda card: (-(card.error or 0.0), card.is_right is True, -(card.score or 0.0)))


def _card(asking: Asking, form: Form, sample: HeldOutRecord) -> Card:
    small = thumbnail(sample.photo, _PICTURE_SIDE) if sample.photo else b""
    shown = (sample.key, sample.split, sample.truth, Markup(picture(small)) if small else "", sample.words)
    try:
        given = asking.answers(form, sample)
    except (FieldError, PhotoError) as error:
        return Card(*shown, answer="", problem=str(error))
    if given.answer is None:
        return Card(*shown, answer="", problem=given.problem)
    return Card(*shown, **_judged(given.answer, sample.truths))


def _judged(answer: ModelAnswer, truths: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"answer": answer.in_words}
    if answer.classes:
        found["score"] = answer.classes[0].score
        if truths:
            found["is_right"] = answer.classes[0].name in truths
    elif answer.number is not None and len(truths) == 1:
        with suppress(ValueError):
            found["error"] = abs(answer.number - float(truths[0]))
    return found
