"""Search beside a model: a version that carries an index answers with items, as one servable.

Embedding and search are of one version by construction: a request holds one servable, and the index lies in
the folder of the model that made its vectors. What does not fit is refused when the version is loaded.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2

from mlplatform.errors import MlplatformError
from mlplatform.search.errors import FilterError, ItemNotFoundError
from mlplatform.search.filters import Filter, parse_filter
from mlplatform.search.fingerprint import INDEX_FOLDER, INPUT, OUTPUT, SIGNATURE, embedding_fingerprint
from mlplatform.search.index import Found, SearchIndex, open_index
from mlplatform.search.live import Follower, Live
from mlplatform.search.segments import Segments
from mlplatform.serving.servable import Run, Servable, Signature, TensorSpec, signature_not_found
from mlplatform.serving.status import Code, StatusError, invalid_argument
from mlplatform.serving.tensors import Array, DataType
from mlplatform.storage.urls import is_local

log = logging.getLogger(__name__)

SEARCH, SEARCH_IMAGE_BYTES, SEARCH_EMBEDDING, SEARCH_ITEM = (
    "search", "search_image_bytes", "search_embedding", "search_item",
)  # fmt: skip
FILTER, ITEM_ID, ITEM_IDS, SCORES, INDEX_VERSION = "filter", "item_id", "item_ids", "scores", "index_version"
PREDICT_METHOD = "tensorflow/serving/predict"
NO_SCORE = -1.0  # of the places of an answer that no item fills

_LOOK_S, _LOOK_AT_URL_S = 0.05, 0.25  # between two looks for what was added to a folder, or at a URL


def attach_index(servable: Servable, base_path: str) -> "Searches | None":
    """Add the search signatures to a version that carries an index; one without is left as it is.

    Args:
        servable: A loaded version.
        base_path: Folder or URL of the model's versions, which `live/` lies in.

    Returns:
        What answers them; None where there is no index.

    Raises:
        StatusError: FAILED_PRECONDITION: the index is damaged, or another model's.
    """
    folder = servable.path / INDEX_FOLDER
    if not folder.is_dir():
        return None
    try:
        run = embedding_run(servable)
        fingerprint = embedding_fingerprint(servable.path)
        index = open_index(folder)
        index.check_model(fingerprint)
        index.check_golden(run)
        interval_s = _LOOK_S if is_local(base_path) else _LOOK_AT_URL_S
        follower = Follower(
            Segments(base_path),
            index.manifest.segment,
            fingerprint,
            index.columns,
            run,
            interval_s=interval_s,
        )
        follower.now()
    except MlplatformError as error:
        raise StatusError(Code.FAILED_PRECONDITION, str(error)) from error
    searches = Searches(servable, index, follower)
    found = searches.signatures()
    servable.signatures = {**servable.signatures, **found}
    servable.signature_defs = {**servable.signature_defs, **{n: s.definition for n, s in found.items()}}
    log.info(
        "version %d of model %s searches %d items (%s)",
        servable.version, servable.model, index.manifest.entries, index.manifest.kind,
    )  # fmt: skip
    return searches


def embedding_run(servable: Servable) -> Callable[[Sequence[bytes]], Array]:
    """Return what turns photos into vectors with a loaded model, float32 (photos, dimensions).

    Raises:
        StatusError: It has no signature `embed_image_bytes`.
    """
    signature = servable.signature(SIGNATURE, signature_not_found)
    if set(signature.inputs) != {INPUT} or OUTPUT not in signature.outputs:
        text = (
            f"signature {SIGNATURE} takes {sorted(signature.inputs)} and returns {sorted(signature.outputs)}"
        )
        raise StatusError(Code.FAILED_PRECONDITION, f"{text}; it should take {INPUT} and return {OUTPUT}")

    def run(photos: Sequence[bytes]) -> Array:
        array = np.empty(len(photos), np.object_)
        array[:] = list(photos)
        return np.asarray(signature.run({INPUT: array})[OUTPUT], np.float32)

    return run


class Searches:
    """The search signatures of one version."""

    def __init__(self, servable: Servable, index: SearchIndex, follower: Follower) -> None:
        self.index, self.follower = index, follower
        # Not the servable itself: it holds this, and is freed by the count of its references.
        self._signatures = servable.signatures
        self._index_version = np.array([servable.version], np.int64)
        self._problem = ""  # what was logged last of what is followed

    def signatures(self) -> dict[str, Signature]:
        """Return the signatures, by name."""
        dimensions = self.index.manifest.dimensions
        found = {
            SEARCH_EMBEDDING: _signature(
                SEARCH_EMBEDDING, OUTPUT, DataType.FLOAT, (None, dimensions), self._results, self._by_vector
            ),
            SEARCH_ITEM: _signature(
                SEARCH_ITEM, ITEM_ID, DataType.STRING, (None,), self._results, self._by_item
            ),
        }
        for name, embeds in ((SEARCH, "embed"), (SEARCH_IMAGE_BYTES, SIGNATURE)):
            by = self._signatures.get(embeds)
            if by is not None and len(by.inputs) == 1:
                ((alias, _),) = by.inputs.items()
                run = self._after(by, alias)
                found[name] = _signature(name, alias, DataType.STRING, (None,), self._results, run)
        return found

    def live(self) -> Live:
        """Return what was added and removed up to now, or to the last look where there can be none now."""
        try:
            live = self.follower.now()
            self._problem = ""
        except MlplatformError as error:  # the storage is away, or a segment was damaged
            if str(error) != self._problem:
                log.error("what was added to the index and removed since is not followed: %s", error)
            self._problem = str(error)
            live = self.follower.last
        return live

    @property
    def _results(self) -> int:
        return self.index.manifest.results

    def _after(self, embeds: Signature, alias: str) -> Run:
        def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
            filters = _filters(inputs)  # a wrong one is refused before anything is computed
            vectors = embeds.run({alias: inputs[alias]})[OUTPUT]
            return self._answer(vectors, filters, [None] * len(vectors))

        return run

    def _by_vector(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        vectors = inputs[OUTPUT]
        wanted = self.index.manifest.dimensions
        if vectors.ndim != 2 or vectors.shape[1] != wanted:
            raise invalid_argument(
                f"{OUTPUT} has the shape {list(vectors.shape)}; it should be [batch, {wanted}]"
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        wrong = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 1e-6)))
        if len(wrong):
            raise invalid_argument(f"{OUTPUT}, place {wrong[0]}: a vector that is zero, or not finite")
        return self._answer(vectors / lengths, _filters(inputs), [None] * len(vectors))

    def _by_item(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        live, names = (
            self.follower.now(),
            [value.decode("utf-8", "replace") for value in inputs[ITEM_ID].tolist()],
        )
        vectors = []
        for name in names:
            try:
                vectors.append(self.vector(name, live))
            except ItemNotFoundError as error:
                raise StatusError(Code.NOT_FOUND, str(error)) from error
        stacked = np.stack(vectors) if vectors else np.zeros((0, self.index.manifest.dimensions), np.float32)
        return self._answer(stacked, _filters(inputs), names)

    def vector(self, item_id: str, live: Live) -> Array:
        """Return an item's vector.

        Raises:
            ItemNotFoundError: It is not there, or was removed.
        """
        if item_id in live:
            return live.vector(item_id)
        if item_id in live.hides:
            raise ItemNotFoundError(item_id)
        return self.index.vector(item_id)

    def _answer(
        self, vectors: Array, filters: Sequence[Filter | None], own: Sequence[str | None]
    ) -> dict[str, Array]:
        if len(filters) != len(vectors):
            raise invalid_argument(f"{FILTER} has {len(filters)} rows for {len(vectors)} requests")
        live, count = self.live(), self._results
        vectors = np.ascontiguousarray(vectors, np.float32)
        # Few calls of NumPy: right after a model ran, caches are cold.
        item_ids, scores = [], []
        for vector, condition, name in zip(vectors, filters, own, strict=True):
            found = self._find(vector, condition, name, live)
            missing = count - len(found.item_ids)
            item_ids.append([item.encode() for item in found.item_ids] + [b""] * missing)
            scores.append(found.scores + [NO_SCORE] * missing)
        shape = (len(vectors), count)
        return {
            INDEX_VERSION: self._index_version.repeat(len(vectors)),
            ITEM_IDS: np.array(item_ids, np.object_).reshape(shape),
            SCORES: np.array(scores, np.float32).reshape(shape),
        }

    def _find(self, vector: Array, condition: Filter | None, own: str | None, live: Live) -> Found:
        if own is not None:  # more like this item: not the item itself
            condition = condition or Filter("", {}, frozenset())
            condition = Filter(condition.text, condition.conditions, condition.excluded | {own})
        try:
            return self.index.search(vector, self._results, condition, live)
        except FilterError as error:
            raise invalid_argument(str(error)) from error


def _filters(inputs: Mapping[str, Array]) -> list[Filter | None]:
    parsed: dict[bytes, Filter | None] = {b"": None}
    values = inputs[FILTER].tolist()
    for value in values:
        if value not in parsed:
            try:
                parsed[value] = parse_filter(value.decode())
            except (FilterError, UnicodeDecodeError) as error:
                raise invalid_argument(str(error)) from error
    return [parsed[value] for value in values]


def _signature(
    name: str, alias: str, dtype: int, shape: tuple[int | None, ...], results: int, run: Run
) -> Signature:
    inputs: dict[str, tuple[int, tuple[int | None, ...]]] = {
        alias: (dtype, shape),
        FILTER: (DataType.STRING, (None,)),
    }
    outputs: dict[str, tuple[int, tuple[int | None, ...]]] = {
        ITEM_IDS: (DataType.STRING, (None, results)),
        SCORES: (DataType.FLOAT, (None, results)),
        INDEX_VERSION: (DataType.INT64, (None,)),
    }
    definition = meta_graph_pb2.SignatureDef(method_name=PREDICT_METHOD)
    for infos, tensors in ((definition.inputs, inputs), (definition.outputs, outputs)):
        for key, (kind, sizes) in sorted(tensors.items()):
            infos[key].name = f"{name}_{key}"
            infos[key].dtype = kind
            for size in sizes:
                infos[key].tensor_shape.dim.add(size=-1 if size is None else size)
    return Signature(
        name=name,
        definition=definition,
        inputs={key: TensorSpec.of(definition.inputs[key]) for key in sorted(inputs)},
        outputs={key: TensorSpec.of(definition.outputs[key]) for key in sorted(outputs)},
        run=run,
        engine="index",
        defaults={FILTER: b""},
    )
