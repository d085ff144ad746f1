"""Whatever comes in: the answer by definition, or one line that refuses it, and a searcher that works on."""

from __future__ import annotations

import math
import operator
from decimal import Decimal

import numpy as np
import pytest
from cases import assert_same, make_rows
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import score_matrix, top_k

from deepssim import _core
from deepssim.errors import DeepSSIMError, MemoryLimitError, UsageError
from deepssim.search import (
    Preparation,
    ReverseTopk,
    RowTally,
    Searcher,
    SearchError,
    exact_scores,
    measure_peak,
    merge_topk,
    plan_search,
    resolve_isa,
    supported_isa_levels,
)

DIM = 5
BASE = make_rows("integers", 40, DIM, 1)
LIMIT = 2**24  # bytes: enough for every search here, and refused before a huge answer is allocated
CORE_ERRORS = (ValueError, TypeError, _core.MemoryLimitTooSmall)
FLOAT_SPECIALS = [np.nan, np.inf, -np.inf, -0.0, 2.0**-149, 2.0**62, 2.0**63, 2.0**63.5, 3e38, -3e38]


def assert_one_line(error):
    assert str(error)
    # What pybind11 says of a wrong type is cut to one line a layer above.
    assert "\n" not in str(error) or isinstance(error, TypeError)


def odd_stride(array):
    """Rows that start 4 n + 2 bytes apart."""
    record = np.dtype({"names": ["row", "pad"], "formats": [(np.float32, array.shape[1]), np.uint16]})
    out = np.zeros(len(array), record)
    out["row"] = array
    return out["row"]


def misaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    out = raw[1:].view(np.float32).reshape(array.shape)
    out[:] = array
    return out


def read_only(array):
    return np.frombuffer(array.tobytes(), np.float32).reshape(array.shape)


def sliding(array):
    """Rows that overlap: each starts one element after the one before."""
    flat = np.ascontiguousarray(array).ravel()
    n = max(0, flat.size - array.shape[1] + 1)
    return np.lib.stride_tricks.as_strided(flat, (min(n, 40), array.shape[1]), (4, 4), writeable=False)


LAYOUTS = {
    "as it is": lambda a: a,
    "Fortran order": np.asfortranarray,
    "transposed": lambda a: a.T,
    "rows backwards": lambda a: a[::-1],
    "columns backwards": lambda a: a[:, ::-1],
    "all backwards": lambda a: a[::-1, ::-1],
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every third row backwards": lambda a: np.repeat(a, 3, axis=0)[::-3],
    "every other column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "one row many times": lambda a: np.broadcast_to(a[:1], (7, a.shape[1])),
    "one column many times": lambda a: np.broadcast_to(a[:, :1], a.shape),
    "columns of wider rows": lambda a: np.pad(a, ((0, 0), (2, 3)), constant_values=np.nan)[:, 2:-3],
    "misaligned": misaligned,
    "odd stride": odd_stride,
    "read-only": read_only,
    "overlapping rows": sliding,
    "no rows": lambda a: a[:0],
    "no columns": lambda a: a[:, :0],
    "one column fewer": lambda a: a[:, :-1],
    "one element": lambda a: a.ravel()[0] if a.size else a,
    "one row": lambda a: a.ravel(),
    "three axes": lambda a: a[None],
    "three axes, last one": lambda a: a[..., None],
    "four axes": lambda a: a[None, :, None],
    "a subclass": lambda a: a.view(type("Mine", (np.ndarray,), {})),
}
DTYPES = ["f8", "f2", "g", "i1", "i4", "i8", "u8", "?", "c8", "c16", "O", ">f4", ">f8", "S4", "U4", "m8[s]"]


@st.composite
def hostile(draw, dim=DIM):
    """An array that may be anything; two in five fit."""
    kind = draw(st.sampled_from(["unit", "integers", "scales", "denormal", "zeros"]))
    rows = make_rows(kind, draw(st.integers(1, 30)), dim, draw(st.integers(0, 99)))
    if draw(st.integers(0, 4)) == 0:
        rows[draw(st.integers(0, len(rows) - 1)), draw(st.integers(0, dim - 1))] = draw(st.sampled_from(FLOAT_SPECIALS))
    array = np.asanyarray(LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))](rows))
    change = draw(st.sampled_from(["none"] * 6 + ["dtype", "structured"]))
    with np.errstate(all="ignore"):
        if change == "dtype":
            dtype = draw(st.sampled_from(DTYPES))
            array = array.astype("i8").astype(dtype) if dtype == "m8[s]" else array.astype(dtype)
        elif change == "structured":
            array = np.array(array).view([("x", np.float32)]) if array.ndim else array
    return array


