"""What a notebook shows of a store, a version and a difference."""

from collections.abc import Callable
from pathlib import Path

from mlplatform.datasets import DatasetStore


def test_stores_versions_and_differences_are_tables(
    tmp_path: Path, write_examples: Callable[..., Path], store: DatasetStore
) -> None:
    assert "<tbody></tbody>" in store._repr_html_()
    store.commit("d", write_examples(tmp_path / "a", {"train": [[b"a", b"b"]]}), message="<b>first</b>")
    store.commit("d", write_examples(tmp_path / "b", {"train": [[b"b"]], "eval": [[b"c"]]}))
    assert store._repr_html_().count("<tr>") == 2
    assert "<td>v2</td><td>1 eval, 1 train</td><td>+1 -1</td>" in store._repr_html_()
    shown = store.show("d", "v1")._repr_html_()
    assert "&lt;b&gt;first&lt;/b&gt;" in shown
    difference = store.diff("d", "v1", "v2")._repr_html_()
    assert "<caption>d: v1 to v2</caption>" in difference
    assert "<tr><td>eval</td><td>1</td>" in difference
    assert repr(store) == f"DatasetStore({store.url!r})"
