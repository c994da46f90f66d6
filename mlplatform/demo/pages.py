"""The pages of a live demo: the model with its limits, and what it answers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

import jinja2
import orjson
from markupsafe import Markup

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.format.features import decode, record_features
from mlplatform.demo import forms
from mlplatform.demo.asking import Asking
from mlplatform.demo.facts import ModelFacts
from mlplatform.demo.forms import Form
from mlplatform.demo.photos_seen import read_photo
from mlplatform.demo.samples import HeldOutRecord
from mlplatform.errors import MlplatformError, UsageError
from mlplatform.reports.page import visible
from mlplatform.reports.thumbnails import thumbnail
from mlplatform.ui.access import Refusal
from mlplatform.ui.server import Answer, json_body, strict
from mlplatform.ui.site import BadQueryError, PageNotFoundError

_OWN = files("mlplatform.demo") / "templates"
_SAMPLE_SIDE, _ITEM_SIDE = 160, 160  # pixels
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# A form of this page says where it comes from; no other site learns of it.
_SAME_ORIGIN = (("Referrer-Policy", "same-origin"),)


@dataclass(frozen=True)
class Posted:
    """What a form sent.

    Attributes:
        fields: Its values by name.
        photos: Its files, each with its name.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    photos: Sequence[tuple[str, bytes]] = ()


class DemoPages:
    """Answers the addresses of a demo; threads may share it.

    Args:
        asking: Asks the model.
        check: Raises where the model server ended.
    """

    def __init__(self, asking: Asking, check: Callable[[], None] = lambda: None) -> None:
        self._asking, self._check = asking, check
        self._templates = make_templates()
        ui, reports = files("mlplatform.ui") / "templates", files("mlplatform.reports")
        styles = [reports / "style.css", ui / "ui.css", _OWN / "demo.css"]
        self._assets = {
            "style.css": (b"".join(sheet.read_bytes() for sheet in styles), "text/css; charset=utf-8"),
            "demo.js": ((_OWN / "demo.js").read_bytes(), "text/javascript; charset=utf-8"),
            "icon.svg": ((ui / "icon.svg").read_bytes(), "image/svg+xml"),
        }

    def answer(self, path: str, query: Mapping[str, Sequence[str]], posted: Posted | None = None) -> Answer:
        """Answer a request.

        Args:
            path: Its path.
            query: The values of its query by name.
            posted: What a form sent; None for a request that sends nothing.
        """
        last = {name: values[-1] for name, values in query.items() if values}
        wants_json = last.get("format") == "json"
        try:
            return self._found(path, last, posted, wants_json)
        except MlplatformError as error:
            status = 404 if isinstance(error, PageNotFoundError) else 400
            if not isinstance(error, UsageError):
                status = 503  # the model server ended
            return self._problem(status, str(error), wants_json)

    def _found(self, path: str, query: Mapping[str, str], posted: Posted | None, wants_json: bool) -> Answer:
        name = path.removeprefix("/assets/")
        if posted is not None and path != "/ask":
            return self._problem(405, "nothing is sent there", wants_json)
        if name != path and name in self._assets:
            body, kind = self._assets[name]
            return Answer(200, body, kind, _POLICY, (("Cache-Control", "max-age=300"),))
        if path == "/samples":
            photo = thumbnail(self._sample(query).photo, _SAMPLE_SIDE)
            return self._picture(photo)
        if path == "/seen":
            return self._picture(self._asking.pictures.take(query.get("picture", "")), "image/png")
        if path == "/items":
            return self._picture(self._item(query.get("key", "")[:1000]))
        self._check()
        form = self._form(query)
        if path == "/":
            if "sample" in query:
                form = forms.filled(form, self._sample(query).payload)
            return self._page("model", self._model(form), wants_json)
        if path == "/ask":
            return self._page("answer", self._asked(form, query, posted), wants_json)
        raise PageNotFoundError("such page")

    def _model(self, form: Form) -> dict[str, Any]:
        """Return the first page's data."""
        return {
            **self._about(form),
            "limits": self._asking.shown.facts.limits(),
            "form": form_json(form),
            "samples": [
                {
                    "number": one.number,
                    "key": one.key,
                    "truth": one.truth,
                    "has_photo": bool(one.photo),
                    "features": one.words,
                }
                for one in self._asking.samples
            ],
        }

    def _about(self, form: Form) -> dict[str, Any]:
        beside = self._asking.beside
        return {
            **facts_json(self._asking.shown.facts),
            "signature": form.signature,
            "signatures": [one.signature for one in self._asking.shown.forms],
            "beside": facts_json(beside.facts) if beside else None,
        }

    def _asked(self, form: Form, query: Mapping[str, str], posted: Posted | None) -> dict[str, Any]:
        """Return the data of a page with answers."""
        asking, results = self._asking, []
        if posted is None:
            sample = self._sample(query)
            results.append(asking.about_sample(form, sample))
        elif posted.fields.get("json", "").strip():
            results.append(asking.about_json(form, posted.fields["json"]))
        elif form.is_of_photos:
            photos = [(name, data) for name, data in posted.photos if data or name]
            if not photos:
                raise BadQueryError("the photo", "", "at least one file")
            for name, data in photos:
                try:
                    results.append(asking.about_photo(form, read_photo(name or "photo", data)))
                except UsageError as error:  # the others are answered all the same
                    if len(photos) == 1:
                        raise
                    results.append({"name": name, "problem": str(error), "answers": []})
        elif form.kind == forms.JSON:
            raise BadQueryError("the JSON", "", "a document, such as the one that stands there")
        else:
            values = {f.name: posted.fields.get(f"v{place}", "") for place, f in enumerate(form.fields)}
            results.append(asking.about_values(form, values))
        for result in results:
            if result.get("seen"):
                result["seen"] = _address("seen", picture=result["seen"])
        return {"name": asking.shown.facts.name, "signature": form.signature, "results": results}

    def _form(self, query: Mapping[str, str]) -> Form:
        shown = self._asking.shown
        wanted = query.get("signature", "")
        form = shown.form(wanted) if wanted else (shown.forms[0] if shown.forms else None)
        if form is None:
            raise PageNotFoundError(f"signature {wanted[:80]!r} of {shown.facts.name}")
        return form

    def _sample(self, query: Mapping[str, str]) -> HeldOutRecord:
        text, samples = query.get("sample", ""), self._asking.samples
        if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) < len(samples)):
            raise BadQueryError("sample", text, f"a whole number below {len(samples)}")
        return samples[int(text)]

    def _item(self, key: str) -> bytes:
        """Return a small photo of an item of the data; empty where there is none."""
        data = self._asking.shown.facts.data
        if data is None or not key:
            return b""
        store = DatasetStore(self._asking.shown.facts.home.datasets)
        try:
            payloads = store.blamed_payloads(data.dataset, store.blame(data.dataset, key))
        except (MlplatformError, OSError):
            return b""
        for payload in payloads:
            values = decode(record_features(payload).get(forms.IMAGE, b""))
            if values and isinstance(values[0], bytes):
                return thumbnail(values[0], _ITEM_SIDE)
        return b""

    def _picture(self, encoded: bytes, kind: str = "image/jpeg") -> Answer:
        if not encoded:
            raise PageNotFoundError("such picture")
        return Answer(200, encoded, kind, _POLICY)

    def refused(self, refusal: Refusal) -> Answer:
        """Say why a request is not answered."""
        return self._problem(refusal.status, refusal.text, False)

    def failed(self) -> Answer:
        """Say that a page could not be made for a reason of this program's."""
        return self._problem(500, "the page could not be made; the demo's log says why", False)

    def _problem(self, status: int, text: str, wants_json: bool) -> Answer:
        shown = {"status": status, "text": text, "name": self._asking.shown.facts.name}
        return replace(self._page("problem", shown, wants_json), status=status)

    def _page(self, template: str, data: Mapping[str, Any], wants_json: bool) -> Answer:
        if wants_json:
            return Answer(200, json_body(data), "application/json", _POLICY, _SAME_ORIGIN)
        text = self._templates.get_template(f"demo_{template}.html").render(data=data, page=template)
        return Answer(200, text.encode(), policy=_POLICY, headers=_SAME_ORIGIN)


