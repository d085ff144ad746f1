from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepssim.report import text

N = text.NARROW


@pytest.mark.parametrize("code", [0x00, 0x1B, 0x7F, 0x85, 0xAD, 0x200B, 0x200E, 0x202E, 0x2066, 0xFEFF, 0x2028, 0xD800])
def test_hidden_characters_are_named(code: int):
    assert text.visible(f"a{chr(code)}b") == f"a[U+{code:04X}]b"


@given(st.text(alphabet=st.characters(), max_size=60))
def test_visible_text_can_be_encoded_and_hides_nothing(value: str):
    shown = text.visible(value)
    shown.encode("utf-8")
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    plain = [char for char in value if unicodedata.category(char)[0] in "LNP"]
    assert [char for char in plain if char not in shown] == []


@given(st.text(alphabet=st.characters(), max_size=60))
def test_markup_has_no_tag_but_its_own(value: str):
    html = str(text.markup(value)).replace('<span class="esc">', "").replace("</span>", "")
    assert not set(html) & set("<>\"'")


def test_a_spelled_code_point_differs_from_a_real_one():
    assert text.markup("U+202E") != text.markup("\u202e")


def test_runs_are_counted_and_marks_cannot_pile_up():
    assert text.visible("a" + "\u0301" * 40) == "a" + "\u0301" * 3 + "[U+0301 \u00d7 37]"
    assert text.visible("\u0301a") == "[U+0301]a"
    assert text.visible("x\u200b\u200b") == "x[U+200B \u00d7 2]"


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (999, "999"), (1000, f"1{N}000"), (12345678, f"12{N}345{N}678"), (-5, "\u22125")]
)
def test_counts_have_thin_spaces(value: int, shown: str):
    assert text.count(value) == shown


def test_bounds_are_rounded_outwards():
    assert text.percent(0.00501, 1, towards="up") == f"0.6{N}%"
    assert text.percent(0.00599, 1, towards="down") == f"0.5{N}%"
    # What is exact in decimals must not move because it is not exact in binary.
    assert text.percent(0.29, 0, towards="up") == f"29{N}%"
    assert text.percent(0.57, 0, towards="down") == f"57{N}%"
    assert text.interval((0.0101, 0.0412), 1) == f"1.0\u00a0to\u00a04.2{N}%"


def test_small_rates_get_decimals():
    assert text.percent_digits([0.024, 0.01, 0.04]) == 1
    assert text.percent_digits([0.0002]) == 2
    assert text.percent_digits([0.0]) == 1
    assert text.percent_digits([1e-17, 0.0076]) == 1


def test_times_do_not_depend_on_the_zone_of_the_machine():
    assert text.moment("2026-11-24T05:12:03+01:00") == "24 November 2026, 04:12 UTC"
    assert text.moment("2026-11-24T05:12:03") == "24 November 2026, 05:12"
    assert text.moment("yesterday") == "yesterday"


def test_values_of_options_read_well():
    assert text.plain({"a": [1, None, True, 0.5]}) == "a: 1, \u2013, yes, 0.5"
    assert text.plain(20261124) == "20261124"
    assert text.prose("1,234 of 12,345,678 (2.4 %), id 1,23") == f"1{N}234 of 12{N}345{N}678 (2.4{N}%), id 1,23"
    assert text.duration(59.94) == f"59.9{N}s"
    assert text.duration(119.7) == f"2{N}min 0{N}s"


def test_a_score_under_a_threshold_never_shows_as_one_at_it():
    assert text.score(0.97498) == "0.9749"
    assert text.score(0.99996) == "0.9999"
    assert text.score(1.0) == "1.0000"
    assert text.score(-0.25) == "\u22120.2500"
    # 0.99 as float32 lies just under 0.99 and is compared as float32, so it counts as reaching it.
    assert text.score(float(np.float32(0.99))) == "0.9900"
