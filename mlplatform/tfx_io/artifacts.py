"""Artifacts as folders of this machine, wherever their URIs lead.

TFX, TensorFlow and TFDV read and write local paths; which URLs they know besides depends on how each of them
was built. So what lies elsewhere is copied here for as long as it is needed, by the same storage layer and
with the same credentials as everything else.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

from tfx import types

from mlplatform.storage import Storage, open_storage
from mlplatform.storage.urls import is_local, name, parent
from mlplatform.tfx_io.launcher_paths import copy_of

Artifacts = Mapping[str, Sequence[types.Artifact]]


@contextmanager
def fetched(uri: str) -> Iterator[Path]:
    """Give the folder of an artifact on this machine, to read: the folder itself where it is local.

    Args:
        uri: Local path or URL of a folder.

    Yields:
        The folder. A copy of what lies at a URL is deleted when the block ends; the one that Kubeflow's
        launcher has made in a container stays.

    Raises:
        FileNotFoundError: There is nothing at the URL.
    """
    here = Path(uri) if is_local(uri) else copy_of(uri)
    if here is not None:
        yield here
        return
    with _temporary_folder() as folder:
        storage, path = _place(uri)
        storage.fetch_tree(path, folder / path)
        yield folder / path


@contextmanager
def published(uri: str) -> Iterator[Path]:
    """Give a folder on this machine to write an artifact to: the folder itself where it is local.

    Args:
        uri: Local path or URL of a folder.

    Yields:
        The folder, which exists. What was written is uploaded to a URL when the block ends; nothing is where
        it raises.
    """
    if is_local(uri):
        Path(uri).mkdir(parents=True, exist_ok=True)
        yield Path(uri)
        return
    with _temporary_folder() as folder:
        yield folder
        storage, path = _place(uri)
        storage.put_tree(path, folder)


@contextmanager
def on_this_machine(inputs: Artifacts, outputs: Artifacts) -> Iterator[None]:
    """Let the URIs of artifacts be local paths within the block.

    Inputs at URLs are copied here before, outputs are uploaded after it, unless it raises. Afterwards the
    URIs, and the custom properties of outputs that name a place within them, are the original ones again.

    Args:
        inputs: Artifacts to read, by name.
        outputs: Artifacts to write, by name.
    """
    originals: dict[str, str] = {}
    read, written = _remote(inputs), _remote(outputs)
    try:
        with ExitStack() as places:
            for artifact, enter in [
                *((one, fetched) for one in read),
                *((one, published) for one in written),
            ]:
                place = str(places.enter_context(enter(artifact.uri)))
                originals[place], artifact.uri = artifact.uri, place
            yield
    finally:
        for artifact in read + written:
            artifact.uri = originals.get(artifact.uri, artifact.uri)
        for artifact in (one for some in outputs.values() for one in some):
            _restore_properties(artifact, originals)


def where_beam_runs(
    beam_pipeline_args: Sequence[object], inputs: Artifacts, outputs: Artifacts
) -> AbstractContextManager[None]:
    """Let the URIs of artifacts be those that the workers of a Beam pipeline reach.

    Workers in this process read and write local paths, see `on_this_machine`. Those on other machines read
    and write the artifacts where they lie: what TensorFlow and Beam know themselves, such as `gs://`.

    Args:
        beam_pipeline_args: Flags of the pipeline.
        inputs: Artifacts to read, by name.
        outputs: Artifacts to write, by name.
    """
    from mlplatform.beam.runners import runs_in_process  # Beam is loaded only where it runs

    return on_this_machine(inputs, outputs) if runs_in_process(beam_pipeline_args) else nullcontext()


def _remote(artifacts: Artifacts) -> list[types.Artifact]:
    """Return the artifacts at URLs, each once: a node may have one as several inputs."""
    found = {id(one): one for some in artifacts.values() for one in some if not is_local(one.uri)}
    return list(found.values())


def _restore_properties(artifact: types.Artifact, originals: Mapping[str, str]) -> None:
    for value in artifact.mlmd_artifact.custom_properties.values():
        for place, uri in originals.items():
            text = value.string_value
            if text == place or text.startswith(f"{place}/"):
                value.string_value = uri + text[len(place) :]


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mlplatform-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _place(uri: str) -> tuple[Storage, str]:
    return open_storage(parent(uri)), name(uri)
