"""Asks versions of a model about photos, records and values, and says what is known of their answers."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from mlplatform.demo import forms
from mlplatform.demo.answers import ModelAnswer, read_answer
from mlplatform.demo.facts import ModelFacts, read_schema
from mlplatform.demo.forms import Form
from mlplatform.demo.photos_seen import GivenPhoto, pixels_picture, seen_pixels
from mlplatform.demo.pictures import Pictures
from mlplatform.demo.samples import HeldOutRecord, held_out
from mlplatform.serving.client import Client, RequestFailedError
from mlplatform.serving.tensors import Array

_RECORDS_READ = 200  # of which the fields of a form are made


@dataclass(frozen=True)
class ShownVersion:
    """A version that can be asked.

    Attributes:
        facts: What is known of it.
        forms: What it can be asked, the form that says most first.
    """

    facts: ModelFacts
    forms: Sequence[Form]

    def form(self, signature: str) -> Form | None:
        """Return the form of a signature; None where it has no such signature."""
        return next((form for form in self.forms if form.signature == signature), None)

    @property
    def pixels(self) -> Form | None:
        """The form that says which size its pixels have; None where none does."""
        return next((form for form in self.forms if form.kind == forms.PIXELS), None)


@dataclass(frozen=True)
class VersionAnswer:
    """What a version answered.

    Attributes:
        facts: What is known of the version.
        answer: Its answer; None where it gave none.
        problem: Why it gave none.
        seconds: How long the model server took.
    """

    facts: ModelFacts
    answer: ModelAnswer | None
    problem: str = ""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the answer with what the evaluation found of its first class, as JSON holds it."""
        first = self.answer.in_words if self.answer and self.answer.classes else ""
        found = self.facts.accuracy(first) if first else None
        return {
            "version": self.facts.version,
            "labels": list(self.facts.found.labels),
            "problem": self.problem,
            "ms": round(1000 * self.seconds, 1),
            **(self.answer or ModelAnswer()).as_json(),
            "known": asdict(found) if found else None,
            "confused_with": [asdict(one) for one in self.facts.confused_with(first)] if first else [],
        }


