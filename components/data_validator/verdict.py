"""What the gate found and decided."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from mlplatform.components.data_validator.policy import Action, DataWaiver, Kind
from mlplatform.reports.page import picture
from mlplatform.waivers import waiver_facts


@dataclass(frozen=True)
class Offender:
    """A record that has a problem.

    Attributes:
        split: Where it is.
        item_id: Which it is; its place where it has no id.
        label: Its class, where it has one.
        value: What is wrong in it, as text.
        thumbnail: A small JPEG of its photo; empty where it has none.
    """

    split: str
    item_id: str
    label: str
    value: str
    thumbnail: bytes = b""


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        kind: What kind of thing.
        feature: The feature; empty where it is the whole split.
        split: The split; several are joined by a comma.
        action: What the policy says.
        description: What was found.
        records: How many records have it; None where it is no matter of single records.
        offenders: Some of them.
        waiver: Why it only warns where the policy says that it blocks; None where nobody waived it.
    """

    kind: Kind
    feature: str
    split: str
    action: Action
    description: str
    records: int | None = None
    offenders: tuple[Offender, ...] = ()
    waiver: DataWaiver | None = None

    def with_offenders(self, records: int | None, offenders: Sequence[Offender]) -> "Problem":
        """Return the problem with some of the records that have it, and how many if that is known."""
        return replace(self, records=records, offenders=tuple(offenders))

    def __str__(self) -> str:
        about = f"{self.feature} " if self.feature else ""
        text = f"{self.kind}: {about}in {self.split}: {self.description}"
        if self.offenders:
            shown = ", ".join(f"{o.item_id} ({o.value})" for o in self.offenders[:3])
            more = ", ..." if len(self.offenders) > 3 else ""
            text += f" [{f'{self.records} records: ' if self.records else ''}{shown}{more}]"
        return text


@dataclass(frozen=True)
class Verdict:
    """The gate's decision and its grounds.

    Attributes:
        schema_source: Where the schema came from.
        records: Per split, how many records.
        problems: Everything found that the policy does not ignore, what blocks first.
        baseline: What the training split was compared with for drift, such as `items@v3`; empty for nothing.
        serving_records: How many records of the serving logs it was compared with; None without logs.
        duplicates: What occurs more than once: how many records are copies within a split (`within`),
            how many photos are in several splits (`leaks`), how many have several labels (`conflicts`), and
            how many keys are in several splits (`key_leaks`); and how many groups of photos that look alike
            are within a split (`near_within`) and in several (`near_leaks`).
        waivers: The policy's waivers that were not over.
    """

    schema_source: str
    records: Mapping[str, int]
    problems: tuple[Problem, ...]
    baseline: str = ""
    serving_records: int | None = None
    duplicates: Mapping[str, int] = field(default_factory=dict)
    waivers: tuple[DataWaiver, ...] = ()

    @property
    def waived(self) -> tuple[Problem, ...]:
        """The problems that would block if nobody had waived them."""
        return tuple(problem for problem in self.problems if problem.waiver)

    @property
    def waiver_facts(self) -> list[dict[str, Any]]:
        """The waivers that count, as JSON holds them; `is_used`: there was such a problem."""
        return waiver_facts(self.waivers, [waiver for p in self.problems if (waiver := p.waiver)])

    @property
    def accepted(self) -> bool:
        """Nothing blocks."""
        return not self.blocking

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that are reported and do not stop the run."""
        return tuple(problem for problem in self.problems if problem.action == "warn")

    @property
    def blocking(self) -> tuple[Problem, ...]:
        """The problems that stop the run."""
        return tuple(problem for problem in self.problems if problem.action == "block")

    def _repr_html_(self) -> str:
        """Return the decision and its grounds for a notebook, with pictures of the records."""
        decision = "accepted" if self.accepted else "rejected"
        counts = ", ".join(f"{count:,} records in {split}" for split, count in self.records.items())
        problems = Markup().join(_problem_html(problem) for problem in self.problems)
        return Markup("<p><b>Data {}</b>: {}</p><ul>{}</ul>").format(decision, counts, problems)

    def as_json(self) -> str:
        """Return the verdict as a JSON document; pictures are left to the report."""
        return json.dumps(
            {
                "accepted": self.accepted,
                "schema": self.schema_source,
                "baseline": self.baseline or None,
                "serving_records": self.serving_records,
                "records": dict(self.records),
                "duplicates": dict(self.duplicates),
                "problems": [_problem(problem) for problem in self.problems],
                "waivers": self.waiver_facts,
            },
            indent=2,
        )


def _problem_html(problem: Problem) -> Markup:
    pictures = Markup().join(
        Markup('<img src="{}" height="64" title="{} ({})" alt="{}">').format(
            picture(offender.thumbnail), offender.item_id, offender.value, offender.item_id
        )
        for offender in problem.offenders
        if offender.thumbnail
    )
    return Markup("<li><b>{}s</b> {}<br>{}</li>").format(problem.action, problem, pictures)


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "kind": problem.kind,
        "feature": problem.feature,
        "split": problem.split,
        "action": problem.action,
        "description": problem.description,
        "records": problem.records,
        "waiver": problem.waiver.model_dump(mode="json") if problem.waiver else None,
        "offenders": [
            {"split": o.split, "item_id": o.item_id, "label": o.label, "value": o.value}
            for o in problem.offenders
        ],
    }
