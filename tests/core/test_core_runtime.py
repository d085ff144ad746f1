"""Ctrl-C, cancelling, the GIL, the ISA override and a hostile floating-point environment."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from cases import assert_same, make_rows
from oracle import score_matrix, top_k

from deepssim._core import Cancelled
from deepssim.errors import UsageError
from deepssim.search import CancelToken, RowTally, Searcher, resolve_isa, supported_isa_levels

# Two minutes of work in ten megabytes: all pairs are orthogonal, so that float64 cannot tell a score from
# -0 and every pair is summed exactly.
SLOW_SEARCH = """
import numpy as np
half = np.random.default_rng(0).uniform(-1, 1, (1, 32)).astype(np.float32)
queries = np.hstack([half, half]).repeat(20000, axis=0)
base = np.hstack([half, -half]).repeat(20000, axis=0)
"""


def slow_problem():
    scope: dict[str, np.ndarray] = {}
    exec(SLOW_SEARCH, scope)
    return scope["queries"], scope["base"]


def environment(**variables):
    paths = [path for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}


def run_python(code, **variables):
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process")
def test_ctrl_c_ends_a_search():
    code = (
        SLOW_SEARCH
        + """
import signal, threading, time
from deepssim.search import RowTally, Searcher
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
searcher = Searcher.of(base)
tally = RowTally(len(base), 1)

def watch():
    while tally.counts[0, 0] == 0:
        time.sleep(0.001)
    print("searching", flush=True)

threading.Thread(target=watch, daemon=True).start()
try:
    searcher.search(queries, 0, thresholds=[-1.0], tally=tally, threads=1)
except KeyboardInterrupt:
    print("interrupted", len(searcher), flush=True)
"""
    )
    with subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "searching\n"
        try:
            child.send_signal(signal.SIGINT)
            # Not a measurement: without the interrupt the search would go on for minutes.
            out, _ = child.communicate(timeout=20)
        finally:
            child.kill()
    assert out == "interrupted 20000\n"
    assert child.returncode == 0


def search_in_thread(searcher, queries, **options):
    """Start a search in a thread; return the thread and a list that will hold what it raised or returned."""
    outcome: list[object] = []

    def body():
        try:
            outcome.append(searcher.search(queries, 0, thresholds=[-1.0], **options))
        except Cancelled as error:
            outcome.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    return thread, outcome


def test_other_threads_run_during_a_search_and_can_cancel_it():
    queries, base = slow_problem()
    searcher = Searcher.of(base)
    tally, token = RowTally(len(base), 1), CancelToken()
    thread, outcome = search_in_thread(searcher, queries, tally=tally, cancel=token, threads=1)
    # A search that held the GIL would let this loop see it either not begun or finished, never half done.
    while thread.is_alive() and tally.counts[0, 0] == 0:
        time.sleep(0.001)
    seen = tally.counts.sum()
    token.cancel()
    thread.join()
    assert 0 < seen < len(queries) * len(base)
    assert isinstance(outcome[0], Cancelled)
    assert token.is_cancelled
    few = searcher.search(queries[:2], 2)  # the searcher is as good as before
    assert few.ids.tolist() == [[0, 1], [0, 1]]


def test_a_token_that_is_already_set_ends_a_search_before_any_result():
    token = CancelToken()
    token.cancel()
    base = make_rows("unit", 5, 4, 1)
    with pytest.raises(Cancelled, match="cancelled"):
        Searcher.of(base).search(base, 1, cancel=token)


def test_searches_in_several_threads_answer_right():
    queries, base = make_rows("integers", 200, 16, 1), make_rows("integers", 500, 16, 2)
    searcher = Searcher.of(base)
    expected = top_k(score_matrix(queries, base), 5)
    results: list[tuple[np.ndarray, np.ndarray]] = []

    def body():
        for _ in range(5):
            result = searcher.search(queries, 5, threads=2)
            results.append((result.scores, result.ids))

    threads = [threading.Thread(target=body) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20
    for result in results:
        assert_same(result, expected)


@pytest.mark.parametrize("level", supported_isa_levels())
def test_the_environment_picks_the_level_and_the_argument_wins(level):
    code = """
from deepssim.search import Searcher, resolve_isa
print(Searcher(4, 1).isa, resolve_isa(), Searcher(4, 1, isa="portable").isa)
"""
    done = run_python(code, DEEPSSIM_ISA=level)
    assert done.stdout.split() == [level, level, "portable"], done.stderr


def test_an_unknown_level_is_one_line_that_names_the_choices():
    code = """
from deepssim.errors import UsageError
from deepssim.search import Searcher
try:
    Searcher(4, 1)
except UsageError as error:
    print(error)
"""
    done = run_python(code, DEEPSSIM_ISA="avx1024")
    lines = done.stdout.splitlines()
    assert len(lines) == 1, done.stderr
    assert "DEEPSSIM_ISA, 'avx1024'" in lines[0]
    assert all(level in lines[0] for level in supported_isa_levels())
    with pytest.raises(UsageError, match="'sse9', does not run here"):
        resolve_isa("sse9")


FLUSH = """
#include <xmmintrin.h>
void flush_denormals(void) { _mm_setcsr(_mm_getcsr() | 0x8040); }
"""

UNDER_FLUSH = """
import ctypes, sys
import numpy as np
from deepssim.image_ops import resize_area
from deepssim.search import RowTally, Searcher, exact_scores, merge_topk

rng = np.random.default_rng(0)
tiny = (rng.uniform(-1, 1, (40, 6)) * 2.0**-72).astype(np.float32)  # scores below 2^-126
image = (rng.uniform(0, 1, (8, 8)) * 2.0**-130).astype(np.float32)
parts = exact_scores(tiny, tiny).reshape(2, 4, 5)
ids = np.arange(40).reshape(2, 4, 5)

def answers():
    out = []
    for threads in (1, 2):
        tally = RowTally(40, 1)
        searcher = Searcher.of(tiny)
        result = searcher.search(tiny, 7, thresholds=[0.0], max_listed=5, tally=tally, threads=threads)
        out += [result.scores, result.ids, result.counts, result.listed_ids, tally.best_scores, tally.best_queries]
    out += [exact_scores(tiny, tiny), resize_area(image, 3, 5), *merge_topk(parts, ids)]
    return b"".join(array.tobytes() for array in out)

before = answers()
ctypes.CDLL(sys.argv[1]).flush_denormals()
assert 5e-324 * 2.0 == 0.0 * float(sys.argv[2]), "not in force"
print(answers() == before)
assert 5e-324 * 2.0 == 0.0 * float(sys.argv[2]), "not put back"
"""


def test_flush_to_zero_set_by_another_library_changes_no_answer(tmp_path: Path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("needs a C compiler and an x86 processor to set flush-to-zero")
    source, library = tmp_path / "flush.c", tmp_path / "flush.so"
    source.write_text(FLUSH, encoding="utf-8")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    command = [sys.executable, "-c", UNDER_FLUSH, str(library), "1"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "True\n", done.stderr
