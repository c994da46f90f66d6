"""Names of pipelines."""

import pytest

from mlplatform.orchestration.local.reference import (
    PipelineNotFoundError,
    check_reference,
    split_reference,
)


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("item_category", ("item_category", "create_pipeline")),
        ("a/b.py", ("a/b.py", "create_pipeline")),
        ("a/b.py:make", ("a/b.py", "make")),
        ("a/b.py:", ("a/b.py", "create_pipeline")),
        ("/with:colon/b.py", ("/with:colon/b.py", "create_pipeline")),
        ("/with:colon/b.py:make", ("/with:colon/b.py", "make")),
        ("package.module:make", ("package.module", "make")),
    ],
)
def test_place_and_function(reference, parts):
    assert split_reference(reference) == parts


def test_a_module_that_is_not_there_is_told_without_importing_anything():
    with pytest.raises(
        PipelineNotFoundError, match=r"'not_there\.pipeline:make'.*there is no module 'not_there'"
    ):
        check_reference("not_there.pipeline:make")
