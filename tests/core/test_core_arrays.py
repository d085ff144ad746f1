"""Arrays are taken as they are, or refused by a line that says what to do."""

from __future__ import annotations

import numpy as np
import pytest
from cases import assert_same, make_rows
from oracle import score_matrix, top_k

from deepssim.errors import DeepSSIMError, UsageError
from deepssim.search import Searcher, SearchError, exact_scores

BASE = make_rows("unit", 12, 8, 1)


def unaligned(array):
    raw = np.zeros(array.nbytes + 2, np.uint8)
    out = raw[2:].view(np.float32).reshape(array.shape)
    out[:] = array
    return out


def odd_stride(array):
    """Rows that start 4 n + 2 bytes apart."""
    record = np.dtype({"names": ["row", "pad"], "formats": [(np.float32, array.shape[1]), np.uint16]})
    out = np.zeros(len(array), record)
    out["row"] = array
    return out["row"]


def read_only(array):
    out = array.copy()
    out.flags.writeable = False
    return out


def spaced(array):
    """Rows apart in memory, with NaN between them that must not be read."""
    wide = np.full((len(array), array.shape[1] + 5), np.nan, np.float32)
    wide[:, : array.shape[1]] = array
    return wide[:, : array.shape[1]]


TAKEN = {
    "as it is": lambda a: a,
    "read-only": read_only,
    "rows apart": spaced,
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "rows backwards": lambda a: a[::-1].copy()[::-1],
    "one row many times": lambda a: np.broadcast_to(a[0], a.shape),
    "a middle slice of the columns": lambda a: np.pad(a, ((0, 0), (3, 2)), constant_values=np.nan)[:, 3:-2],
    "Fortran order, one row": lambda a: np.asfortranarray(a[:1]),
    "a subclass": lambda a: a.view(type("Mine", (np.ndarray,), {})),
}


@pytest.mark.parametrize("name", TAKEN)
def test_any_row_stride_is_taken(name):
    array = TAKEN[name](BASE)
    expected = top_k(score_matrix(array, array), 4)
    result = Searcher.of(array).search(array, 4)
    assert_same((result.scores, result.ids), expected)
    own = np.diagonal(score_matrix(array, array))
    np.testing.assert_array_equal(exact_scores(array, array).view(np.int32), own.copy().view(np.int32))


def test_one_column_in_any_layout():
    column = make_rows("unit", 9, 4, 3)[:, 1:2]  # 16 bytes apart
    for array in (column, np.asfortranarray(column)):
        result = Searcher.of(array).search(array, 3)
        assert_same((result.scores, result.ids), top_k(score_matrix(array, array), 3))


