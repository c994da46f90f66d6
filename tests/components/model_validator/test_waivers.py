"""Waivers of the model gate: the threshold that is named is let through, until its day, and nothing else."""

import itertools
import json
import math
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.components.model_validator.serving_check import concluded
from mlplatform.components.model_validator.settings import Budget
from mlplatform.components.model_validator.waivers import apart, parse_waivers
from mlplatform.config import ConfigError
from mlplatform.evaluation.classification import Classification
from mlplatform.evaluation.kind import Figure, PartOfRecords
from mlplatform.evaluation.limits import Missed, fallen, in_words, missed, parse_limits
from mlplatform.waivers import counting_on, waiver_facts

DAY = date(2026, 3, 31)
EVER, NEVER = "9999-12-31", "0001-01-01"
TOP_1 = {"threshold": "top_1", "by": "ann", "why": "the season changes", "until": EVER}

CLASSES, SLICES = ("cup", "hat", ""), ("", "shop = a", "shop = b")
LEVELS = {"top_1": 0.5, "log_loss": 1.0, "per_class_recall": 0.5}
LOWER_IS_BETTER = {"log_loss"}
KEYS = (
    *LEVELS,
    "max_top_1_drop",
    "p99_latency_ms",
    "load_time_s",
    "model_size_mb",
)
VALUES = st.sampled_from([0.0, 0.3, 0.9, 2.0, math.inf, -math.inf, math.nan])
Key = tuple[str, str, str]


@st.composite
def figures(draw: st.DrawFn) -> dict[str, Figure]:
    recalls = {name: draw(VALUES) for name in CLASSES if name}
    parts = [PartOfRecords(f"recall of class {name!r}", value, name=name) for name, value in recalls.items()]
    return {
        "top_1": Figure(draw(VALUES)),
        "log_loss": Figure(draw(VALUES)),
        "per_class_recall": Figure(min(recalls.values()), parts=parts),
    }


@st.composite
def waivers(draw: st.DrawFn) -> list[dict[str, Any]]:
    keys = st.tuples(st.sampled_from(KEYS), st.sampled_from(CLASSES), st.sampled_from(SLICES))
    drawn = draw(st.lists(st.tuples(keys, st.integers(-1, 1)), max_size=12))
    return [
        {
            "threshold": threshold,
            "class_name": class_name,
            "slice": of_slice,
            "by": "ann",
            "why": "so",
            "until": str(DAY + timedelta(days)),
        }
        for (threshold, class_name, of_slice), days in drawn
    ]


def expected_misses(of_slices: Mapping[str, Mapping[str, Figure]], before: float) -> dict[Key, bool]:
    """By threshold, class and slice, whether its value is a finite number: by brute force."""
    found: dict[Key, bool] = {}
    for of_slice, measured in of_slices.items():
        for name, limit in LEVELS.items():
            values = {part.name: part.value for part in measured[name].parts or ()} or {
                "": measured[name].value
            }
            for class_name, value in values.items():
                if not (value <= limit if name in LOWER_IS_BETTER else value >= limit):
                    found[name, class_name, of_slice] = math.isfinite(value)
    top_1 = of_slices[""]["top_1"].value
    if not before - top_1 <= 0.02:
        found["max_top_1_drop", "", ""] = math.isfinite(top_1)
    return found


def keys_of(some: list[Missed]) -> list[Key]:
    return [(each.threshold, each.class_name, each.slice) for each in some]


@given(st.tuples(figures(), figures(), figures()), st.sampled_from([0.1, 0.9]), waivers())
def test_only_what_is_waived_today_by_its_whole_name_is_let_through(
    drawn: tuple[dict[str, Figure], ...], before: float, given_waivers: list[dict[str, Any]]
) -> None:
    kind, of_slices = Classification(), dict(zip(SLICES, drawn, strict=True))
    limits = parse_limits(kind, LEVELS)
    found = [each for name, some in of_slices.items() for each in missed(kind, some, limits, name)]
    found += fallen(kind, of_slices[""], {"top_1": Figure(before)}, limits, "")
    misses = expected_misses(of_slices, before)
    assert sorted(keys_of(found)) == sorted(misses)

    refused, waived = apart(found, counting_on(DAY, parse_waivers("classification", given_waivers)))
    open_today = {
        (each["threshold"], each["class_name"], each["slice"])
        for each in given_waivers
        if each["until"] >= str(DAY)
    }
    let_through = {key for key, is_measured in misses.items() if is_measured and key in open_today}
    assert set(keys_of([each for each, _ in waived])) == let_through
    assert sorted(keys_of(refused)) == sorted(misses.keys() - let_through)
    assert len(in_words(refused)) == len(refused), "each is a reason"
    assert all((w.threshold, w.class_name, w.slice) == keys_of([each])[0] for each, w in waived)


COSTS = {"p99_latency_ms": 500.0, "load_time_s": 60.0, "peak_memory_mb": 3000.0}


