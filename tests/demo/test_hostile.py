"""Whatever labels, names, records and answers hold, a page shows it as text."""

import re
import string
from html.parser import HTMLParser
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.datasets.format.features import encode, example_of
from mlplatform.demo import forms
from mlplatform.demo.answers import ModelAnswer, ScoredName
from mlplatform.demo.asking import VersionAnswer
from mlplatform.demo.facts import Evaluation, ModelFacts
from mlplatform.demo.forms import make_forms
from mlplatform.demo.offline import Card
from mlplatform.demo.pages import facts_json, form_json, make_templates
from mlplatform.demo.samples import HeldOutRecord
from mlplatform.home import Home
from mlplatform.registry import ModelVersion
from mlplatform.registry.push_record import Push
from mlplatform.serving.client import SignatureForm, TensorForm
from mlplatform.serving.tensors import DataType

TAGS = set(
    re.findall(
        r"\w+",
        "html head meta title link script style body a header nav main footer h1 h2 h3 p ul li dl dt dd "
        "table tr th td form label input button select option datalist details summary textarea div span "
        "code section article figure figcaption img meter svg rect b pre video",
    )
)
PIECES = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{7*7}}",
    "{% raw %}",
    "javascript:alert(1)",
    "</textarea>",
    "</title>",
    "</style>",
    "</option>",
    "<!--",
    "-->",
    "&lt;",
    "\u202e",
    "\u200b",
    "\x00",
    "\x1b[31m",
    "\ud800",
    "\r\n\r\n",
    "`",
    "' autofocus onfocus='alert(1)",
    "<base href=//e>",
]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(string.printable, max_size=5)), max_size=4).map(
    "".join
)


TEMPLATES = make_templates()


class Tags(HTMLParser):
    """What a browser would do with a page, as far as its tags say."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def check(page: str) -> None:
    assert page.encode().decode() == page
    parser = Tags()
    parser.feed(page)
    scripts = 0
    for tag, attributes in parser.found:
        assert tag in TAGS, (tag, attributes)
        assert not any(name.startswith("on") or name in ("style", "srcdoc") for name in attributes), (
            attributes
        )
        for name in ("href", "src", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("/", "#", "data:image/")), attributes
            assert value is None or not value.startswith("//"), attributes
        scripts += tag == "script"
    assert scripts == 1, "the page's own"
    assert "\u202e" not in page
    assert "\x00" not in page
    assert "49" not in page.partition("<h1>")[2][:40]


@st.composite
def hostile_facts(draw: st.DrawFn) -> ModelFacts:
    text = lambda: draw(TEXTS)  # noqa: E731
    labels = [text() for _ in range(3)]
    recall = {"value": 0.5, "low": 0.1, "high": 0.9}
    quality = {
        "records": 30,
        "top_1": recall,
        text(): recall,
        "classes": [
            {"label": one, "support": 10, "recall": recall, "precision": None, "mistaken_for": text()}
            for one in labels
        ],
        "confused_pairs": [{"truth": labels[0], "answer": text(), "records": 3}],
        "without_records": [text()],
    }
    facts = {"kind": "classification", "label": text(), "made_at": text(), "splits": [text()],
             "quality": quality, "notes": [text()]}  # fmt: skip
    push = Push(digest=text(), pushed_at=text(), pushed_by=text(), why=text(), run=text(), dataset=text())
    found = ModelVersion(version=1, url=text(), labels=(text(),), push=push)
    return ModelFacts(Home("/nowhere"), "m", 1, found, tuple(labels), Evaluation(facts))


@settings(max_examples=20)
@given(hostile_facts(), st.data())
def test_every_text_is_shown_as_text(facts: ModelFacts, data: st.DataObject) -> None:
    text = lambda: data.draw(TEXTS)  # noqa: E731
    name = text().encode("utf-8", "replace").decode()
    record = example_of({name: encode([text().encode("utf-8", "replace")]), "label": encode([b"<b>"])})
    sample = HeldOutRecord(0, text(), record, "label")
    fields = forms.fields_of_records([record], ["label"])
    signature = SignatureForm({"examples": TensorForm(DataType.STRING, (-1,))}, {})
    odd = SignatureForm({text(): TensorForm(DataType.FLOAT, (-1,)), text(): TensorForm(7, None)}, {})
    found = make_forms({"serving_default": signature, text(): odd}, fields, has_photos=False)
    answer = ModelAnswer(
        classes=(ScoredName(facts.classes[0], 0.5), ScoredName(text(), 0.1)),
        items=(ScoredName(text(), 0.5),),
        outputs={text(): [text()]},
    )
    answers = [VersionAnswer(facts, answer).as_json(), VersionAnswer(facts, None, text()).as_json()]
    about = {**facts_json(facts), "signature": text(), "signatures": [text(), text()]}

    def render(template: str, shown: dict[str, Any], page: str) -> str:
        return TEMPLATES.get_template(f"demo_{template}.html").render(data=shown, page=page)

    for form in found:
        shown = {
            **about,
            "beside": facts_json(facts),
            "limits": facts.limits(),
            "form": form_json(form),
            "samples": [
                {
                    "number": 0,
                    "key": text(),
                    "truth": sample.truth,
                    "has_photo": True,
                    "features": sample.words,
                },
                {"number": 1, "key": text(), "truth": text(), "has_photo": False, "features": sample.words},
            ],
        }
        check(render("model", shown, "model"))
    result = {
        "name": text(), "truth": text(), "truths": [facts.classes[0]], "split": text(),
        "note": text(), "problem": text(), "seen": "", "seen_size": [], "answers": answers, "given": text(),
        "features": [(text(), text())],
    }  # fmt: skip
    check(render("answer", {**about, "results": [result]}, "answer"))
    check(render("problem", {"status": 400, "text": text(), "name": text()}, "problem"))
    card = Card(text(), text(), text(), "", [(text(), text())], text(), 0.5, False, None, text())
    page = TEMPLATES.get_template("demo_offline.html").render(
        data=facts_json(facts), limits=facts.limits(), seed=1, wrong=[card], right=[card], others=[card],
        measured=facts_json(facts)["evaluation"]["worst"], unmeasured=[text()],
    )  # fmt: skip
    check(page)
