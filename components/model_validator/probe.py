"""The process that loads a model as a server would and asks it real, odd and broken requests.

Run as `python -m mlplatform.components.model_validator.probe MODEL_DIR SAMPLES_FILE SETTINGS`, with `kind`,
`output`, `runs` and `requests_file` in SETTINGS (JSON). It prints one JSON object per line, so that whoever
started it knows how far it came when it dies: `{"doing": ...}` before each step, `{"check": ..., "passed":
..., ...}` for each finding, `{"figures": {...}}` once measured.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mlplatform.components.model_validator.asked_elsewhere import to_text
from mlplatform.components.model_validator.image_requests import (
    broken_images,
    odd_images,
    png,
    scaled,
    webp,
)
from mlplatform.components.model_validator.odd_requests import (
    REFUSALS,
    Oddity,
    broken_examples,
    odd_features,
    odd_values,
)
from mlplatform.components.model_validator.peak_memory import peak_memory_mb
from mlplatform.components.model_validator.settings import Question
from mlplatform.evaluation.errors import UnreadableAnswerError
from mlplatform.evaluation.outputs import is_number
from mlplatform.exported_model.contents import largest_difference, read_warmup
from mlplatform.prediction.served_model import (
    Array,
    ServedModel,
    ServedSignature,
    brief,
    photo_of,
    texts,
    values_of,
)
from mlplatform.serving.mixed_precision import BFLOAT16, asked_precision
from mlplatform.serving.saved_model import frozen_graph
from mlplatform.serving.tflite_model import TFLITE_FOLDER
from mlplatform.vision.examples import IMAGE
from mlplatform.vision.signatures import SIGNATURES

WARM_UP_RUNS = 10
REQUEST_RECORDS = 8  # of the samples; more of them are for the comparison with other engines
LARGE_BATCH, LARGE_BATCH_OF_PHOTOS = 1000, 32
TOLERANCE, FORM = "tolerance", "form"
_NAMED = 3  # features that a finding names
_NOT_FINITE = "answers are not finite numbers"

Say = Callable[..., None]
Answer = Mapping[str, Array]
Samples = Sequence[tf.train.Example]


def main() -> None:
    """Probe the model that the command line names."""
    # One request on one core: its time says the same on every machine, and beside other work.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model_dir, samples_file, settings = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    samples = [
        tf.train.Example.FromString(record)
        for record in tf.data.TFRecordDataset(samples_file).as_numpy_iterator()
    ]
    question = Question(settings["kind"], output=settings["output"])
    file = settings["requests_file"]
    probe(
        model_dir,
        samples,
        question,
        runs=settings["runs"],
        say=_print,
        requests_file=Path(file) if file else None,
    )


def probe(
    model_dir: Path,
    samples: Samples,
    question: Question,
    *,
    runs: int,
    say: Say,
    clock: Callable[[], float] = time.perf_counter,
    requests_file: Path | None = None,
) -> None:
    """Load and ask a model; what is found is reported by `say`.

    Args:
        model_dir: The SavedModel.
        samples: Real Examples without their truth, at least one.
        question: Kind and output of the answer.
        runs: Requests that the latency is measured with.
        say: Takes the facts.
        clock: Gives seconds.
        requests_file: Where to write requests with their answers, for another environment
            (`asked_elsewhere`); None writes none.
    """
    say(doing="load the model")
    started = clock()
    model = ServedModel.load(model_dir)
    load_time_s = clock() - started
    judged, reason = model.judged(question.find_kind().signatures, samples[0])
    if judged is None:
        say(check="signatures", passed=False, detail=reason, kind="check")
        return
    few = samples[:REQUEST_RECORDS]
    requests = _Requests(model, judged, question, say)
    if not requests.answers_real_records(few):
        return
    requests.answers_as_in_training()
    if requests.is_image_model:
        _ImageRequests(requests).all(few)
    requests.answers_odd_records(few)
    requests.refuses_broken_examples(few)
    requests.takes_batches_of_any_size(few)
    latency = requests.latency_ms(few, runs, clock)
    say(
        figures={
            "load_time_s": load_time_s,
            "p50_latency_ms": float(np.percentile(latency, 50)),
            "p99_latency_ms": float(np.percentile(latency, 99)),
            "peak_memory_mb": peak_memory_mb(),
        }
    )
    # After the figures, which are those of the SavedModel.
    requests.agrees_with_tflite(samples)
    requests.agrees_in_bfloat16(samples)
    if requests_file is not None:
        requests.write(requests_file, few)


class _Requests:
    """What is asked of every model."""

    def __init__(self, model: ServedModel, judged: ServedSignature, question: Question, say: Say) -> None:
        self.model, self.judged, self._question, self.say = model, judged, question, say
        self.others: list[ServedSignature] = []

    @property
    def is_image_model(self) -> bool:
        """It has the signatures and class names of an image model."""
        forms = {signature.form for signature in self.others}
        return {"photos", "pixels"} <= forms and bool(self.model.names)

    def check(self, name: str, passed: bool, detail: str = "", *, is_note: bool = False) -> None:
        """Report a finding."""
        self.say(check=name, passed=bool(passed), detail=detail, kind="note" if is_note else "check")

    def same(self, name: str, one: Answer, other: Answer) -> None:
        """Report how far two answers lie apart; the parent process compares it with the tolerance."""
        self.say(check=f"same answers: {name}", difference=difference(one, other), kind=TOLERANCE)

    def answers_real_records(self, samples: Samples) -> bool:
        """Real records, alone and in a batch, through all signatures: readable, finite, the same answers."""
        self._find_others(samples)
        self.say(doing="ask about real records")
        try:
            together = self.judged.answer(samples)
            alone = self.judged.answer(samples[:1])
        except (tf.errors.OpError, ValueError, TypeError) as error:
            self.check(
                "signatures", False, f"{self.judged.name} does not answer real records: {brief(error)}"
            )
            return False
        problem = self.problem(together, len(samples))
        is_readable = problem in ("", _NOT_FINITE)
        names = [self.judged.name, *(signature.name for signature in self.others)]
        self.check("signatures", is_readable, ", ".join(names) if is_readable else problem)
        if not is_readable:
            return False
        self.check("real records", not problem, problem)
        self.same("alone and in a batch", _first_rows(together, 1), alone)
        for signature in self.others:
            if signature.form != "pixels":  # the client scales the photo
                self._compare(signature, together, samples)
        return True

    def _find_others(self, samples: Samples) -> None:
        for name in self.model.signature_names:
            if name == self.judged.name:
                continue
            signature = self.model.signature(name, samples[0])
            if signature is None:
                takes = self.model.inputs_in_words(name)
                self.check(f"signature {name}", True, f"not asked: it takes {takes}", is_note=True)
            else:
                self.others.append(signature)

    def _compare(self, signature: ServedSignature, wanted: Answer, samples: Samples) -> None:
        """Another signature gives the same outputs, as far as it has the same names."""
        self.say(doing=f"ask {signature.name}")
        try:
            found = signature.answer(samples)
        except (tf.errors.OpError, ValueError, TypeError) as error:
            self.check(f"signature {signature.name}", True, f"not answered: {brief(error)}", is_note=True)
            return
        if wanted.keys() & found.keys():
            self.same(f"{self.judged.name} and {signature.name}", wanted, found)

    def problem(self, outputs: Answer, rows: int) -> str:
        """Return why outputs are no sane answer to so many records; empty where they are."""
        for name, array in outputs.items():
            if array.ndim and len(array) != rows:
                return f"output {name!r} has {len(array)} rows for {rows} records"
        kind = self._question.find_kind()
        try:
            is_finite = kind.tally(self.model.names, output=self._question.output).finite(outputs)
        except UnreadableAnswerError as error:
            return str(error)
        return "" if is_finite.all() else _NOT_FINITE

    def answers_as_in_training(self) -> None:
        """The requests that the model carries get the answers that its training gave."""
        self.say(doing="ask what training asked")
        logs = read_warmup(self.model.folder)
        if not logs:
            none = "the model carries none (assets.extra)"
            self.check("answers of training", not self.is_image_model, none, is_note=not self.is_image_model)
        for log in logs:
            name = log.request.model_spec.signature_name or "serving_default"
            if name not in self.model.signature_names:
                self.check(f"{name} now and in training", False, "the model has no such signature")
                continue
            function = self.model.model.signatures[name]
            inputs = function.structured_input_signature[1]
            signature = ServedSignature(name, "columns", inputs, function)
            then = {key: tf.make_ndarray(value) for key, value in log.response.outputs.items()}
            try:
                now = signature.ask({k: tf.make_ndarray(v) for k, v in log.request.inputs.items()})
            except (tf.errors.OpError, ValueError, TypeError) as error:
                self.check(f"{name} now and in training", False, f"not answered now: {brief(error)}")
                continue
            self.same(f"{name} now and in training", then, now)

    def answers_odd_records(self, samples: Samples) -> None:
        """An odd record between real ones is refused or answered sanely; the others' answers stay."""
        if self.judged.form not in ("examples", "columns") or self.is_image_model:
            return
        good, sample = samples[0], samples[-1]
        wanted = self.judged.answer([good, good])
        odd = [*odd_values(sample), *(odd_features(sample) if self.judged.form == "examples" else ())]
        for group in dict.fromkeys(oddity.group for oddity in odd):
            self.say(doing=f"ask about odd records: {group}")
            self._check_odd(group, [oddity for oddity in odd if oddity.group == group], good, wanted)

    def _check_odd(self, group: str, odd: list[Oddity], good: tf.train.Example, wanted: Answer) -> None:
        answered, refused, not_finite, wrong = [], [], [], []
        for oddity in odd:
            name = oddity.feature or "the record"
            try:
                found = self.judged.answer([good, oddity.example, good])
            except REFUSALS:
                refused.append(name)
                continue
            others = {key: array[[0, 2]] for key, array in found.items() if array.ndim and len(array) == 3}
            middle = {key: array[1:2] for key, array in found.items() if array.ndim and len(array) == 3}
            if difference(wanted, others) > 1e-3:
                wrong.append(f"{name}: it changes the answers to the other records of the request")
                continue
            problem = self.problem(middle, 1)
            if not problem:
                answered.append(name)
            elif oddity.may_be_not_finite:
                not_finite.append(name)
            else:
                wrong.append(f"{name}: {problem}")
        if wrong:
            self.check(f"odd records: {group}", False, "; ".join(wrong[:_NAMED]))
            return
        outcomes = {"answered": answered, "refused": refused, "no finite answer": not_finite}
        words = [f"{what} for {_names(names)}" for what, names in outcomes.items() if names]
        self.check(f"odd records: {group}", True, "; ".join(words), is_note=bool(not_finite))

    def refuses_broken_examples(self, samples: Samples) -> None:
        """What is not an Example is an error, never an answer."""
        if self.judged.form != "examples":
            return
        good = samples[0].SerializeToString()
        (name,) = self.judged.inputs
        for what, record in broken_examples(samples[0]):
            self.say(doing=f"ask about {what}")
            self.refused(what, self.judged, {name: texts([good, record, good])})

    def refused(
        self, name: str, signature: ServedSignature, request: Mapping[str, Array], must_say: str = ""
    ) -> None:
        """Report whether a request is refused, with an error that says something."""
        try:
            signature.ask(request)
        except REFUSALS as error:
            said = must_say in str(error)
            self.check(name, said, "" if said else f"the error does not name the place ({must_say!r})")
        else:
            self.check(name, False, "it got an answer instead of an error")

    def takes_batches_of_any_size(self, samples: Samples) -> None:
        """A large batch gets the answers of small ones; an empty one is refused or gets no answers."""
        has_photos = bool(values_of(samples[0], IMAGE))
        size = LARGE_BATCH_OF_PHOTOS if has_photos else LARGE_BATCH
        self.say(doing=f"ask about {size} records at once")
        many = [samples[number % len(samples)] for number in range(size)]
        try:
            found = self.judged.answer(many)
        except (tf.errors.OpError, ValueError, TypeError) as error:
            self.check(f"a batch of {size}", False, brief(error))
        else:
            problem = self.problem(found, size)
            self.check(f"a batch of {size}", not problem, problem)
            last = {key: array[-len(samples) :] for key, array in found.items() if array.ndim}
            wanted = self.judged.answer(many[-len(samples) :])
            self.same(f"a batch of {size} and one of {len(samples)}", wanted, last)
        self.say(doing="ask with an empty batch")
        request = self.judged.request(samples[:1])
        try:
            found = self.judged.ask({name: array[:0] for name, array in request.items()})
        except REFUSALS:
            self.check("an empty batch", True, "refused with an error")
        else:
            rows = max((len(array) for array in found.values() if array.ndim), default=0)
            self.check("an empty batch", rows == 0, f"it got {rows} answers" if rows else "no answers")

    def latency_ms(self, samples: Samples, runs: int, clock: Callable[[], float]) -> list[float]:
        """Return the time of each of `runs` requests with one record."""
        self.say(doing="measure latency")
        photos = [signature for signature in self.others if signature.form == "photos"]
        signature = photos[0] if self.is_image_model else self.judged
        requests = [signature.request([sample]) for sample in samples]
        times = []
        for run in range(WARM_UP_RUNS + runs):
            started = clock()
            signature.ask(requests[run % len(requests)])
            times.append(1000 * (clock() - started))
        return times[WARM_UP_RUNS:]

    def agrees_with_tflite(self, samples: Samples) -> None:
        """The TensorFlow Lite forms that the model carries answer as its signatures do, but for rounding."""
        known = {signature.name: signature for signature in (self.judged, *self.others)}
        for file in sorted((self.model.folder / TFLITE_FOLDER).glob("*.tflite")):
            self.say(doing=f"ask {file.name}")
            signature = known.get(file.stem)
            if signature is None or any(spec.dtype == tf.string for spec in signature.inputs.values()):
                self.check(file.name, False, "there is no check for it: no signature of numbers has its name")
                continue
            runner = tf.lite.Interpreter(model_path=str(file)).get_signature_runner()

            def answer(request: Mapping[str, Array], runner: Any = runner) -> dict[str, Array]:
                count = len(next(iter(request.values())))
                rows = [runner(**{k: v[n : n + 1] for k, v in request.items()}) for n in range(count)]
                return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

            self._check_form("TensorFlow Lite", "tflite", signature, samples, answer)

    def agrees_in_bfloat16(self, samples: Samples) -> None:
        """Where the model asks for bfloat16, its signatures answer so as they do in float32."""
        if asked_precision(self.model.folder) != BFLOAT16:
            return
        for signature in (self.judged, *self.others):
            self.say(doing=f"ask {signature.name} in bfloat16")
            graph = frozen_graph(signature.function)
            if graph is None:
                detail = "its variables cannot be made constants"
                self.check(f"bfloat16, {signature.name}", False, detail)
                continue
            self._check_form("bfloat16", BFLOAT16, signature, samples, graph.run(in_bfloat16=True))

    def write(self, file: Path, samples: Samples) -> None:
        """Write what each signature is asked, and what it answers here."""
        with file.open("w", encoding="utf-8") as lines:
            for signature in (self.judged, *self.others):
                request = signature.request(samples)
                asked = {
                    "signature": signature.name,
                    "inputs": {name: to_text(array) for name, array in request.items()},
                    "outputs": {name: to_text(array) for name, array in signature.ask(request).items()},
                }
                lines.write(json.dumps(asked) + "\n")

    def _check_form(
        self,
        title: str,
        form: str,
        signature: ServedSignature,
        samples: Samples,
        answer: Callable[[Mapping[str, Array]], Answer],
    ) -> None:
        """Compare the answers of another form of a signature with the SavedModel's."""
        largest, disagreeing = 0.0, 0
        for part in _parts(samples):
            request = signature.request(part)
            wanted, found = signature.ask(request), answer(request)
            largest = max(largest, difference(wanted, found))
            if is_ranked(wanted):
                disagreeing += int((wanted["classes"][:, 0] != found["classes"][:, 0]).sum())
        self.say(
            check=f"{title}, {signature.name}",
            difference=largest,
            disagreeing=disagreeing / len(samples),
            kind=FORM,
            form=form,
        )


