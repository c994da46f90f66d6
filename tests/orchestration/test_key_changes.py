"""Differences in words."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.orchestration.local.cache.key_changes import changes_between, describe_changes

DIGEST, OTHER = "0" * 32, "f" * 32


@pytest.mark.parametrize(
    ("part", "before", "now", "said"),
    [
        ("parameter steps", "1", "2", "parameter steps: 1 -> 2"),
        ("parameter words", DIGEST, OTHER, "the content that parameter words names changed"),
        ("parameter words", "/a", DIGEST, "parameter words: /a -> the content of a file or folder"),
        (
            "parameter c",
            '{"a": 1, "b": {"x": 1, "y": 2}}',
            '{"a": 1, "b": {"x": 3}}',
            "parameter c: b.x: 1 -> 3, b.y: 2 -> none",
        ),
        ("parameter c", f"at {OTHER}a1", "none", "parameter c: at ffffffff... -> none"),
        ("parameter c", "two\nlines", "one", "parameter c: two lines -> one"),
        ("variable RATE", DIGEST, "", "environment variable RATE changed"),
        ("code /a.py", DIGEST, OTHER, "code edited: /a.py"),
        ("code /a.py", "", OTHER, "code newly used: /a.py"),
        ("input data", DIGEST, OTHER, "input data has other content"),
        ("library tfx", "1", "", "library tfx: 1 -> not there"),
        ("uncertain", "x was edited (1)", "", "no key identified its last result"),
    ],
)
def test_a_change_in_words(part, before, now, said):
    changes = changes_between({part: before} if before else {}, {part: now} if now else {})
    assert describe_changes(changes) == said


def test_the_most_telling_changes_come_first():
    changes = changes_between(
        {"library b": "1", "parameter a": "1"}, {"library b": "2", "parameter a": "2", "code c": "3"}
    )
    assert describe_changes(changes) == "code newly used: c; parameter a: 1 -> 2 and 1 more"


VALUES = st.text("0123456789abcdef", min_size=64, max_size=64) | st.text(max_size=400)
KEYS = st.sampled_from(["parameter a", "library b", "variable c", "schema d", "uncertain"])


@given(KEYS, VALUES, VALUES | st.dictionaries(st.text(max_size=20), VALUES, max_size=30).map(json.dumps))
def test_a_change_is_one_line_without_long_digests(part: str, before: str, now: str) -> None:
    said = describe_changes(changes_between({part: before}, {part: now}))
    assert len(said.splitlines()) <= 1
    assert not re.search("[0-9a-f]{64}", said)
    assert len(said) <= 400
