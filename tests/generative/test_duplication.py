"""Multiplicities: published ranges, draws that depend on seed and uid alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from deepssim.errors import UsageError
from deepssim.generative.data.duplication import check_duplication, multiplicities
from deepssim.generative.data.records import Record


def records(n: int, **cells: list[str]) -> list[Record]:
    return [
        Record(f"p{i}", Path(f"p{i}.png"), "train", variables={k: v[i] for k, v in cells.items()}, line=i + 2)
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("rule", "low", "high"), [("none", 1, 1), ("low", 1, 4), ("high", 1, 14), ("1-15", 1, 15), ("3-3", 3, 3)]
)
def test_all_numbers_of_a_range_are_drawn_about_equally_often(rule, low, high):
    counts = Counter(multiplicities(records(3000), rule).tolist())
    n_values = high - low + 1
    assert set(counts) == set(range(low, high + 1))
    # Five standard deviations of a binomial count.
    spread = 5 * np.sqrt(3000 / n_values * (1 - 1 / n_values))
    assert all(abs(count - 3000 / n_values) <= spread for count in counts.values())


def test_a_draw_depends_on_seed_and_uid_alone():
    some = records(50)
    drawn = dict(zip([r.uid for r in some], multiplicities(some, "high", seed=3), strict=True))
    fewer = some[40:10:-2]
    assert multiplicities(fewer, "high", seed=3).tolist() == [drawn[r.uid] for r in fewer]
    assert multiplicities(some, "high", seed=4).tolist() != list(drawn.values())


def test_a_column_says_how_often():
    some = records(3, times=["1", "12", "3.0"])
    assert multiplicities(some, "column:times").tolist() == [1, 12, 3]


def test_cells_that_are_no_multiplicity_are_told_with_their_line():
    some = records(4, times=["1", "", "0", "2.5"])
    with pytest.raises(UsageError) as caught:
        multiplicities(some, "column:times")
    assert "3 faults: line 3: ''; line 4: '0'; line 5: '2.5'" in str(caught.value)
    with pytest.raises(UsageError, match="'often', which is not there; columns with variables are 'times'"):
        multiplicities(some, "column:often")


@pytest.mark.parametrize("rule", ["", "medium", "0-3", "5-2", "1-", "1-99999999", "column:", "1 - 4", "-1-4"])
def test_a_rule_that_is_none_is_refused_before_anything_is_read(rule):
    with pytest.raises(UsageError, match="duplication"):
        check_duplication(rule)
