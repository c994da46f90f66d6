"""`taxonomy.yaml`: read, checked, and asked for the node of a class at a level."""

import difflib
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mlplatform.config_file import parse_yaml
from mlplatform.taxonomy.errors import TaxonomyError

GROUP = "group"
DEEPEST = 3  # levels above the classes
# Levels that figures are computed for, the finest first; `level_1` is the widest.
LEVELS = (GROUP, *(f"level_{depth}" for depth in range(DEEPEST, 0, -1)))
_KEYS = ("tree", "renames", "merges", "splits", "groups")


@dataclass(frozen=True)
class Taxonomy:
    """The design of the classes; see docs/reference/taxonomy.md.

    Attributes:
        paths: Class to the nodes above it, the widest first, at most `DEEPEST`.
        renames: Old name of a class to its new one.
        merges: Class to the names of those that it took over.
        splits: Old name of a class to the classes that it was divided into.
        groups: Name of a group to its classes, which a photo does not distinguish.
        text: What it was read from.
    """

    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    renames: Mapping[str, str] = field(default_factory=dict)
    merges: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    text: str = field(default="", compare=False, repr=False)

    @classmethod
    def parse(cls, text: str, source: str) -> "Taxonomy":
        """Return the taxonomy that a YAML document describes.

        Args:
            text: The document.
            source: What errors call it.

        Raises:
            TaxonomyError: It does not fit; all of its problems are named.
        """
        try:
            document = parse_yaml(text)
        except ValueError as error:
            raise TaxonomyError(source, [f"it is not YAML: {error}"]) from error
        if not isinstance(document, dict):
            raise TaxonomyError(source, [f"it has to be a mapping with some of {', '.join(_KEYS)}"])
        reader = _Reader()
        for key in document:
            if key not in _KEYS:
                near = difflib.get_close_matches(str(key), _KEYS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"take {', '.join(_KEYS)}"
                reader.problems.append(f"unknown key {key!r}; {hint}")
        made = cls(
            paths=dict(reader.classes(document.get("tree") or {}, ())),
            renames=reader.names(document.get("renames"), "renames"),
            merges=reader.lists(document.get("merges"), "merges", 1),
            splits=reader.lists(document.get("splits"), "splits", 2),
            groups=reader.lists(document.get("groups"), "groups", 2),
            text=text,
        )
        problems = reader.problems or list(made._problems())
        if problems:
            raise TaxonomyError(source, problems)
        return made

    @cached_property
    def _newer(self) -> dict[str, str]:
        """Each name that was given up to the one that took its place."""
        merged = {old: new for new, names in self.merges.items() for old in names}
        return {**self.renames, **merged}

    @cached_property
    def _group_of(self) -> dict[str, str]:
        return {label: group for group, labels in self.groups.items() for label in labels}

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels above the classes that it has, of `LEVELS`, the finest first."""
        deepest = max((len(path) for path in self.paths.values()), default=0)
        return tuple(
            level for level in LEVELS if (self.groups if level == GROUP else int(level[-1]) <= deepest)
        )

    def current(self, label: str) -> str:
        """Return the name that a class has now: its own where it was neither renamed nor merged."""
        while label in self._newer:
            label = self._newer[label]
        return label

    def parts(self, label: str) -> tuple[str, ...]:
        """Return the classes that a name stands for now: several only where it was divided."""
        label = self.current(label)
        if label not in self.splits:
            return (label,)
        return tuple(part for name in self.splits[label] for part in self.parts(name))

    def node(self, label: str, level: str) -> tuple[str, str]:
        """Return what a class belongs to at a level, as (level, name).

        A class that belongs to nothing there stands for itself, as ("class", name). A class that was divided
        belongs to what all of its parts belong to.

        Args:
            label: A class, under any name that it had.
            level: One of `LEVELS`.
        """
        found = {self._node(part, level) for part in self.parts(label)}
        return found.pop() if len(found) == 1 else ("class", self.current(label))

    def _node(self, label: str, level: str) -> tuple[str, str]:
        if level == GROUP:
            return (GROUP, self._group_of[label]) if label in self._group_of else ("class", label)
        path = self.paths.get(label, ())
        depth = int(level[-1])
        # Names need not be unique in the tree: a node is known by all that is above it.
        return (level, " / ".join(path[:depth])) if len(path) >= depth else ("class", label)

    def origins(self, label: str, known: Container[str]) -> list[str]:
        """Return the classes of an older model that a class came from: under the names that it knows them by.

        Args:
            label: A class.
            known: The older model's classes.

        Returns:
            The class itself where the model knows it, and what was renamed to it, merged into it, or divided
            into it and others; empty where it is new.
        """
        older = {*self._newer, *self.splits}
        found = [label] if label in known else []
        found += sorted(
            name for name in older if name != label and name in known and label in self.parts(name)
        )
        return found

    def retired(self, label: str) -> tuple[str, ...]:
        """Return the classes that took the place of a name that was given up; empty where it is in use."""
        return self.parts(label) if label in self._newer or label in self.splits else ()

    def _problems(self) -> Iterator[str]:
        owners: dict[str, str] = {}
        for group, labels in self.groups.items():
            for label in labels:
                if label in owners:
                    yield f"class {label!r} is in the groups {owners[label]!r} and {group!r}: join them"
                owners[label] = group
        old = [*self.renames, *(name for names in self.merges.values() for name in names), *self.splits]
        for name in sorted({name for name in old if old.count(name) > 1}):
            yield f"{name!r} is given up more than once in renames, merges and splits"
        if cycle := self._cycle():
            yield f"renames, merges and splits lead from {cycle!r} back to it"
            return
        for name in sorted(set(old)):
            if name in self.paths or name in owners:
                where = "tree" if name in self.paths else f"group {owners[name]!r}"
                yield f"{name!r} was given up for {', '.join(self.parts(name))}, and is still in {where}"

    def _cycle(self) -> str:
        """Return a name that its successors lead back to; empty where there is none."""
        done: set[str] = set()
        for first in [*self._newer, *self.splits]:
            ahead, seen = [first], set()
            while ahead:
                name = ahead.pop()
                following = [self._newer[name]] if name in self._newer else self.splits.get(name, ())
                if first in following:
                    return first
                fresh = [one for one in following if one not in seen and one not in done]
                seen.update(fresh)
                ahead += fresh
            done.add(first)
        return ""


def read_taxonomy(path: Path) -> Taxonomy:
    """Read a taxonomy.

    Raises:
        TaxonomyError: The file cannot be read, or does not fit.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaxonomyError(str(path), [f"cannot read it: {error}"]) from error
    return Taxonomy.parse(text, str(path))


class _Reader:
    """Takes a document apart, and collects what does not fit."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._seen: dict[str, tuple[str, ...]] = {}

    def classes(self, node: Any, above: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield each class of a part of the tree, with the nodes above it."""
        where = " / ".join(above) or "tree"
        if isinstance(node, dict):
            if len(above) == DEEPEST:
                self.problems.append(f"{where} has nodes below it: a tree has at most {DEEPEST} levels above "
                                     "its classes")  # fmt: skip
                return
            for name, below in node.items():
                yield from self.classes(below, (*above, self._name(name, where)))
        elif isinstance(node, list) and above:
            for name in node:
                label = self._name(name, where)
                if label in self._seen:
                    first = " / ".join(self._seen[label])
                    self.problems.append(f"class {label!r} is in the tree twice: under {first} and {where}")
                self._seen[label] = above
                yield label, above
        else:
            self.problems.append(f"{where} has to hold nodes, or a list of classes; found {node!r}"[:200])

    def names(self, node: Any, key: str) -> dict[str, str]:
        """Return a mapping of names to names."""
        return {self._name(a, key): self._name(b, key) for a, b in self._mapping(node, key).items()}

    def lists(self, node: Any, key: str, least: int) -> dict[str, tuple[str, ...]]:
        """Return a mapping of names to lists of names, each with at least `least` different ones."""
        found = {}
        for name, values in self._mapping(node, key).items():
            labels = tuple(self._name(v, f"{key}.{name}") for v in values) if isinstance(values, list) else ()
            if len(set(labels)) < max(least, len(labels)):
                self.problems.append(f"{key}.{name} has to be a list of at least {least} different classes")
            found[self._name(name, key)] = labels
        return found

    def _mapping(self, node: Any, key: str) -> dict[Any, Any]:
        if node is None or isinstance(node, dict):
            return node or {}
        self.problems.append(f"{key} has to be a mapping; found {node!r}"[:200])
        return {}

    def _name(self, value: Any, where: str) -> str:
        if isinstance(value, str) and value:
            return value
        self.problems.append(f"{where} has {value!r}, which is not a name: put it in quotes")
        return str(value)