def make_templates() -> jinja2.Environment:
    """Return the templates of the demo."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.FileSystemLoader(str(folder)) for folder in (_OWN, files("mlplatform.reports"))]
        ),
        autoescape=True,
        finalize=_seen,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals |= {"address": _address}
    environment.filters |= {"percent": _percent, "short": _short, "as_json": _pretty}
    return environment


def _seen(value: object) -> object:
    """Return what a template shows: texts come from anywhere; what is markup already was made of such."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def facts_json(facts: ModelFacts) -> dict[str, Any]:
    """Return what is known of a version as JSON holds it."""
    push, data, found = facts.found.push, facts.data, facts.evaluation
    return {
        "name": facts.name,
        "model": facts.model,
        "version": facts.version,
        "labels": list(facts.found.labels),
        "pushed_at": push.pushed_at if push else "",
        "pushed_by": push.pushed_by if push else "",
        "why": push.why if push else "",
        "run": push.run if push else "",
        "digest": push.digest if push else "",
        "dataset": facts.dataset,
        "data": {
            "created_at": data.created_at,
            "digest": data.digest,
            "splits": {name: split.records for name, split in data.splits.items()},
            "training_splits": list(data.training_splits),
        }
        if data
        else None,
        "classes": list(facts.classes),
        "evaluation": {
            "kind": found.kind,
            "made_at": found.made_at,
            "records": found.records,
            "splits": list(found.splits),
            "figures": [asdict(figure) for figure in found.figures],
            "worst": [asdict(one) for one in found.worst],
            "thin": [asdict(one) for one in found.thin],
            "confusions": [asdict(one) for one in found.confusions[:10]],
        }
        if found
        else None,
    }


def form_json(form: Form) -> dict[str, Any]:
    """Return a form as JSON holds it."""
    return {
        "kind": form.kind,
        "is_of_photos": form.is_of_photos,
        "fields": [asdict(one) for one in form.fields],
        "skeleton": form.skeleton,
        "takes": [f"{name}: {_takes(one.dtype, one.shape)}" for name, one in form.inputs.items()],
    }


def _takes(dtype: int, shape: tuple[int, ...] | None) -> str:
    from mlplatform.serving.tensors import dtype_name

    sizes = "any shape" if shape is None else [size if size >= 0 else "any" for size in shape]
    return f"{dtype_name(dtype)} {sizes}"


def _address(*parts: str, **query: object) -> str:
    return "/" + "/".join(parts) + (f"?{urlencode(query, errors='replace')}" if query else "")


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.1f} %"


def _short(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


def _pretty(value: object) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()
    except TypeError:  # half of a surrogate pair, or an integer of more than 64 bits
        return json.dumps(strict(value), indent=2, default=str, ensure_ascii=False)
