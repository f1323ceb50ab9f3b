"""The test of two shares, against numbers worked out by hand and against scipy; what is called moved, and what is not."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from scipy import stats

from masklake.status.moved import Counted, fisher, holm, moved, p_value


def test_two_shares_by_hand() -> None:
    """0 of 50 against 40 of 100: pooled 40/150, standard error sqrt(4/15 * 11/15 * 3/100) = 0.0765942, z = -0.4 / 0.0765942 = -5.22233."""
    assert p_value(0, 50, 40, 100) == pytest.approx(2 * stats.norm.sf(5.22233), rel=1e-4)
    assert p_value(20, 50, 40, 100) == 1.0


def test_few_images_are_tested_exactly_by_hand() -> None:
    """Fisher's lady: 3 of 4 against 1 of 4. Of 70 outcomes, 16 are as this one, 16 as its mirror, and 1 + 1 less likely: 34/70."""
    assert fisher(3, 4, 1, 4) == pytest.approx(float(Fraction(34, 70)))
    assert p_value(3, 4, 1, 4) == pytest.approx(34 / 70)
    assert p_value(0, 4, 4, 4) == pytest.approx(2 / 70)


def test_both_are_those_of_scipy() -> None:
    draw = random.Random(4)
    for _ in range(40):
        of, others = draw.randint(1, 300), draw.randint(1, 3000)
        here, elsewhere = draw.randint(0, of), draw.randint(0, others)
        table = [[here, of - here], [elsewhere, others - elsewhere]]
        if here + elsewhere in (0, of + others):
            continue
        expected = stats.contingency.expected_freq(table)
        exact = float(stats.fisher_exact(table).pvalue)
        pooled = float(stats.chi2_contingency(table, correction=False).pvalue)
        assert p_value(here, of, elsewhere, others) == pytest.approx(exact if expected.min() < 5 else pooled, rel=1e-6, abs=1e-300)


def test_correction_by_hand() -> None:
    """Holm: 0.01 * 4, 0.02 * 3, 0.03 * 2 (not below the one before), 0.5 * 1."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_a_class_that_vanished_is_named_and_the_rest_is_not() -> None:
    days = {f"2026-11-{day}": Counted(200, {"road": 190 + day % 3, "car": 80 + day % 5}) for day in range(10, 20)}
    days["2026-11-20"] = Counted(200, {"road": 191})
    (found,) = moved(days)
    assert (found.partition, found.label, found.here, found.of) == ("2026-11-20", "car", 0, 200)
    assert (found.elsewhere, found.of_others) == (sum(80 + day % 5 for day in range(10, 20)), 2000)
    assert found.p < 1e-20


def test_without_any_change_hardly_a_table_names_a_class() -> None:
    """Of 200 tables at a level of 1 % about 2 may; 11 or more have a probability below one in a million."""
    draw = random.Random(7)
    wrong = 0
    for _ in range(200):
        tables = {day: Counted(60, {f"c{c}": sum(draw.random() < 0.3 for _ in range(60)) for c in range(4)}) for day in range(5)}
        wrong += bool(moved(tables))
    assert wrong <= 10


def test_one_partition_has_nothing_to_be_compared_with() -> None:
    assert moved({"all": Counted(100, {"car": 50})}) == []
    assert moved({"a": Counted(100, {"car": 50}), "b": Counted(0, {})}) == []