def has_form(array, dim):
    """Whether it is as the documentation asks, but for its values."""
    if array.dtype != np.float32 or not array.dtype.isnative or array.ndim != 2 or array.shape[1] != dim:
        return False
    return array.size == 0 or (array.flags.aligned and (dim == 1 or array.strides[1] == 4))


def has_values(array):
    """Whether the rows can be scored; None very near the limit of their norm."""
    if not np.isfinite(array).all():
        return False
    largest = max((math.sqrt(math.fsum(float(x) ** 2 for x in row)) for row in array), default=0.0)
    return None if abs(largest / 2.0**63 - 1) < 1e-6 else largest < 2.0**63


def check_refusal(error, array, dim):
    assert_one_line(error)
    assert not (has_form(array, dim) and has_values(array)), f"an array that fits was refused: {error}"


def frozen(*arrays):
    return [(a.shape, a.strides, a.dtype, a.tobytes()) for a in arrays]


class Surface:
    """A searcher's calls, by the module that users call or by the binding layer below it."""

    def __init__(self, is_public, **options):
        self.searcher = Searcher(DIM, 40, **options) if is_public else _core.Searcher(DIM, 40, **options)
        self.errors = DeepSSIMError if is_public else CORE_ERRORS
        self.is_public = is_public

    def search(self, queries, k, **options):
        found = self.searcher.search(queries, k, **options)
        return (found.scores, found.ids, found.counts) if self.is_public else found[:3]

    def check_works(self, base):
        """Whatever was refused before, and the searcher holds `base`."""
        assert len(self.searcher) == len(base)
        assert_same(self.search(BASE[:3], 4)[:2], top_k(score_matrix(BASE[:3], base), 4))


def reached_by(searching):
    """Rows of the base of `searching` as they were when it was added."""
    return np.array(searching, np.float32, copy=True).reshape(-1, DIM)


@given(data=st.data(), is_public=st.booleans(), threads=st.integers(0, 3))
@settings(deadline=None, max_examples=600, derandomize=True)
def test_any_array_is_answered_by_definition_or_refused(data, is_public, threads):
    base = data.draw(hostile())
    shares = data.draw(st.sampled_from(["nothing", "all", "half"]))
    queries = {"all": base, "half": base[::2] if base.ndim else base}.get(shares)
    if queries is None:
        queries = data.draw(hostile())
    before = frozen(base, queries)
    surface = Surface(is_public)
    held = BASE[:0]
    try:
        surface.searcher.add(base)
    except surface.errors as error:
        check_refusal(error, base, DIM)
    else:
        held = reached_by(base)
    try:
        scores, ids, counts = surface.search(queries, 4, thresholds=[0.0, 1.0], threads=threads)
    except surface.errors as error:
        check_refusal(error, queries, DIM)
    else:
        expected = score_matrix(reached_by(queries), held)
        assert_same((scores, ids), top_k(expected, 4))
        np.testing.assert_array_equal(counts, np.stack([(expected >= t).sum(axis=1) for t in (0, 1)], axis=1))
    assert frozen(base, queries) == before
    surface.check_works(held)


@given(a=hostile(), b=hostile(), is_same=st.booleans(), is_public=st.booleans())
@settings(deadline=None, max_examples=300, derandomize=True)
def test_exact_scores_of_any_arrays(a, b, is_same, is_public):
    b = a if is_same else b[: len(a)] if b.ndim and a.ndim else b
    before = frozen(a, b)
    score, errors = (exact_scores, DeepSSIMError) if is_public else (_core.exact_scores, CORE_ERRORS)
    try:
        found = score(a, b)
    except errors as error:
        assert_one_line(error)
        is_meant = a.ndim == 2 and has_form(a, DIM) and has_form(b, DIM) and a.shape == b.shape
        assert not (is_meant and np.isfinite(a).all() and np.isfinite(b).all())
    else:
        assert found.shape == a.shape[:1]
        with np.errstate(over="ignore"):
            expected = [score_matrix(a[i : i + 1], b[i : i + 1]).item() for i in range(len(a))]
        np.testing.assert_array_equal(found, np.array(expected, np.float32))
    assert frozen(a, b) == before