class Asking:
    """Asks one version, and another one beside it. Threads may share it.

    Attributes:
        pictures: The pixels that the model saw of photos that were asked about, each once.
        samples: Held-out records that it can be asked about.
        shown: The version.
        beside: The other one; None for none.

    Args:
        client: Asks the model server that has both.
        shown: The version.
        beside: The other one; None for none.
        samples: Held-out records to show, the most.
        seed: The same seed chooses the same records.
    """

    def __init__(
        self,
        client: Client,
        shown: ModelFacts,
        beside: ModelFacts | None = None,
        *,
        samples: int = 24,
        seed: int = 1,
    ) -> None:
        self._client = client
        records = held_out(shown, max(samples, _RECORDS_READ), seed)
        self.samples = records[:samples]
        self._records = [record.payload for record in records]
        self.shown = self._version(shown)
        self.beside = self._version(beside) if beside else None
        self.pictures = Pictures()
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="demo-asks")

    def close(self) -> None:
        """End the threads, once they are done."""
        self._threads.shutdown()

    def about_photo(self, form: Form, photo: GivenPhoto) -> dict[str, Any]:
        """Ask about a photo; return what a page shows of it: `seen` is one of the `pictures`.

        Raises:
            PhotoError: It cannot be decoded.
        """
        size = form if form.kind == forms.PIXELS else self.shown.pixels
        if form.kind == forms.PIXELS:
            pixels = seen_pixels(photo, form.height, form.width)
            answers = self._answers(form, forms.ask_with_photo(form, photo, pixels))
            draw: Callable[[], bytes] | None = partial(pixels_picture, pixels)
        else:
            answers = self._answers(form, forms.ask_with_photo(form, photo))
            draw = partial(_drawn, photo, size) if size else None
        is_answered = any(one.answer for one in answers)
        return {
            "name": photo.name,
            "size": [photo.width, photo.height],
            "note": photo.note,
            "seen": self.pictures.add(draw) if draw and is_answered else "",
            "seen_size": [size.width, size.height] if size else [],
            **_both(answers),
        }

    def about_sample(self, form: Form, sample: HeldOutRecord) -> dict[str, Any]:
        """Ask about a held-out record; return what a page shows of it.

        Raises:
            FieldError: It lacks what the form needs.
            PhotoError: Its photo cannot be decoded.
        """
        if form.is_of_photos and sample.photo:
            photo = GivenPhoto(sample.key, sample.photo, 0, 0)
            found = self.about_photo(form, photo)
        else:
            inputs = forms.ask_with_record(form, sample.payload, sample.truth_name)
            found = {"name": sample.key, "features": sample.words, **_both(self._answers(form, inputs))}
        return {**found, "truth": sample.truth, "truths": list(sample.truths), "split": sample.split}

    def about_values(self, form: Form, values: Mapping[str, str]) -> dict[str, Any]:
        """Ask about values that were filled into a form; return what a page shows of it.

        Raises:
            FieldError: A value is missing, or not what its field asks for.
        """
        given = [(field.name, values.get(field.name, "")) for field in form.fields]
        return {
            "name": "",
            "features": given,
            **_both(self._answers(form, forms.ask_with_values(form, values))),
        }

    def about_json(self, form: Form, text: str) -> dict[str, Any]:
        """Ask with a JSON document; return what a page shows of it.

        Raises:
            FieldError: It is none, or does not fit the signature.
        """
        return {"name": "", "given": text, **_both(self._answers(form, forms.ask_with_json(form, text)))}

    def answers(self, form: Form, sample: HeldOutRecord) -> VersionAnswer:
        """Ask the shown version alone about a held-out record."""
        if form.is_of_photos and form.kind != forms.PHOTO_EXAMPLE:
            inputs = forms.ask_with_photo(form, GivenPhoto(sample.key, sample.photo, 0, 0))
        else:
            inputs = forms.ask_with_record(form, sample.payload, sample.truth_name)
        return self._ask(self.shown, form, inputs)

    def _answers(self, form: Form, inputs: Mapping[str, Array]) -> list[VersionAnswer]:
        if self.beside is None:
            return [self._ask(self.shown, form, inputs)]
        other = self.beside.form(form.signature)
        if other is None or other.inputs.keys() != form.inputs.keys():
            problem = f"it has no signature {form.signature} that takes the same"
            return [self._ask(self.shown, form, inputs), VersionAnswer(self.beside.facts, None, problem)]
        beside = self._threads.submit(self._ask, self.beside, form, inputs)
        return [self._ask(self.shown, form, inputs), beside.result()]

    def _ask(self, version: ShownVersion, form: Form, inputs: Mapping[str, Array]) -> VersionAnswer:
        facts = version.facts
        started = time.perf_counter()
        try:
            outputs = self._client.predict(
                facts.model, inputs, signature=form.signature, version=facts.version
            )
        except RequestFailedError as error:
            return VersionAnswer(facts, None, error.text)
        seconds = time.perf_counter() - started
        kind = facts.evaluation.kind if facts.evaluation else ""
        return VersionAnswer(facts, read_answer(outputs, facts.classes, kind), seconds=seconds)

    def _version(self, facts: ModelFacts) -> ShownVersion:
        signatures = self._client.signatures(facts.model, version=facts.version)
        hidden = (facts.truth,) if facts.truth else ()
        fields = forms.fields_of_records(self._records, hidden)
        has_photos = any(field.name == forms.IMAGE for field in fields)
        schema = b"" if has_photos else read_schema(facts)
        if schema:
            fields = forms.fields_of_schema(schema, fields, hidden)
        made = forms.make_forms(signatures, fields, has_photos=has_photos)
        return ShownVersion(facts, made)


def _drawn(photo: GivenPhoto, size: Form) -> bytes:
    return pixels_picture(seen_pixels(photo, size.height, size.width))


def _both(answers: Sequence[VersionAnswer]) -> dict[str, Any]:
    return {"answers": [one.as_json() for one in answers]}
