"""`taxonomy.yaml`: what it says of a class, and what is wrong with one."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.taxonomy import LEVELS, Taxonomy, TaxonomyError

TEXT = """
tree:
  clothing: {footwear: [sneakers, boots, mens, womens], tops: [t-shirt]}
  home: [lamp]
renames: {tee: tshirt, tshirt: t-shirt}
merges: {sneakers: [trainers]}
splits: {shoes: [mens, womens]}
groups: {shoes of adults: [mens, womens]}
"""


@pytest.fixture
def taxonomy() -> Taxonomy:
    return Taxonomy.parse(TEXT, "taxonomy.yaml")


def test_names_that_were_given_up_stand_for_what_took_their_place(taxonomy: Taxonomy) -> None:
    assert [taxonomy.current(name) for name in ("tee", "trainers", "lamp", "never seen")] == [
        "t-shirt", "sneakers", "lamp", "never seen"
    ]  # fmt: skip
    assert taxonomy.parts("shoes") == ("mens", "womens")
    assert taxonomy.retired("tee") == ("t-shirt",)
    assert taxonomy.retired("lamp") == ()


def test_a_class_belongs_to_a_node_of_each_level(taxonomy: Taxonomy) -> None:
    assert taxonomy.levels == ("group", "level_2", "level_1")
    assert (
        taxonomy.node("mens", "group") == taxonomy.node("womens", "group") != taxonomy.node("boots", "group")
    )
    assert taxonomy.node("shoes", "group") == taxonomy.node("mens", "group")  # all of its parts do
    assert taxonomy.node("trainers", "level_2") == ("level_2", "clothing / footwear")
    assert taxonomy.node("lamp", "level_2") == ("class", "lamp")
    assert taxonomy.node("lamp", "level_1") == ("level_1", "home")


def test_a_class_comes_from_those_that_an_older_model_knows(taxonomy: Taxonomy) -> None:
    assert taxonomy.origins("mens", {"shoes", "boots"}) == ["shoes"]
    assert taxonomy.origins("sneakers", {"sneakers", "trainers"}) == ["sneakers", "trainers"]
    assert taxonomy.origins("t-shirt", {"tee"}) == ["tee"]
    assert taxonomy.origins("lamp", {"boots"}) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gruops: {}", "unknown key 'gruops'; did you mean 'groups'?"),
        ("[a]", "has to be a mapping"),
        ("tree: {a: {b: {c: {d: [x]}}}}", "at most 3 levels"),
        ("tree: {a: [x], b: [x]}", "class 'x' is in the tree twice: under a and b"),
        ("tree: {a: x}", "a has to hold nodes, or a list of classes"),
        ("tree: {a: [no]}", "has False, which is not a name: put it in quotes"),
        ("groups: {g: [x]}", "groups.g has to be a list of at least 2 different classes"),
        ("groups: {g: [x, y], h: [y, z]}", "class 'y' is in the groups 'g' and 'h'"),
        ("renames: {a: b, b: a}", "lead from 'a' back to it"),
        ("renames: {a: b}\nmerges: {c: [a]}", "'a' is given up more than once"),
        ("tree: {t: [a]}\nrenames: {a: b}", "'a' was given up for b, and is still in tree"),
        ("renames: [a]", "renames has to be a mapping"),
        ("a: b: c", "it is not YAML"),
    ],
)
def test_what_does_not_fit_is_named(text: str, says: str) -> None:
    with pytest.raises(TaxonomyError) as raised:
        Taxonomy.parse(text, "taxonomy.yaml")
    assert says in str(raised.value)


NAMES = st.sampled_from([f"c{number}" for number in range(8)])


@settings(deadline=None)
@given(st.dictionaries(NAMES, NAMES), st.dictionaries(NAMES, st.lists(NAMES, min_size=2, unique=True)))
def test_whatever_is_accepted_leads_to_an_end(renames: dict[str, str], splits: dict[str, list[str]]) -> None:
    try:
        made = Taxonomy.parse(json.dumps({"renames": renames, "splits": splits}), "made up")
    except TaxonomyError:
        return
    for name in [*renames, *splits]:
        parts = made.parts(name)
        assert parts
        assert not any(made.retired(part) for part in parts)
        assert all(made.node(name, level) for level in LEVELS)