GROUP_LAYOUTS = {
    "as they are": lambda g: g,
    "read-only": lambda g: np.frombuffer(g.tobytes(), np.int64),
    "spread": lambda g: np.repeat(g, 2)[::2],
    "backwards": lambda g: g[::-1],
    "one for all": lambda g: np.broadcast_to(g[:1], g.shape),
    "misaligned": lambda g: np.frombuffer(b"x" + g.tobytes(), np.int64, offset=1),
    "two axes": lambda g: g[:, None],
    "no axis": lambda g: g[0],
    "one fewer": lambda g: g[1:],
    "one more": lambda g: np.append(g, 3),
    "none": lambda g: g[:0],
    "int32": lambda g: g.astype(np.int32),
    "uint64": lambda g: g.astype(np.uint64),
    "float64": lambda g: g.astype(np.float64),
    "big-endian": lambda g: g.astype(">i8"),
    "bool": lambda g: g.astype(bool),
    "objects": lambda g: g.astype(object),
    "dates": lambda g: g.astype("M8[s]"),
    "a list": lambda g: g.tolist(),
    "a word": lambda _: "groups",
    "missing": lambda _: None,
}


def are_groups(groups, n):
    if not isinstance(groups, np.ndarray) or groups.dtype != np.int64 or groups.shape != (n,):
        return False
    return groups.flags.aligned and (n <= 1 or groups.strides == (8,))


@given(
    layouts=st.tuples(*[st.sampled_from(["as they are", *GROUP_LAYOUTS])] * 2),
    values=st.lists(st.sampled_from([-1, 0, 1, -2, 2**63 - 1, -(2**63)]), min_size=23, max_size=23),
    cap=st.integers(0, 2),
    is_public=st.booleans(),
)
@settings(deadline=None, max_examples=150, derandomize=True)
def test_any_groups(layouts, values, cap, is_public):
    groups, query_groups = np.array(values[:15]), np.array(values[15:])
    base, queries = BASE[:15], BASE[20:28]
    known, asked = (GROUP_LAYOUTS[name](g) for name, g in zip(layouts, (groups, query_groups), strict=True))
    surface = Surface(is_public, with_groups=True)
    try:
        surface.searcher.add(base, known)
    except surface.errors as error:
        assert_one_line(error)
        assert not are_groups(known, 15)
        surface.check_works(BASE[:0])
        return
    held = np.array(known)
    options = {"max_per_group": cap, "exclude_same_group": True}
    try:
        found = surface.search(queries, 5, query_groups=asked, **options)
    except surface.errors as error:
        assert_one_line(error)
        assert not are_groups(asked, 8)
    else:
        allowed = (np.array(asked)[:, None] != held) | (np.array(asked)[:, None] == -1)
        assert_same(found[:2], top_k(score_matrix(queries, base), 5, allowed=allowed, groups=held, cap=cap))
    surface.check_works(base)


WORDS = [None, "3", b"3", "", 1j, [], [3], object(), np.array([1, 2]), {}]
REALS = [0.0, 1.0, 2.5, -1.0, math.nan, math.inf, 1e300]
INTEGERS = [-1, 0, 1, 3, True, 2**31, 2**32 + 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), 10**30, 10**400]
ARRAY_INTEGERS = [np.int64(2), np.uint8(3), np.array(2), np.int64(-1), np.uint64(2**64 - 1)]
NUMBERS = [*WORDS, *REALS, *INTEGERS, *ARRAY_INTEGERS]
OPTIONS = ["k", "threads", "memory_limit", "max_per_group", "max_listed", "first_query"]


def check_options(surface, given_options, base, groups):
    """The call answers as these numbers say, or refuses them."""
    options = {"k": 2, "memory_limit": LIMIT, "thresholds": [0.0], **given_options}
    if "memory_limit" in given_options:  # nothing else here is large
        options.update(k=2, max_listed=0)
    try:
        scores, ids, counts = surface.search(BASE[:6], **options)
    except surface.errors as error:
        assert_one_line(error)
        legal = {name for name, number in given_options.items() if isinstance(number, int) and 0 <= number <= 3}
        assert legal - {"memory_limit"} != given_options.keys()
    else:
        taken = {name: operator.index(options[name]) for name in given_options}  # a float, a word: never taken
        assert all(0 <= value < 2**64 for value in taken.values())
        expected = score_matrix(BASE[:6], base)
        k = operator.index(options["k"])
        cap = taken.get("max_per_group", 0)
        assert_same((scores, ids), top_k(expected, k, groups=groups, cap=cap))
        np.testing.assert_array_equal(counts[:, 0], (expected >= 0).sum(axis=1))