class _ImageRequests:
    """What is asked of image models beside."""

    def __init__(self, requests: _Requests) -> None:
        self._requests = requests
        by_form = {signature.form: signature for signature in requests.others}
        self._examples, self._photos, self._pixels = requests.judged, by_form["photos"], by_form["pixels"]
        (self._photo_input,), (self._pixel_input,) = self._photos.inputs, self._pixels.inputs
        self._size = self._pixels.inputs[self._pixel_input].shape[1]
        self._labels = set(requests.model.names)

    def all(self, samples: Samples) -> None:
        """Ask everything."""
        photos = [photo_of(sample) for sample in samples]
        self._requests.check(
            "signatures of an image model", {*SIGNATURES} <= {*self._requests.model.signature_names}
        )
        self._answers_real_photos(samples, photos)
        self._answers_odd_images(photos[0])
        self._refuses_broken_images(photos[0])
        self._tells_webp(photos[0])

    def _by_bytes(self, photos: Sequence[bytes]) -> Answer:
        return self._photos.ask({self._photo_input: texts(photos)})

    def _answers_real_photos(self, samples: Samples, photos: list[bytes]) -> None:
        self._requests.say(doing="ask about real photos")
        self._check_sane("real photos, serving_default", self._examples.answer(samples))
        self._check_sane("real photos, image_bytes", self._by_bytes(photos))
        pixels = [scaled(photo, self._size) for photo in photos]
        by_pixels = self._pixels.ask({self._pixel_input: np.stack(pixels).astype(np.float32)})
        self._check_sane("real photos, pixels", by_pixels)
        self._requests.same("pixels and image_bytes", by_pixels, self._by_bytes([png(p) for p in pixels]))

    def _answers_odd_images(self, photo: bytes) -> None:
        for name, encoded in odd_images(photo):
            self._requests.say(doing=f"ask about an odd image: {name}")
            self._check_sane(f"odd image: {name}", self._by_bytes([encoded]))

    def _refuses_broken_images(self, photo: bytes) -> None:
        for name, encoded in broken_images(photo):
            self._requests.say(doing=f"ask about a broken image: {name}")
            batch = {self._photo_input: texts([photo, encoded, photo])}
            self._requests.refused(f"broken image: {name}", self._photos, batch, "place 1")
        self._requests.say(doing="ask with an Example without image")
        (name,) = self._examples.inputs
        empty = texts([tf.train.Example().SerializeToString()])
        self._requests.refused("Example without image", self._examples, {name: empty})
        nan = np.full((1, self._size, self._size, 3), np.nan, np.float32)
        self._requests.refused(
            "pixels that are not numbers", self._pixels, {self._pixel_input: nan}, "place 0"
        )

    def _tells_webp(self, photo: bytes) -> None:
        """WebP is answered or refused, depending on the version of TensorFlow."""
        try:
            self._by_bytes([webp(photo)])
        except tf.errors.InvalidArgumentError:
            detail = "refused with an error: this TensorFlow cannot read it"
        else:
            detail = "read"
        self._requests.check("WebP", True, detail, is_note=True)

    def _check_sane(self, name: str, answer: Answer) -> None:
        scores, classes = answer["scores"], answer["classes"]
        problems = []
        if not np.isfinite(scores).all():
            problems.append("scores are not finite")
        elif scores.min() < 0 or scores.sum(axis=1).max() > 1 + 1e-3:
            problems.append("scores are no shares of 1")
        if (np.diff(scores, axis=1) > 0).any():
            problems.append("scores are not sorted, highest first")
        unknown = {c.decode() for c in classes.ravel()} - self._labels
        if unknown:
            problems.append(f"classes that are not in labels.txt: {sorted(unknown)[:3]}")
        self._requests.check(name, not problems, "; ".join(problems))


