from __future__ import annotations

import math

import pytest

from deepssim.errors import UsageError
from deepssim.search import measure_peak, supported_isa_levels


@pytest.mark.parametrize("isa", supported_isa_levels())
def test_peaks_are_positive_numbers(isa):
    peak = measure_peak(isa, threads=1)
    assert 0 < peak.integer < math.inf
    assert 0 < peak.float32 < math.inf


@pytest.mark.parametrize("isa", ["sse9", "AVX2", " portable", "portable ", "portable\0"])
def test_a_level_that_does_not_run_here_has_no_peak(isa):
    with pytest.raises(UsageError, match="ISA level"):
        measure_peak(isa, threads=1)