@pytest.mark.parametrize("is_public", [True, False])
@pytest.mark.parametrize("option", OPTIONS)
def test_numbers_of_every_kind_are_meant_or_refused(option, is_public):
    base, groups = BASE[:20], np.arange(20) % 4 - 1
    surface = Surface(is_public, with_groups=True)
    surface.searcher.add(base, groups)
    for number in NUMBERS:
        check_options(surface, {option: number}, base, groups)
    surface.check_works(base)


@given(
    chosen=st.dictionaries(st.sampled_from(OPTIONS), st.sampled_from([*INTEGERS, *ARRAY_INTEGERS]), min_size=2),
    is_public=st.booleans(),
)
@settings(deadline=None, max_examples=120, derandomize=True)
def test_numbers_together(chosen, is_public):
    base, groups = BASE[:20], np.arange(20) % 4 - 1
    surface = Surface(is_public, with_groups=True)
    surface.searcher.add(base, groups)
    check_options(surface, chosen, base, groups)
    surface.check_works(base)


@pytest.mark.parametrize("is_public", [True, False])
@pytest.mark.parametrize("name", ["dim", "capacity", "id_offset"])
def test_sizes_of_a_searcher_are_meant_or_refused(name, is_public):
    make, errors = (Searcher, DeepSSIMError) if is_public else (_core.Searcher, CORE_ERRORS)
    for number in NUMBERS:
        if name == "capacity" and not is_public and isinstance(number, int) and number > 2**30:
            continue  # that no machine has the memory is MemoryError, here
        sizes = {"dim": 3, "capacity": 4, "id_offset": 0, name: number}
        if isinstance(number, int) and 2**30 < number < 2**40 and name == "capacity":
            continue  # a machine may have that
        try:
            searcher = make(sizes["dim"], sizes["capacity"], id_offset=sizes["id_offset"])
        except errors as error:
            assert_one_line(error)
        else:
            value = {"dim": searcher.dim, "id_offset": searcher.id_offset}.get(name, number)
            assert value == operator.index(number) >= 0


THRESHOLDS = [
    [],
    (),
    [0.0],
    (-1, 0, 2),
    [np.float32(0.5), np.float64(1)],
    np.array([-1.0, 1.0]),
    np.array([-1, 1], np.int8),
    np.linspace(-3, 3, 3001),
    range(-2, 3),
    [-3e38, 3e38],
    [2, 1],
    [1, 1],
    [1, 1 + 1e-12],
    [math.nan],
    [0, math.nan],
    [math.inf],
    [-math.inf, 0],
    [1e39],
    [10**400],
    [None],
    ["0.5"],
    [1j],
    [[0.5]],
    np.zeros((2, 2)),
    "0.5",
    b"\0\1",
    None,
    0.5,
    object(),
]


@pytest.mark.parametrize("is_public", [True, False])
def test_thresholds_of_every_kind_are_meant_or_refused(is_public):
    surface = Surface(is_public)
    surface.searcher.add(BASE)
    expected = score_matrix(BASE[:6], BASE)
    for thresholds in THRESHOLDS:
        try:
            counts = surface.search(BASE[:6], 1, thresholds=thresholds)[2]
        except surface.errors as error:
            assert_one_line(error)
            with pytest.raises(surface.errors):
                surface.searcher.count(BASE[:6], thresholds)
        else:
            meant = np.array(thresholds, np.float32)
            assert np.isfinite(meant).all()
            assert (meant[:-1] < meant[1:]).all()
            np.testing.assert_array_equal(counts, (expected[:, :, None] >= meant).sum(axis=1))
    surface.check_works(BASE)


