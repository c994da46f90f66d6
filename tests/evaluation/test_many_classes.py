"""Gates and reports for many classes: intervals, levels of a taxonomy, classes that look alike."""

import itertools

import numpy as np
import pytest

from mlplatform.evaluation.class_design import (
    Neighbourhoods,
    Neighbours,
    clusters,
    look_alikes,
    two_things,
)
from mlplatform.evaluation.classification import Classification, ClassTally
from mlplatform.evaluation.limits import fallen, in_words, missed, parse_limits
from mlplatform.evaluation.tests_of_chance import (
    benjamini_hochberg,
    binomial_tails,
    fisher_combined,
    fisher_tails,
    holm,
    log_hypergeometric_tail,
    poisson_tails,
)
from mlplatform.taxonomy import Taxonomy

NAMES = [f"class {number}" for number in range(50)]


def answered(
    truths: list[int], answers: list[int], kind: Classification | None = None, names: list[str] = NAMES
) -> ClassTally:
    """Return what is measured of answers that are sure of one class; the others follow in their order."""
    tally = (kind or Classification()).tally(names)
    probabilities = np.full((len(truths), len(names)), 1e-3) - np.arange(len(names)) * 1e-6
    probabilities[np.arange(len(answers)), answers] = 1 - probabilities.sum(axis=1)
    tally.add({"probabilities": probabilities}, [[NAMES[truth].encode()] for truth in truths])
    return tally


class TestTestsOfChance:
    def test_they_are_those_of_scipy(self) -> None:
        stats = pytest.importorskip("scipy.stats")
        hits, records = np.array([0, 3, 7, 40]), np.array([5, 10, 7, 100])
        assert binomial_tails(hits, records, 0.4) == pytest.approx(stats.binom.cdf(hits, records, 0.4))
        other = np.array([2, 6, 7, 55])
        assert fisher_tails(hits, other, records) == pytest.approx(
            stats.hypergeom.cdf(hits, 2 * records, hits + other, records)
        )
        tail = stats.hypergeom.cdf(2, 40, 15, 20)
        assert log_hypergeometric_tail(2, 15, 20, 40) == pytest.approx(np.log(tail))
        assert log_hypergeometric_tail(15, 15, 20, 40) == pytest.approx(0, abs=1e-9)
        means = np.array([0.01, 1.0, 5.0, 38.5])
        assert np.exp(poisson_tails([1, 5, 7, 40], means)) == pytest.approx(
            stats.poisson.sf(np.array([0, 4, 6, 39]), means)
        )
        assert poisson_tails([0], [0.5]) == 0
        ones, others = np.array([0.3, 0.01]), np.array([0.9, 1e-6])
        combined = [stats.combine_pvalues(pair, "fisher")[1] for pair in zip(ones, others, strict=True)]
        assert np.exp(fisher_combined(np.log(ones), np.log(others))) == pytest.approx(combined)

    def test_holm_rejects_until_the_first_that_passes(self) -> None:
        assert holm([0.04, 0.01, 0.02], 0.05).tolist() == [True, True, True]
        assert holm([0.04, 0.01, 0.03], 0.05).tolist() == [False, True, False]
        assert holm([], 0.05).tolist() == []

    def test_benjamini_hochberg_rejects_up_to_the_last_below_its_line(self) -> None:
        logs = np.log([0.001, 0.02, 0.03, 0.5])
        assert benjamini_hochberg(logs, 4, 0.05).tolist() == [True, True, True, False]
        assert benjamini_hochberg(logs, 100, 0.05).tolist() == [False] * 4