REFUSED = {
    "float64": (lambda a: a.astype(np.float64), 'not float64; convert it with .astype\\("float32"\\)'),
    "float16": (lambda a: a.astype(np.float16), 'not float16; convert it with .astype\\("float32"\\)'),
    "integers": (lambda a: a.astype(np.int32), "not int32"),
    "complex": (lambda a: a.astype(np.complex64), "not complex64"),
    "objects": (lambda a: a.astype(object), "not object"),
    "other byte order": (lambda a: a.astype(a.dtype.newbyteorder()), "native byte order"),
    "0-d": (lambda a: np.float32(1) + np.zeros((), np.float32)[...], "not 0-dimensional"),
    "1-d": (lambda a: a[0], "not 1-dimensional"),
    "3-d": (lambda a: a[None], "not 3-dimensional"),
    "Fortran order": (np.asfortranarray, "np.ascontiguousarray"),
    "every other column": (lambda a: np.repeat(a, 2, axis=1)[:, ::2], "np.ascontiguousarray"),
    "columns backwards": (lambda a: a[:, ::-1], "np.ascontiguousarray"),
    "unaligned": (unaligned, "not aligned to 4 bytes"),
    "odd stride": (odd_stride, "no multiple of 4 bytes"),
    "another width": (lambda a: a[:, :7], "7 elements"),
    "no columns": (lambda a: a[:, :0], "0 elements"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_arrays_are_refused_in_one_line(name):
    change, words = REFUSED[name]
    array = np.asarray(change(BASE))
    searcher = Searcher(8, 30)
    with pytest.raises(SearchError, match=words) as refusal:
        searcher.add(array)
    assert "\n" not in str(refusal.value)
    with pytest.raises(SearchError, match=words):
        searcher.search(array, 1)
    assert len(searcher) == 0


@pytest.mark.parametrize("shape", [(0, 8), (0, 8, 1)])
def test_no_rows_are_legal_in_two_dimensions(shape):
    searcher = Searcher.of(BASE)
    array = np.zeros(shape, np.float32)
    if array.ndim == 2:
        searcher.add(array)
        assert searcher.search(array, 3).scores.shape == (0, 3)
    else:
        with pytest.raises(SearchError):
            searcher.add(array)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (np.zeros(12, np.int32), "native int64, not int32"),
        (np.zeros(12), "native int64, not float64"),
        (np.zeros(12, ">i8"), "native int64"),
        (np.zeros((12, 1), np.int64), "one-dimensional"),
        (np.zeros(24, np.int64)[::2], "contiguous"),
        (np.zeros(97, np.uint8)[1:].view(np.int64), "not aligned"),
        (np.zeros(11, np.int64), "expected 12 groups, got 11"),
        (None, "expected 12 groups, got 0"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, words):
    searcher = Searcher(8, 12, with_groups=True)
    with pytest.raises(SearchError, match=words):
        searcher.add(BASE, groups)
    assert len(searcher) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, np.float32(2.0**63.5)])
def test_values_that_cannot_be_scored_are_refused_and_the_row_named(bad):
    rows = BASE.copy()
    rows[9, 7] = bad
    searcher = Searcher(8, 40)
    searcher.add(BASE)
    words = "NaN or infinity" if not np.isfinite(bad) else "norm above 2\\^63"
    with pytest.raises(SearchError, match=f"base row 9 .*{words}"):
        searcher.add(rows)
    assert len(searcher) == 12
    with pytest.raises(SearchError, match=f"query row 9 .*{words}"):
        searcher.search(rows, 1)
    result = searcher.search(BASE, 3)  # nothing of the refused rows was left behind
    assert_same((result.scores, result.ids), top_k(score_matrix(BASE, BASE), 3))


def test_more_rows_than_room_are_refused_whole():
    searcher = Searcher(8, 20)
    searcher.add(BASE)
    with pytest.raises(SearchError, match="no room for 12 more base rows: 12 of 20 are taken"):
        searcher.add(BASE)
    assert len(searcher) == 12


def test_the_widest_rows_are_taken_and_wider_ones_refused():
    rows = make_rows("unit", 3, 65536, 1)
    result = Searcher.of(rows).search(rows, 2)
    assert_same((result.scores, result.ids), top_k(score_matrix(rows, rows), 2))
    for dim in (0, 65537):
        with pytest.raises(UsageError, match=f"1 to 65,536 elements, not {dim}"):
            Searcher(dim, 3)


@pytest.mark.parametrize("id_offset", [-1, 2**63 - 3])
def test_ids_that_cannot_be_are_refused(id_offset):
    with pytest.raises(UsageError, match="ids must lie between 0 and"):
        Searcher(8, 12, id_offset=id_offset)


def test_exact_scores_of_different_shapes_are_refused():
    with pytest.raises(SearchError, match="differ in shape"):
        exact_scores(BASE, BASE[:3])


def test_arguments_of_another_kind_are_one_line():
    searcher = Searcher.of(np.eye(3, dtype=np.float32))
    for queries, k in (([[1.0, 0.0, 0.0]], 1), (np.eye(3, dtype=np.float32), -1)):
        with pytest.raises(DeepSSIMError) as caught:
            searcher.search(queries, k)
        assert "\n" not in str(caught.value)
    with pytest.raises(DeepSSIMError) as caught:
        Searcher(-1, 3)
    assert "\n" not in str(caught.value)