def test_sizes_of_answers_of_every_kind():
    for make in (
        lambda n: RowTally(n, 1),
        lambda n: RowTally(3, n).counts,
        lambda n: ReverseTopk(n, 1),
        lambda n: ReverseTopk(3, n).read(),
        lambda n: ReverseTopk(3, 1, n).read(),
        lambda n: Searcher.of(BASE)._core.sample(n) if n not in (2**31, 2**32 + 1) else None,
    ):
        for number in NUMBERS:
            if isinstance(number, int) and 2**30 < number <= 2**40:
                continue  # a machine may have that
            try:
                make(number)
            except MemoryError:
                assert number > 2**40
            except (ValueError, TypeError) as error:
                assert_one_line(error)
            else:
                assert operator.index(number) >= 0


@given(rotation=hostile(dim=DIM), head=st.sampled_from([0, 1, DIM, DIM + 1, 2**63]), is_public=st.booleans())
@settings(deadline=None, max_examples=60, derandomize=True)
def test_any_array_as_a_rotation(rotation, head, is_public):
    surface = Surface(is_public)
    surface.searcher.add(BASE)
    try:
        if is_public:
            surface.searcher.prepare(Preparation(head, rotation))
        else:
            surface.searcher.prepare(head=head, rotation=rotation)
    except surface.errors as error:
        assert_one_line(error)
    surface.check_works(BASE)


@pytest.mark.parametrize("name", ["head", "threads"])
def test_numbers_of_a_preparation_are_meant_or_refused(name):
    surface = Surface(is_public=True)
    surface.searcher.add(BASE)
    for number in NUMBERS:
        try:
            if name == "head":
                surface.searcher.prepare(Preparation(number))
            else:
                surface.searcher.prepare(threads=number)
        except DeepSSIMError as error:
            assert_one_line(error)
        else:
            assert operator.index(number) >= 0
        surface.check_works(BASE)


MERGED = {
    "as they are": lambda a: a,
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "spread": lambda a: np.repeat(a, 2, axis=2)[..., ::2],
    "backwards": lambda a: a[::-1],
    "turned": lambda a: a.transpose(0, 2, 1),
    "misaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "float64": lambda a: a.astype(np.float64),
    "int32": lambda a: a.astype(np.int32),
    "objects": lambda a: a.astype(object),
    "fewer parts": lambda a: a[1:],
    "fewer queries": lambda a: a[:, 1:].copy(),
    "shorter": lambda a: a[..., 1:].copy(),
    "two axes": lambda a: a[0],
    "four axes": lambda a: a[None],
    "a list": lambda a: a.tolist(),
    "missing": lambda _: None,
}