class TestGates:
    def test_no_class_of_a_good_model_is_rejected_by_chance(self) -> None:
        """Of 50 classes with a true recall of 0.6, some are below 0.5 by chance alone."""
        random = np.random.default_rng(0)
        truths = list(itertools.chain.from_iterable([place] * 20 for place in range(50)))
        answers = [t if random.random() < 0.6 else (t + 1) % 50 for t in truths]
        figures = answered(truths, answers).figures()
        kind = Classification()

        assert in_words(missed(kind, figures, parse_limits(kind, {"per_class_recall": 0.5})))
        by_chance = parse_limits(kind, {"per_class_recall": 0.5, "per_class_alpha": 0.05})
        assert in_words(missed(kind, figures, by_chance)) == []

    def test_a_class_that_is_never_answered_is_rejected_though_it_is_rare(self) -> None:
        truths = [0] * 15 + [1] * 100
        answers = [1] * 15 + [1] * 100
        kind = Classification()
        figures = answered(truths, answers).figures()

        # 15 records are fewer than min_support: by the values, it is not judged.
        assert in_words(missed(kind, figures, parse_limits(kind, {"per_class_recall": 0.5}))) == []
        assert in_words(
            missed(kind, figures, parse_limits(kind, {"per_class_recall": 0.5, "per_class_alpha": 0.05}))
        ) == ["recall of class 'class 0' is 0.0000, below 0.5000 beyond chance (0 of 15 records)"]

    def test_figures_can_be_held_to_the_lower_end_of_their_interval(self) -> None:
        kind = Classification()
        figures = answered([0] * 10, [0] * 8 + [1] * 2).figures()
        assert in_words(missed(kind, figures, parse_limits(kind, {"top_1": 0.7}))) == []
        (reason,) = in_words(
            missed(kind, figures, parse_limits(kind, {"top_1": 0.7, "at_lower_bound": True}))
        )
        assert reason.startswith("top-1 is 0.4902 at the worse end of its 95 % interval")

    def test_each_class_is_compared_with_the_baselines(self) -> None:
        kind = Classification()
        truths = [0] * 40 + [1] * 40
        old = answered(truths, [0] * 36 + [1] * 4 + [1] * 40).figures()
        new = answered(truths, [0] * 10 + [1] * 30 + [1] * 40).figures()
        limits = parse_limits(kind, {"max_per_class_recall_drop": 0.1, "per_class_alpha": 0.05,
                                     "max_top_1_drop": 1.0})  # fmt: skip
        assert in_words(fallen(kind, new, old, limits, "")) == [
            "recall of class 'class 0' is 0.2500 and falls behind the baseline's 0.9000 by more than 0.1 "
            "beyond chance (10 of 40 records)"
        ]
        assert in_words(fallen(kind, old, old, limits, "")) == []

    def test_the_rarest_fifth_of_the_classes_is_judged_together(self) -> None:
        truths = [place for place in range(10) for _ in range(5 if place < 2 else 20)]
        answers = [(place + 1) % 10 if place < 2 else place for place in truths]
        figures = answered(truths, answers).figures()
        assert (figures["tail_top_1"].value, figures["top_1"].value) == (0, pytest.approx(160 / 170))


class TestTaxonomy:
    TAXONOMY = Taxonomy.parse(
        """
        tree: {low: ["class 0", "class 1", "class 2"], high: ["class 3"]}
        groups: {twins: ["class 0", "class 1"]}
        renames: {"old 3": "class 3"}
        merges: {"class 2": ["old 2"]}
        """,
        "taxonomy.yaml",
    )

    def test_an_answer_within_the_group_is_right_at_its_level(self) -> None:
        kind = Classification().with_taxonomy(self.TAXONOMY)
        figures = answered([0, 0, 0, 0], [0, 1, 2, 3], kind).figures()
        assert {name: figures[f"{name}_top_1"].value for name in ("group", "level_1")} == {
            "group": 0.5,
            "level_1": 0.75,
        }
        assert figures["top_1"].value == 0.25
        assert "group_top_1" not in answered([0], [0]).figures()
        limits = parse_limits(kind, {"group_top_1": 0.6})
        assert in_words(missed(kind, figures, limits)) == ["top-1 by group is 0.5000, below 0.6000"]

    def test_an_older_model_is_judged_by_the_names_of_today(self) -> None:
        kind = Classification().with_taxonomy(self.TAXONOMY)
        old_names = ["class 0", "class 1", "class 2", "old 2", "old 3"]
        figures = answered([2, 2, 3, 3], [2, 3, 4, 0], kind, old_names).figures()
        assert figures["top_1"].value == 0.75

    def test_what_was_divided_into_two_outputs_is_added_up(self) -> None:
        kind = Classification().with_taxonomy(self.TAXONOMY)
        tally = kind.tally(["class 0", "class 2", "old 2"])
        tally.add({"probabilities": np.array([[0.4, 0.3, 0.3]])}, [[b"class 2"]])
        assert tally.figures()["top_1"].value == 1


