"""Even draws, keys and splits: what lists of pairs are made with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepssim.errors import UsageError
from deepssim.pairs import draw
from deepssim.pairs.draw import N_BINS, EvenDraw, bin_of, even_shares, to_micros
from deepssim.pairs.keys import folder_names
from deepssim.pairs.people import choose_people, people_of, split_people
from deepssim.reference.names import file_of, key_of

COUNTS = st.lists(st.integers(0, 40), min_size=N_BINS, max_size=N_BINS)


def one_by_one(counts: list[int], n: int) -> list[int]:
    """Give one draw after the other to the bin that has least, of those not empty yet."""
    shares = [0] * len(counts)
    for _ in range(min(n, sum(counts))):
        open_bins = [b for b, count in enumerate(counts) if shares[b] < count]
        shares[min(open_bins, key=lambda b: (shares[b], -b))] += 1
    return shares


@given(COUNTS, st.integers(0, 300))
def test_shares_are_those_of_dealing_one_by_one(counts, n):
    assert even_shares(np.array(counts), n).tolist() == one_by_one(counts, n)


def test_bins_are_tenths_and_hold_their_lower_end():
    values = np.array([-1.0, -0.95, -1e-7, 0.0, 0.0999999, 0.3, 0.8999999, 0.9, 1.0])
    assert bin_of(to_micros(values)).tolist() == [0, 0, 10, 10, 11, 13, 19, 19, 19]
    assert to_micros(np.array([0.1234564, -1.0000003])).tolist() == [123456, -1_000_000]


def shown(seed: int, n: int):
    """Pairs that all differ, their similarity crowded at one end."""
    rng = np.random.default_rng(seed)
    places = rng.permutation(70 * 90)[:n]
    return places // 90, places % 90, to_micros(rng.beta(2, 5, n) * 1.2 - 0.2)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4000), st.integers(0, 500), st.integers(1, 900), st.integers(0, 2**63))
def test_a_draw_depends_neither_on_order_nor_on_blocks(data_seed, n_shown, n, block, seed):
    first, second, micros = shown(data_seed, n_shown)
    whole = EvenDraw(n, seed)
    whole.add(first, second, micros)
    expected = whole.finish()
    # Small, so that pairs are dropped on the way.
    parts = EvenDraw(n, seed)
    room, draw._LEAST_ROOM = draw._LEAST_ROOM, 50
    try:
        order = np.random.default_rng(n).permutation(n_shown)
        for start in range(0, n_shown, block):
            chosen = order[start : start + block]
            parts.add(first[chosen], second[chosen], micros[chosen])
            again = EvenDraw(n, seed)
            again.restore(parts.state())
            parts = again
    finally:
        draw._LEAST_ROOM = room
    found = parts.finish()
    for name in ("first", "second", "micros"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert len(expected) == min(n, n_shown)
    pairs = set(zip(expected.first.tolist(), expected.second.tolist(), strict=True))
    assert len(pairs) == len(expected)
    counts = np.bincount(bin_of(micros), minlength=N_BINS)
    assert np.bincount(bin_of(expected.micros), minlength=N_BINS).tolist() == even_shares(counts, n).tolist()
    given_pairs = dict(zip(zip(first.tolist(), second.tolist(), strict=True), micros.tolist(), strict=True))
    assert all(given_pairs[i, j] == m for i, j, m in zip(*map(np.ndarray.tolist, (
        expected.first, expected.second, expected.micros)), strict=True))  # fmt: skip


def test_each_pair_of_a_bin_is_drawn_as_often():
    places = np.arange(40)
    counts = np.zeros(40)
    for seed in range(600):
        one = EvenDraw(10, seed)
        one.add(places, places % 7, np.full(40, 500_000, np.int32))
        counts[one.finish().first] += 1
    assert counts.sum() == 6000
    assert counts.min() > 105  # of 150; five standard deviations
    assert counts.max() < 200


def test_another_seed_draws_others():
    first, second, micros = shown(0, 3000)
    drawn = []
    for seed in range(2):
        one = EvenDraw(100, seed)
        one.add(first, second, micros)
        drawn.append(set(one.finish().first.tolist()))
    assert drawn[0] != drawn[1]


def test_a_state_of_something_else_is_refused():
    with pytest.raises(UsageError, match="lacks"):
        EvenDraw(1, 0).restore({"counts": np.zeros(N_BINS)})


NAMES = st.text("ab_-.=+ é", min_size=1, max_size=8).filter(lambda name: name.strip(".") == name)


@given(st.lists(NAMES, max_size=3), NAMES, st.sampled_from([".png", ".jpg", ".dcm", ".PNG"]))
def test_a_key_leads_to_its_file_or_is_refused(folders, name, suffix):
    path = "/".join([*folders, name + suffix])
    try:
        key = key_of(path)
    except UsageError as error:
        assert "___" in path or "_/" in path or "/_" in path, error  # noqa: PT017
        return
    assert file_of(key) == path
    assert not key.startswith(("=", "+", "-", "@"))
    # As the reference implementation takes a key apart.
    folder, stem = key.split("___")
    if suffix == ".png":
        assert f"{folder}/{stem}.png".removeprefix("./") == path


@pytest.mark.parametrize("key", ["..___a", "/etc___passwd", "a/../..___b", "___a"])
def test_a_key_does_not_lead_out_of_its_folder(key):
    with pytest.raises(UsageError, match="leads out"):
        file_of(key)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), unique=True, max_size=12))
def test_folders_of_images_differ_and_are_plain(ids):
    names = folder_names(ids, ("pairs.csv",))
    assert len({name.casefold() for name in names}) == len(ids)
    for name in names:
        assert key_of(f"{name}/training.png") == f"{name}___training"
        assert "/" not in name
        assert not name.startswith((".", "-"))
        assert name != "pairs.csv"


def test_a_folder_keeps_its_name_when_others_come():
    assert folder_names(["a b.png", "a_b.png", "c.png"])[::2] == folder_names(["a b.png", "a-b.png", "c.png"])[::2]


PEOPLE = st.lists(st.sampled_from("abcdefghij"), min_size=2, max_size=40).filter(lambda p: len(set(p)) > 1)


@given(PEOPLE, st.floats(0.01, 0.5), st.integers(0, 99))
def test_people_are_in_one_split_whatever_the_order_of_their_images(people, part, seed):
    is_valid = split_people(people, part, seed)
    valid = {p for p, v in zip(people, is_valid, strict=True) if v}
    train = {p for p, v in zip(people, is_valid, strict=True) if not v}
    assert not valid & train
    assert len(valid) == min(max(1, round(part * len(set(people)))), len(set(people)) - 1)
    assert split_people(people[::-1], part, seed).tolist() == is_valid.tolist()[::-1]
    assert not split_people(people, 0, seed).any()


@given(PEOPLE, st.integers(1, 40))
def test_whole_people_are_chosen(people, n):
    chosen = choose_people(people, n, 0, "test")
    assert len(chosen) >= min(n, len(people))
    assert {people[place] for place in chosen}.isdisjoint(
        people[place] for place in range(len(people)) if place not in set(chosen.tolist())
    )


def test_people_have_to_be_known_and_more_than_one():
    with pytest.raises(UsageError, match="1 of 2 real images have no known person"):
        people_of(["p", None], ["a", "b"], "auto")
    with pytest.raises(UsageError, match="1 person"):
        split_people(["p", "p"], 0.1, 0)
    assert not split_people(["p", "p"], 0, 0).any()