@given(layouts=st.tuples(*[st.sampled_from(["as they are", *MERGED])] * 3), cap=st.sampled_from([0, 1, 2, *NUMBERS]))
@example(layouts=("as they are",) * 3, cap=1)
@settings(deadline=None, max_examples=150, derandomize=True)
def test_any_lists_are_merged_or_refused(layouts, cap):
    ids = np.random.default_rng(5).permutation(24).reshape(2, 3, 4)
    scores = (-(ids // 2)).astype(np.float32)
    arrays = [MERGED[name](a) for name, a in zip(layouts, (scores, ids, ids % 3 - 1), strict=True)]
    try:
        found = merge_topk(*arrays, max_per_group=cap)
    except SearchError as error:
        assert_one_line(error)
        assert not (layouts[0] == layouts[1] == layouts[2] == "as they are" and isinstance(cap, int) and 0 <= cap <= 2)
    else:
        shape = arrays[0].shape
        kept = [a for a in arrays if a is not None]
        assert all(a.shape == shape and a.flags.c_contiguous and a.flags.aligned for a in kept)
        # One query at a time: ids are a permutation, so each query is a base of 24 rows with a few allowed.
        for query in range(shape[1]):
            row, allowed, groups = np.zeros((1, 24), np.float32), np.zeros((1, 24), bool), np.zeros(24, np.int64)
            own = arrays[1][:, query].ravel()
            row[0, own], allowed[0, own] = arrays[0][:, query].ravel(), True
            groups[own] = 0 if arrays[2] is None else arrays[2][:, query].ravel()
            if len(set(own.tolist())) == own.size:  # a row in two parts is not legal
                expected = top_k(row, shape[2], allowed=allowed, groups=groups, cap=operator.index(cap))
                assert_same((found[0][query : query + 1], found[1][query : query + 1]), expected)


PLANNED = ["base_rows", "dim", "k", "max_listed", "levels", "reverse_k", "threads", "max_chunk_rows"]


@given(
    sizes=st.dictionaries(st.sampled_from(PLANNED), st.sampled_from([0, 1, 7, 1000, 65537, 2**31, 2**40, 2**63])),
    flags=st.dictionaries(
        st.sampled_from(["with_groups", "with_cap", "with_tally", "with_rotation", "with_reverse_cap"]), st.booleans()
    ),
    isa=st.sampled_from([*supported_isa_levels(), "", "sse9"]),
)
@settings(deadline=None, max_examples=150, derandomize=True)
def test_a_plan_of_any_sizes_adds_up_or_is_refused(sizes, flags, isa):
    request = {"base_rows": 10, "dim": 4, "threads": 2, "isa": isa, **sizes, **flags}
    # A plan with a limit tries each number of threads; what overflows by their number is below.
    request["threads"] = min(request["threads"], 7 if max(sizes.values(), default=0) > 2**31 else 1000)
    for limit in (0, 1, 10**6, 2**36):
        try:
            plan = plan_search(**request, memory_limit=limit)
        except (UsageError, MemoryLimitError) as error:
            assert_one_line(error)
        else:
            assert isa != "sse9"
            assert limit == 0 or plan.total_bytes <= limit
            fixed = plan.base_bytes + plan.prepared_bytes + plan.tally_bytes + plan.threads * plan.worker_bytes
            assert plan.total_bytes == fixed + plan.chunk_rows * plan.row_bytes


def test_thresholds_that_can_be_read_once_are_meant_or_refused():
    try:
        counts = Searcher.of(BASE).search(BASE, 0, thresholds=(t for t in (0.0, 1.0))).counts
    except DeepSSIMError:
        return
    assert counts.shape == (len(BASE), 2)


@pytest.mark.parametrize("number", [np.float32(2.7), np.float16(-0.5), Decimal("2.7"), np.array(2.7, np.float32)])
def test_numbers_with_a_fraction_are_refused(number):
    with pytest.raises(DeepSSIMError):
        Searcher.of(BASE).search(BASE, number)


@pytest.mark.parametrize("row", [[math.nan, 1.0], [math.inf, -math.inf], [math.nan, math.nan]])
def test_exact_scores_of_nan_are_nan_or_refused(row):
    try:
        found = exact_scores(np.array([row], np.float32), np.ones((1, 2), np.float32))
    except DeepSSIMError:
        return
    assert np.isnan(found).all()


ESCAPES = {
    "a k that no machine holds": lambda: Searcher.of(BASE).search(BASE, 2**40),
    "a list that no machine holds": lambda: Searcher.of(BASE).search(BASE, 1, thresholds=[0.0], max_listed=2**40),
    "queries that no machine holds": lambda: Searcher.of(BASE).count(np.broadcast_to(BASE[0], (2**46, DIM)), [0.0]),
    "scores that no machine holds": lambda: exact_scores(*[np.broadcast_to(BASE[0], (2**46, DIM))] * 2),
    "lists without queries": lambda: merge_topk(np.zeros((3, 0, 2**45), np.float32), np.zeros((3, 0, 2**45), np.int64)),
    "a plan of less than nothing": lambda: plan_search(-1, 4),
    "a plan of a word": lambda: plan_search(1, "4"),
    "a level that is none": lambda: resolve_isa(None),
    "less than no threads": lambda: measure_peak("portable", threads=-1),
    "more threads than there can be": lambda: measure_peak("portable", threads=2**45),
    "a base of one row": lambda: Searcher.of(BASE[0]),
    "a base that is a list": lambda: Searcher.of(BASE.tolist()),
    "a level of two lines": lambda: resolve_isa("avx2\navx2"),
    "a plan for a level of two lines": lambda: plan_search(1, 4, isa="avx2\navx2"),
    "no preparation": lambda: Searcher.of(BASE).prepare(None),
}


@pytest.mark.parametrize("name", ESCAPES)
def test_every_refusal_is_an_error_of_ours_in_one_line(name):
    with pytest.raises(DeepSSIMError) as refusal:
        ESCAPES[name]()
    assert_one_line(refusal.value)


def test_a_plan_whose_sum_overflows_is_refused():
    with pytest.raises((UsageError, MemoryLimitError)):
        plan_search(1, 4, levels=2**51, threads=8, max_chunk_rows=8, memory_limit=2**58)