def confused(
    pairs: list[tuple[int, int]], classes: int = 40, records: int = 30
) -> tuple[Neighbours, np.ndarray]:
    """Return the neighbours of classes of which some pairs are taken for each other, others by chance."""
    random = np.random.default_rng(1)
    partner = {**dict(pairs), **{b: a for a, b in pairs}}
    truth = np.repeat(np.arange(classes), records)
    best = random.integers(0, classes, (len(truth), 5))
    for row, place in enumerate(truth):
        if place in partner and random.random() < 0.7:
            best[row, 1] = partner[place]
    found = Neighbours()
    for start in range(0, len(truth), 100):
        found.add(truth[start : start + 100], best[start : start + 100])
    return found, np.full(classes, records)


class TestLookAlikes:
    def test_pairs_that_are_confused_both_ways_are_found_and_chance_is_not(self) -> None:
        neighbours, support = confused([(3, 17), (20, 5)])
        found = look_alikes(neighbours, NAMES[:40], support)
        assert {(pair.one, pair.other) for pair in found} == {
            ("class 3", "class 17"),
            ("class 5", "class 20"),
        }
        assert found[0].one_records == 30
        assert 0.5 < found[0].closeness < 1

    def test_one_way_is_not_enough(self) -> None:
        truth = np.repeat(np.arange(20), 30)
        best = np.stack([(truth + 1 + k) % 20 for k in range(5)], axis=1)
        neighbours = Neighbours()
        neighbours.add(truth, best)
        assert look_alikes(neighbours, NAMES[:20], np.full(20, 30)) == []

    def test_what_two_counted_is_what_one_would_have(self) -> None:
        whole, support = confused([(3, 17)])
        parts = Neighbours()
        truth, answer, counts = whole.counted()
        for half in (slice(None, None, 2), slice(1, None, 2)):
            part = Neighbours()
            for t, a, count in zip(truth[half], answer[half], counts[half], strict=True):
                part.add(np.full(count, t), np.full((count, 1), a))
            parts.merge(part, np.arange(40))
        for one, other in zip(parts.counted(), whole.counted(), strict=True):
            assert one.tolist() == other.tolist()
        assert look_alikes(parts, NAMES[:40], support)

    def test_no_record_gives_none(self) -> None:
        assert look_alikes(Neighbours(), [], np.zeros(0, np.int64)) == []

    def test_clusters_are_classes_that_are_mostly_alike(self) -> None:
        triangle = [(0, 1), (1, 2), (2, 0)]
        tally = ClassTally(NAMES, None, 1)
        assert tally.look_alikes == []
        chain = [(10, 11), (11, 12), (12, 13), (13, 14)]
        random = np.random.default_rng(2)
        near: dict[int, list[int]] = {}
        for a, b in [*triangle, *chain]:
            near.setdefault(a, []).append(b)
            near.setdefault(b, []).append(a)
        truth = np.repeat(np.arange(40), 40)
        best = random.integers(0, 40, (len(truth), 5))
        for row, place in enumerate(truth):
            for column, other in enumerate(near.get(int(place), [])):
                best[row, column] = other
        neighbours = Neighbours()
        neighbours.add(truth, best)
        joined = clusters(look_alikes(neighbours, NAMES[:40], np.full(40, 40)))
        assert ["class 0", "class 1", "class 2"] in joined
        assert all(len(labels) <= 3 for labels in joined)  # a chain is not one thing


