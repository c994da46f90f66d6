"""The process that loads a model as a server would and asks it real, odd and broken requests.

Run as `python -m mlplatform.components.model_validator.probe MODEL_DIR SAMPLES_FILE RUNS`. It prints one JSON
object per line, so that whoever started it knows how far it came when it dies: `{"doing": ...}` before each
step, `{"check": ..., "passed": ..., "detail": ...}` for each finding, `{"figures": {...}}` once measured.
"""

import io
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from mlplatform.components.model_validator.peak_memory import peak_memory_mb
from mlplatform.exported_model.contents import largest_difference, read_labels, read_warmup
from mlplatform.serving.mixed_precision import BFLOAT16, asked_precision
from mlplatform.serving.saved_model import frozen_graph
from mlplatform.serving.tflite_model import TFLITE_FOLDER
from mlplatform.vision.decoding import decode_image
from mlplatform.vision.examples import IMAGE
from mlplatform.vision.signatures import SIGNATURES

WARM_UP_RUNS = 10
REQUEST_PHOTOS = 8  # of the samples; more of them are for the comparison with other engines
TOLERANCE, FORM = "tolerance", "form"
_READS = {"serving_default": "examples", "image_bytes": "image_bytes", "pixels": "images"}


def main() -> None:
    """Probe the model that the command line names."""
    model_dir, samples_file, runs = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    samples = list(tf.data.TFRecordDataset(samples_file).as_numpy_iterator())
    all_photos = [_photo_of(sample) for sample in samples]
    photos = all_photos[:REQUEST_PHOTOS]
    probe = Probe(model_dir)
    probe.answers_real_requests(samples[:REQUEST_PHOTOS], photos)
    probe.answers_as_in_training()
    probe.answers_odd_images(photos[0])
    probe.refuses_broken_images(photos[0])
    probe.tells_webp(photos[0])
    latency = probe.latency_ms(photos, runs)
    _say(
        figures={
            "load_time_s": probe.load_time_s,
            "p50_latency_ms": float(np.percentile(latency, 50)),
            "p99_latency_ms": float(np.percentile(latency, 99)),
            "peak_memory_mb": peak_memory_mb(),
        }
    )
    # After the figures, which are those of the SavedModel.
    probe.agrees_with_tflite(all_photos)
    probe.agrees_in_bfloat16(samples, all_photos)