@given(
    st.fixed_dictionaries({name: st.sampled_from([1.0, 1e5, math.inf, math.nan]) for name in COSTS}),
    st.lists(
        st.sampled_from(["real records", "odd records", "budget: load_time_s"]), max_size=3, unique=True
    ),
    st.sampled_from(["", "it took more than 300 s"]),
    waivers(),
)
def test_of_what_is_not_safe_to_serve_only_costs_are_waived(
    costs: dict[str, float], failed: list[str], ended: str, given_waivers: list[dict[str, Any]]
) -> None:
    facts: list[dict[str, Any]] = [{"check": name, "passed": False, "detail": "NaN"} for name in failed]
    facts += [{"check": "same answers", "difference": 0.5}, {"figures": costs}]
    check = concluded(facts, Budget(), Path(__file__).with_name("no model"), ended)
    given_today = counting_on(DAY, parse_waivers(None, given_waivers))
    refused, waived = apart(check.missed, given_today)

    over = {name for name, value in costs.items() if not value <= COSTS[name]}
    open_today = {w.threshold for w in given_today if not w.class_name and not w.slice}
    let_through = {
        name for name in over & open_today & {"p99_latency_ms", "load_time_s"} if math.isfinite(costs[name])
    }
    assert {each.threshold for each, _ in waived} == let_through
    others = [*failed, "same answers", *(["the serving process"] if ended else [])]
    assert sorted(reason.partition(": ")[0] for reason in in_words(refused)) == sorted(
        [*(name for name in others if ":" not in name), *("budget" for name in others if ":" in name)]
        + ["budget"] * len(over - let_through)
    )


def test_classes_beyond_the_twentieth_block_though_those_that_are_named_first_are_waived() -> None:
    names = [f"class {number:02}" for number in range(45)]
    parts = [PartOfRecords(f"recall of {name}", 0.1, name=name) for name in names]
    kind = Classification()
    found = missed(
        kind,
        {"per_class_recall": Figure(0.1, parts=parts)},
        parse_limits(kind, {"per_class_recall": 0.5}),
    )
    some = [{**TOP_1, "threshold": "per_class_recall", "class_name": name} for name in names[:22]]
    refused, _ = apart(found, parse_waivers("classification", some))
    sentences = in_words(refused)
    assert sentences[0].startswith("recall of class 22 is")
    assert sentences[20:] == ["recall of the worst class: 3 more classes likewise, in metrics.json"]
    rest = [{**each, "class_name": name} for each, name in zip(itertools.cycle(some), names, strict=False)]
    assert apart(found, parse_waivers("classification", rest))[0] == []


@pytest.mark.parametrize(
    ("given_waiver", "says"),
    [
        ({"threshold": "top1"}, r"waivers\.0\.threshold is 'top1', which cannot be waived.*max_top_1_drop"),
        ({"threshold": "peak_memory_mb"}, "cannot be waived"),
        ({"threshold": "score_tolerance"}, "cannot be waived"),
        ({"threshold": "min_support"}, "cannot be waived"),
        ({"why": ""}, r"waivers\.0\.why"),
        ({"by": "a\nb"}, r"waivers\.0\.by"),
        ({"until": "tomorrow"}, r"waivers\.0\.until"),
        ({"untill": EVER}, "did you mean 'waivers.0.until'"),
    ],
)
def test_a_wrong_waiver_is_one_clear_error(given_waiver: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_waivers("classification", [{**TOP_1, **given_waiver}])


def test_waivers_name_the_thresholds_of_their_kind() -> None:
    assert parse_waivers("regression", [{**TOP_1, "threshold": "max_rmse_rise"}])
    with pytest.raises(ConfigError, match="'top_1', which cannot be waived"):
        parse_waivers("regression", [TOP_1])


def test_facts_say_which_are_used() -> None:
    used, unused = parse_waivers("classification", [TOP_1, {**TOP_1, "slice": "shop = a"}])
    assert [fact["is_used"] for fact in waiver_facts([used, unused], [used])] == [True, False]


def test_one_that_is_over_is_no_part_of_the_declaration() -> None:
    from tfx.types import channel_utils, standard_artifacts

    from mlplatform.components import ModelValidator

    model, examples = (
        channel_utils.as_channel([kind()]) for kind in (standard_artifacts.Model, standard_artifacts.Examples)
    )
    given_waivers = [{**TOP_1, "until": NEVER}, {**TOP_1, "threshold": "top_3", "until": date(9999, 12, 31)}]
    component = ModelValidator(model=model, examples=examples, waivers=given_waivers)
    assert [each["threshold"] for each in json.loads(component.exec_properties["waivers"])] == ["top_3"]
    plain = ModelValidator(model=model, examples=examples, waivers=given_waivers[:1])
    assert plain.exec_properties["waivers"] is None, "as if none had been given: a result is reused"