def two_kinds(classes: int, records: int, divided: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return truths and answers: records have four of eight near classes, those of `divided` by halves."""
    random = np.random.default_rng(4)
    truth = np.repeat(np.arange(classes), records)
    near = (truth[:, None] + 1 + np.argsort(random.random((len(truth), 8)))[:, :4]) % classes
    half = random.integers(0, 2, (len(truth), 1))
    apart = (truth[:, None] + 1 + 4 * half + np.argsort(random.random((len(truth), 4)))) % classes
    answers = np.where((truth == divided)[:, None], apart, near)
    return truth, np.concatenate([truth[:, None], answers], axis=1), random.random((len(truth), 5))


class TestTwoThings:
    def test_a_class_whose_records_are_of_two_kinds_is_found_and_chance_is_not(self) -> None:
        kept = Neighbourhoods()
        kept.add(*two_kinds(30, 40, divided=7))
        (found,) = two_things(kept, NAMES)
        assert found.label == "class 7"
        sides = sorted((int(name.split()[1]) - 8) // 4 for name in (found.one, found.other))
        assert sides == [0, 1]
        assert (found.as_both, found.as_one + found.as_other, found.records) == (0, 40, 40)

    def test_few_records_say_nothing(self) -> None:
        kept = Neighbourhoods()
        assert two_things(kept, NAMES) == []
        kept.add(*two_kinds(30, 10, divided=7))
        assert two_things(kept, NAMES) == []

    def test_what_is_kept_depends_neither_on_order_nor_on_parts(self) -> None:
        truth, best, scores = two_kinds(12, 200, divided=3)
        whole, parts = Neighbourhoods(), Neighbourhoods()
        whole.add(truth, best, scores)
        order = np.random.default_rng(1).permutation(len(truth))
        for rows in np.array_split(order, 7):
            part = Neighbourhoods()
            part.add(truth[rows], best[rows], scores[rows])
            parts.merge(part, np.arange(12))
        for one, other in zip(parts.kept(), whole.kept(), strict=True):
            assert one.tolist() == other.tolist()
        assert len(whole.kept()[0]) == 12 * 64


def test_the_report_of_1200_classes_stays_small() -> None:
    import json

    random = np.random.default_rng(0)
    names = [f"category {number}" for number in range(1200)]
    tally = Classification().tally(names)
    for _ in range(4):
        truth = random.integers(0, 1200, 500)
        logits = random.normal(size=(500, 1200))
        logits[np.arange(500), truth ^ 1] += 6  # two and two are taken for each other
        logits[np.arange(500), truth] += 6
        tally.add({"logits": logits}, [[names[place].encode()] for place in truth])
    tables = {section.title: section for section in tally.sections()}
    assert {"Rare and frequent classes", "Classes that it confuses both ways", "Calibration"} <= set(tables)
    assert all(len(getattr(section, "rows", [])) <= 60 for section in tables.values())
    assert len(json.dumps(tally.details())) < 1200 * 500
    assert all(abs(int(p.one.split()[1]) - int(p.other.split()[1])) == 1 for p in tally.look_alikes[:50])


def test_what_parts_found_of_levels_and_look_alikes_is_what_the_whole_finds() -> None:
    kind = Classification().with_taxonomy(TestTaxonomy.TAXONOMY)
    random = np.random.default_rng(3)
    truths = random.integers(0, 12, 900).tolist()
    answers = [t ^ 1 if random.random() < 0.5 else t for t in truths]
    whole = answered(truths, answers, kind)
    parts = answered(truths[:400], answers[:400], kind)
    parts.merge(answered(truths[400:], answers[400:], kind))

    for name, figure in whole.figures().items():
        assert parts.figures()[name].value == pytest.approx(figure.value, nan_ok=True), name
    assert whole.figures()["group_top_1"].value > whole.figures()["top_1"].value
    assert parts.look_alikes == whole.look_alikes
    assert whole.look_alikes
