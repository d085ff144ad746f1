// AVX-512 F: 12 queries x 32 rows (two panels) in 24 of the 32 vector registers.
#include <immintrin.h>

#include "kernels.hpp"

namespace deepssim::simd {

namespace {

constexpr std::size_t kQueries = 12;

void scan_one(const float* tile, const float* panel, std::size_t dim, float* out, std::size_t n_rows) {
    const float* q = tile;
    __m512 sums[kQueries];
#pragma GCC unroll 12
    for (std::size_t i = 0; i < kQueries; ++i) sums[i] = _mm512_setzero_ps();
    for (std::size_t d = 0; d < dim; ++d, q += kQueries) {
        const __m512 x = _mm512_loadu_ps(panel + d * kPanelRows);
#pragma GCC unroll 12
        for (std::size_t i = 0; i < kQueries; ++i) {
            sums[i] = _mm512_fmadd_ps(_mm512_set1_ps(q[i]), x, sums[i]);
        }
    }
#pragma GCC unroll 12
    for (std::size_t i = 0; i < kQueries; ++i) _mm512_storeu_ps(out + i * n_rows, sums[i]);
}

void scan(const float* tile, const float* panels, std::size_t n_panels, std::size_t dim, float* scores) {
    const std::size_t n_rows = n_panels * kPanelRows;
    std::size_t p = 0;
    for (; p + 2 <= n_panels; p += 2) {
        const float* x = panels + p * kPanelRows * dim;
        const float* y = x + kPanelRows * dim;
        const float* q = tile;
        __m512 first[kQueries];
        __m512 second[kQueries];
#pragma GCC unroll 12
        for (std::size_t i = 0; i < kQueries; ++i) first[i] = second[i] = _mm512_setzero_ps();
        for (std::size_t d = 0; d < dim; ++d, x += kPanelRows, y += kPanelRows, q += kQueries) {
            const __m512 rows = _mm512_loadu_ps(x);
            const __m512 more = _mm512_loadu_ps(y);
#pragma GCC unroll 12
            for (std::size_t i = 0; i < kQueries; ++i) {
                const __m512 broadcast = _mm512_set1_ps(q[i]);
                first[i] = _mm512_fmadd_ps(broadcast, rows, first[i]);
                second[i] = _mm512_fmadd_ps(broadcast, more, second[i]);
            }
        }
#pragma GCC unroll 12
        for (std::size_t i = 0; i < kQueries; ++i) {
            float* out = scores + i * n_rows + p * kPanelRows;
            _mm512_storeu_ps(out, first[i]);
            _mm512_storeu_ps(out + kPanelRows, second[i]);
        }
    }
    if (p < n_panels) {
        scan_one(tile, panels + p * kPanelRows * dim, dim, scores + p * kPanelRows, n_rows);
    }
}

void rescore(const float* query, const float* panel, std::size_t dim, double* sums) {
    __m512d low = _mm512_setzero_pd();
    __m512d high = _mm512_setzero_pd();
    for (std::size_t d = 0; d < dim; ++d) {
        const __m512d q = _mm512_set1_pd(static_cast<double>(query[d]));
        const float* x = panel + d * kPanelRows;
        low = _mm512_fmadd_pd(q, _mm512_cvtps_pd(_mm256_loadu_ps(x)), low);
        high = _mm512_fmadd_pd(q, _mm512_cvtps_pd(_mm256_loadu_ps(x + 8)), high);
    }
    _mm512_storeu_pd(sums, low);
    _mm512_storeu_pd(sums + 8, high);
}

std::size_t select(const float* scores, std::size_t n, float cut, std::uint32_t* indices) {
    const __m512 limit = _mm512_set1_ps(cut);
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    std::size_t count = 0;
    std::size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __mmask16 keep = _mm512_cmp_ps_mask(_mm512_loadu_ps(scores + i), limit, _CMP_GE_OQ);
        if (keep == 0) continue;
        // Compress in a register, store whole: the compressing store is slow on some processors.
        const __m512i found = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int>(i)));
        _mm512_storeu_si512(indices + count, _mm512_maskz_compress_epi32(keep, found));
        count += static_cast<std::size_t>(__builtin_popcount(keep));
    }
    for (; i < n; ++i) {
        if (scores[i] >= cut) indices[count++] = static_cast<std::uint32_t>(i);
    }
    return count;
}

}  // namespace

extern const Kernels kAvx512 = {"avx512", kQueries, scan, rescore, select};

}  // namespace deepssim::simd
