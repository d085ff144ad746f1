// AVX2 with FMA: 6 queries x 16 rows in 12 of the 16 vector registers.
#include <immintrin.h>

#include "kernels.hpp"

namespace deepssim::simd {

namespace {

constexpr std::size_t kQueries = 6;

void scan(const float* tile, const float* panels, std::size_t n_panels, std::size_t dim, float* scores) {
    const std::size_t n_rows = n_panels * kPanelRows;
    for (std::size_t p = 0; p < n_panels; ++p) {
        const float* x = panels + p * kPanelRows * dim;
        const float* q = tile;
        __m256 low[kQueries];
        __m256 high[kQueries];
#pragma GCC unroll 6
        for (std::size_t i = 0; i < kQueries; ++i) low[i] = high[i] = _mm256_setzero_ps();
        for (std::size_t d = 0; d < dim; ++d, x += kPanelRows, q += kQueries) {
            const __m256 x_low = _mm256_loadu_ps(x);
            const __m256 x_high = _mm256_loadu_ps(x + 8);
#pragma GCC unroll 6
            for (std::size_t i = 0; i < kQueries; ++i) {
                const __m256 broadcast = _mm256_broadcast_ss(q + i);
                low[i] = _mm256_fmadd_ps(broadcast, x_low, low[i]);
                high[i] = _mm256_fmadd_ps(broadcast, x_high, high[i]);
            }
        }
#pragma GCC unroll 6
        for (std::size_t i = 0; i < kQueries; ++i) {
            float* out = scores + i * n_rows + p * kPanelRows;
            _mm256_storeu_ps(out, low[i]);
            _mm256_storeu_ps(out + 8, high[i]);
        }
    }
}

void rescore(const float* query, const float* panel, std::size_t dim, double* sums) {
    __m256d totals[4];
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j) totals[j] = _mm256_setzero_pd();
    for (std::size_t d = 0; d < dim; ++d) {
        const __m256d q = _mm256_set1_pd(static_cast<double>(query[d]));
        const float* x = panel + d * kPanelRows;
#pragma GCC unroll 4
        for (std::size_t j = 0; j < 4; ++j) {
            totals[j] = _mm256_fmadd_pd(q, _mm256_cvtps_pd(_mm_loadu_ps(x + 4 * j)), totals[j]);
        }
    }
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j) _mm256_storeu_pd(sums + 4 * j, totals[j]);
}

std::size_t select(const float* scores, std::size_t n, float cut, std::uint32_t* indices) {
    const __m256 limit = _mm256_set1_ps(cut);
    std::size_t count = 0;
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 keep = _mm256_cmp_ps(_mm256_loadu_ps(scores + i), limit, _CMP_GE_OQ);
        auto mask = static_cast<unsigned>(_mm256_movemask_ps(keep));
        while (mask != 0) {
            indices[count++] = static_cast<std::uint32_t>(i) + static_cast<std::uint32_t>(__builtin_ctz(mask));
            mask &= mask - 1;
        }
    }
    for (; i < n; ++i) {
        if (scores[i] >= cut) indices[count++] = static_cast<std::uint32_t>(i);
    }
    return count;
}

}  // namespace

extern const Kernels kAvx2 = {"avx2", kQueries, scan, rescore, select};

}  // namespace deepssim::simd
