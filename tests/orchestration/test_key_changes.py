"""Differences in words."""

import pytest

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