class Probe:
    """A loaded model and what is found of it."""

    def __init__(self, model_dir: Path) -> None:
        _say(doing="load the model")
        self._model_dir = model_dir
        started = time.perf_counter()
        # The model object must live as long as its signatures, which hold its variables weakly.
        self._model = tf.saved_model.load(str(model_dir))
        self.load_time_s = time.perf_counter() - started
        self._functions = dict(self._model.signatures)
        missing = [name for name in SIGNATURES if name not in self._functions]
        has = f"it has {', '.join(self._functions) or 'none'}"
        detail = f"missing: {', '.join(missing)} ({has}); this gate judges image classifiers"
        _check("signatures", not missing, detail if missing else "all three")
        if missing:
            sys.exit(0)
        self._labels = set(read_labels(model_dir))
        self._size = self._functions["pixels"].structured_input_signature[1]["images"].shape[1]

    def ask(self, signature: str, values: Any) -> dict[str, NDArray[Any]]:
        """Return the outputs of a signature for a batch."""
        answer = self._functions[signature](**{_READS[signature]: tf.constant(values)})
        return {name: value.numpy() for name, value in answer.items()}

    def answers_real_requests(self, samples: list[bytes], photos: list[bytes]) -> None:
        """Real photos, alone and in batches, through all signatures: same sane answers."""
        _say(doing="ask about real photos")
        by_example = self.ask("serving_default", samples)
        self._check_sane("real photos, serving_default", by_example)
        by_bytes = self.ask("image_bytes", photos)
        self._check_sane("real photos, image_bytes", by_bytes)
        self._check_same("serving_default and image_bytes", by_example, by_bytes)
        alone = self.ask("image_bytes", photos[:1])
        self._check_same("alone and in a batch", {k: v[:1] for k, v in by_example.items()}, alone)
        scaled = [_scaled(photo, self._size) for photo in photos]
        by_pixels = self.ask("pixels", np.stack(scaled).astype(np.float32))
        self._check_sane("real photos, pixels", by_pixels)
        self._check_same(
            "pixels and image_bytes", by_pixels, self.ask("image_bytes", [_png(pixels) for pixels in scaled])
        )

    def answers_as_in_training(self) -> None:
        """The requests that the model carries get the answers that its training gave."""
        _say(doing="ask what training asked")
        logs = read_warmup(self._model_dir)
        if not logs:
            _check("answers of training", False, "the model carries none (assets.extra)")
        for log in logs:
            signature = log.request.model_spec.signature_name
            values = tf.make_ndarray(log.request.inputs[_READS[signature]])
            then = {name: tf.make_ndarray(value) for name, value in log.response.outputs.items()}
            now = self.ask(signature, values)
            self._check_sane(f"requests of training, {signature}", now)
            self._check_same(f"{signature} now and in training", then, now)

    def answers_odd_images(self, photo: bytes) -> None:
        """Images that are unusual and readable get a sane answer."""
        for name, encoded in _odd_images(photo):
            _say(doing=f"ask about an odd image: {name}")
            self._check_sane(f"odd image: {name}", self.ask("image_bytes", [encoded]))

    def refuses_broken_images(self, photo: bytes) -> None:
        """A broken image between good ones is an error that names its place, never an answer."""
        for name, encoded in _broken_images(photo):
            _say(doing=f"ask about a broken image: {name}")
            batch = [photo, encoded, photo]
            self._check_refused(f"broken image: {name}", "image_bytes", batch, "place 1")
        _say(doing="ask with broken Examples")
        empty = tf.train.Example().SerializeToString()
        self._check_refused("Example without image", "serving_default", [empty])
        self._check_refused("no Example", "serving_default", [b"no Example"])
        nan = np.full((1, self._size, self._size, 3), np.nan, np.float32)
        self._check_refused("pixels that are not numbers", "pixels", nan, "place 0")

    def tells_webp(self, photo: bytes) -> None:
        """WebP is answered or refused, depending on the version of TensorFlow."""
        webp = io.BytesIO()
        Image.open(io.BytesIO(photo)).convert("RGB").save(webp, "WEBP")
        try:
            self.ask("image_bytes", [webp.getvalue()])
        except tf.errors.InvalidArgumentError:
            _check("WebP", True, "refused with an error: this TensorFlow cannot read it", is_note=True)
        else:
            _check("WebP", True, "read", is_note=True)

    def latency_ms(self, photos: list[bytes], runs: int) -> list[float]:
        """Return the time of each of `runs` single-photo requests."""
        _say(doing="measure latency")
        times = []
        for run in range(WARM_UP_RUNS + runs):
            started = time.perf_counter()
            self.ask("image_bytes", [photos[run % len(photos)]])
            times.append(1000 * (time.perf_counter() - started))
        return times[WARM_UP_RUNS:]

    def agrees_with_tflite(self, photos: list[bytes]) -> None:
        """The TensorFlow Lite forms that the model carries answer as its signatures do, but for rounding."""
        for file in sorted((self._model_dir / TFLITE_FOLDER).glob("*.tflite")):
            _say(doing=f"ask {file.name}")
            if file.stem != "pixels":
                _check(file.name, False, "there is no check for it: only the signature pixels converts")
                continue
            runner = tf.lite.Interpreter(model_path=str(file)).get_signature_runner()

            def answer(images: NDArray[Any], runner: Any = runner) -> dict[str, NDArray[Any]]:
                rows = [runner(images=image[None]) for image in images]
                return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

            self._check_form("TensorFlow Lite", "tflite", "pixels", self._images(photos), answer)

    def agrees_in_bfloat16(self, samples: list[bytes], photos: list[bytes]) -> None:
        """Where the model asks for bfloat16, its signatures answer so as they do in float32."""
        if asked_precision(self._model_dir) != BFLOAT16:
            return
        for name, values in (
            ("serving_default", _batches(samples)),
            ("image_bytes", _batches(photos)),
            ("pixels", self._images(photos)),
        ):
            _say(doing=f"ask {name} in bfloat16")
            graph = frozen_graph(self._functions[name])
            if graph is None:
                _check(f"bfloat16, {name}", False, "its variables cannot be made constants")
                continue
            run = graph.run(in_bfloat16=True)
            self._check_form(
                "bfloat16",
                BFLOAT16,
                name,
                values,
                lambda batch, run=run, name=name: run({_READS[name]: batch}),
            )

    def _images(self, photos: list[bytes]) -> Iterator[NDArray[Any]]:
        for part in _batches(photos):
            yield np.stack([decode_image(photo, self._size).numpy() for photo in part])

    def _check_form(
        self, title: str, form: str, signature: str, batches: Iterable[NDArray[Any]], answer: Any
    ) -> None:
        """Compare the answers of another form of a signature with the SavedModel's."""
        difference, disagreeing, rows = 0.0, 0, 0
        for batch in batches:
            wanted, found = self.ask(signature, batch), answer(batch)
            difference = max(difference, largest_difference(wanted, found))
            disagreeing += int((wanted["classes"][:, 0] != found["classes"][:, 0]).sum())
            rows += len(batch)
        _say(
            check=f"{title}, {signature}",
            difference=difference,
            disagreeing=disagreeing / rows,
            kind=FORM,
            form=form,
        )

    def _check_sane(self, name: str, answer: dict[str, NDArray[Any]]) -> None:
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
        _check(name, not problems, "; ".join(problems))

    def _check_same(self, name: str, one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> None:
        # Compared with the tolerance by the parent process, which knows it.
        _say(check=f"same answers: {name}", difference=largest_difference(one, other), kind=TOLERANCE)

    def _check_refused(self, name: str, signature: str, values: Any, must_say: str = "") -> None:
        try:
            self.ask(signature, values)
        except (tf.errors.InvalidArgumentError, tf.errors.UnknownError) as error:
            said = must_say in str(error)
            _check(name, said, "" if said else f"the error does not name the place ({must_say!r})")
        else:
            _check(name, False, "it got an answer instead of an error")


def _batches(values: list[bytes]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(values), REQUEST_PHOTOS):
        yield np.array(values[start : start + REQUEST_PHOTOS], np.object_)


def _photo_of(sample: bytes) -> bytes:
    encoded: bytes = tf.train.Example.FromString(sample).features.feature[IMAGE].bytes_list.value[0]
    return encoded


def _scaled(encoded: bytes, size: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _odd_images(photo: bytes) -> Iterator[tuple[str, bytes]]:
    image = Image.open(io.BytesIO(photo)).convert("RGB")

    def encoded(changed: Image.Image, kind: str, **options: Any) -> bytes:
        file = io.BytesIO()
        changed.save(file, kind, **options)
        return file.getvalue()

    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    yield "grey PNG", encoded(image.convert("L"), "PNG")
    yield "PNG with transparency", encoded(image.convert("RGBA"), "PNG")
    yield "PNG with a palette", encoded(image.convert("P"), "PNG")
    yield "16-bit PNG", encoded(image.convert("I;16") if image.mode == "I" else _sixteen_bit(image), "PNG")
    yield "progressive JPEG", encoded(image, "JPEG", progressive=True)
    yield "CMYK JPEG", encoded(image.convert("CMYK"), "JPEG")
    yield "one pixel", encoded(image.resize((1, 1)), "PNG")
    yield "a strip", encoded(image.resize((2000, 8)), "JPEG")
    yield "12 megapixels", encoded(image.resize((4000, 3000)), "JPEG")
    yield "black", encoded(Image.new("RGB", (100, 100)), "JPEG")
    yield "white", encoded(Image.new("RGB", (100, 100), "white"), "JPEG")
    yield "noise", encoded(Image.fromarray(noise), "PNG")


def _sixteen_bit(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def _broken_images(photo: bytes) -> Iterator[tuple[str, bytes]]:
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(photo)).convert("RGB").save(jpeg, "JPEG")
    png = _png(_scaled(photo, 64))
    yield "nothing", b""
    yield "text", b"this is no image"
    yield "a web page", b"<!doctype html><html><body>404</body></html>"
    yield "half a JPEG", jpeg.getvalue()[: len(jpeg.getvalue()) // 2]
    yield "a JPEG's first bytes", jpeg.getvalue()[:20]
    yield "half a PNG", png[: len(png) // 2]


def _check(name: str, passed: bool, detail: str = "", *, is_note: bool = False) -> None:
    _say(check=name, passed=bool(passed), detail=detail, kind="note" if is_note else "check")


def _say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
