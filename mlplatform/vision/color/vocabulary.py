"""The names of colours that models answer with, and what a rarer name is called by those who lack it."""

from collections.abc import Collection, Sequence

NAMES = (
    "black",
    "white",
    "grey",
    "red",
    "orange",
    "yellow",
    "green",
    "teal",
    "blue",
    "purple",
    "pink",
    "brown",
)
MULTICOLOUR = "multicolour"
MOST_COLORS = 3  # of one item that count

# What a colour is called where a model has no name for it, the best name first.
_FAMILIES = {"beige": ("brown", "white"), "navy": ("blue", "black")}


def acceptable(colors: Sequence[str], known: Collection[str]) -> list[str]:
    """Return the names that are right for an item, the best first; none where its main colour has no name.

    Args:
        colors: The item's colours, the main one first.
        known: The names that there are.
    """
    named = [[color] if color in known else [n for n in _FAMILIES.get(color, ()) if n in known]
             for color in colors[:MOST_COLORS]]  # fmt: skip
    if not named or not named[0]:
        return []
    return list(dict.fromkeys(name for names in named for name in names))