def difference(one: Answer, other: Answer) -> float:
    """Return how far two answers of the same records lie apart, in the outputs that both have.

    Returns:
        The largest difference of a number, as a share of it where it is beyond 1; for `scores` with `classes`
        that of a class's score, in whatever order classes of equal scores stand. 1 where texts or whole
        numbers differ; infinity where shapes differ, or a number is finite on one side alone.
    """
    names = {*one} & {*other}
    largest = 0.0
    if is_ranked(one) and is_ranked(other) and one["classes"].shape == other["classes"].shape:
        largest = largest_difference(one, other)
        names -= {"scores", "classes"}
    return max([largest, *(_distance(one[name], other[name]) for name in names)])


def is_ranked(answer: Answer) -> bool:
    """It has the best classes with their scores, as image models answer."""
    return (
        {"scores", "classes"} <= {*answer}
        and not is_number(answer["classes"])
        and answer["classes"].ndim == 2
        and answer["classes"].shape == answer["scores"].shape
    )


def _distance(one: Array, other: Array) -> float:
    if one.shape != other.shape:
        return math.inf
    if one.dtype.kind != "f" or other.dtype.kind != "f":
        return float(not np.array_equal(one, other))
    if not one.size:
        return 0.0
    is_finite = np.isfinite(one)
    if not np.array_equal(is_finite, np.isfinite(other)):
        return math.inf
    wide = one[is_finite].astype(np.float64)
    return float(np.max(np.abs(wide - other[is_finite]) / np.maximum(np.abs(wide), 1.0), initial=0.0))


def _first_rows(answer: Answer, count: int) -> dict[str, Array]:
    return {name: array[:count] for name, array in answer.items() if array.ndim}


def _parts(samples: Samples) -> Iterator[Samples]:
    for start in range(0, len(samples), REQUEST_RECORDS):
        yield samples[start : start + REQUEST_RECORDS]


def _names(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    return ", ".join(shown[:_NAMED]) + more


def _print(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
