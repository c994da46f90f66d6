"""The model to compare with: the one that is pushed now."""

from dataclasses import dataclass
from pathlib import Path

from mlplatform.registry import ModelStore, tree_digest


@dataclass(frozen=True)
class BaselineModel:
    """The model to compare with.

    Attributes:
        folder: Its SavedModel.
        name: What to call it in reports.
        url: Where it lies, where that is a URL and `folder` a copy; else empty.
        is_pushed: It is what servers have, not a model that the pipeline was given. Where it does not load,
            no server answers with it, so it keeps no new model out.
    """

    folder: Path
    name: str
    is_pushed: bool = True
    url: str = ""


def pushed_model(models_dir: str, name: str, judged: Path) -> str | None:
    """Return the folder of the newest version of `name` that servers see; None where there is none.

    A model that is pushed already is compared with the version before it, as it was when it was judged first.

    Args:
        models_dir: Folder of the pushed models, a local path or a URL.
        name: The model's name.
        judged: The SavedModel that is judged.
    """
    store = ModelStore(models_dir)
    if name not in store.names():
        return None
    serving = [version for version in store.versions(name) if not version.is_withdrawn]
    if serving and serving[-1].push is not None and serving[-1].push.digest == tree_digest(judged):
        serving.pop()
    return serving[-1].url if serving else None
