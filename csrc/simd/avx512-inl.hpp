// What the AVX-512 levels share: the float32 product, and thresholds eight at a time.
#pragma once

#include <immintrin.h>

#include "kernels.hpp"
#include "shared-inl.hpp"

namespace deepssim::simd {

namespace {

// fill_thresholds for queries [first, first + count) of a tile, count <= 8.
inline void thresholds_of_8(const double* query, std::size_t tile, std::size_t first, std::size_t count,
                            const double* group, std::int32_t* out) {
    const auto lanes = static_cast<__mmask8>((1U << count) - 1U);
    const auto term = [&](std::size_t t) { return _mm512_maskz_loadu_pd(lanes, query + t * tile + first); };
    const __m512d reverse =
        _mm512_mul_pd(_mm512_sub_pd(_mm512_set1_pd(group[kRowCut]), term(kReverseOffset)), term(kReverseFactor));
    __m512d limit = _mm512_mul_pd(_mm512_min_pd(reverse, term(kCut)), _mm512_set1_pd(group[kInverseScale]));
#pragma GCC unroll 6
    for (std::size_t t = 0; t < kSlacks; ++t) {
        limit = _mm512_fnmadd_pd(term(kSlack + t), _mm512_set1_pd(group[kBound + t]), limit);
    }
    limit = _mm512_max_pd(limit, _mm512_set1_pd(-2147483648.0));
    limit = _mm512_min_pd(limit, _mm512_set1_pd(2147483647.0));
    const __m256i whole = _mm512_cvt_roundpd_epi32(limit, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), whole);
}

// Writes a hit if any of a query's 64 sums reaches the threshold; returns whether.
inline std::size_t keep_hit(const __m512i (&rows)[kGroupPanels], std::int32_t threshold, std::size_t query, Hit* hit,
                            std::int32_t* sums) {
    const __m512i limit = _mm512_set1_epi32(threshold);
    const __m512i most = _mm512_max_epi32(_mm512_max_epi32(rows[0], rows[1]), _mm512_max_epi32(rows[2], rows[3]));
    if (_mm512_cmpge_epi32_mask(most, limit) == 0) return 0;
    const std::uint64_t low =
        _mm512_kunpackw(_mm512_cmpge_epi32_mask(rows[1], limit), _mm512_cmpge_epi32_mask(rows[0], limit));
    const std::uint64_t high =
        _mm512_kunpackw(_mm512_cmpge_epi32_mask(rows[3], limit), _mm512_cmpge_epi32_mask(rows[2], limit));
    *hit = {low | high << 32, static_cast<std::uint32_t>(query)};
#pragma GCC unroll 4
    for (std::size_t p = 0; p < kGroupPanels; ++p) _mm512_storeu_si512(sums + p * kPanelRows, rows[p]);
    return 1;
}

inline std::int32_t fine_dot_avx512(const std::int16_t* query, const std::int16_t* row, std::size_t n) {
    __m512i sum = _mm512_setzero_si512();
    for (std::size_t i = 0; i < n; i += 32) {
        sum = _mm512_dpwssd_epi32(sum, _mm512_loadu_si512(query + i), _mm512_loadu_si512(row + i));
    }
    return _mm512_reduce_add_epi32(sum);
}

// 12 rows x 32 (two panels) in 24 of the 32 vector registers.
inline constexpr std::size_t kProductRows = 12;

inline void product_one(const float* tile, const float* panel, std::size_t dim, float* out, std::size_t n_rows) {
    const float* q = tile;
    __m512 sums[kProductRows];
#pragma GCC unroll 12
    for (std::size_t i = 0; i < kProductRows; ++i) sums[i] = _mm512_setzero_ps();
    for (std::size_t d = 0; d < dim; ++d, q += kProductRows) {
        const __m512 x = _mm512_loadu_ps(panel + d * kPanelRows);
#pragma GCC unroll 12
        for (std::size_t i = 0; i < kProductRows; ++i) {
            sums[i] = _mm512_fmadd_ps(_mm512_set1_ps(q[i]), x, sums[i]);
        }
    }
#pragma GCC unroll 12
    for (std::size_t i = 0; i < kProductRows; ++i) _mm512_storeu_ps(out + i * n_rows, sums[i]);
}

inline void product(const float* tile, const float* panels, std::size_t n_panels, std::size_t dim, float* out) {
    const std::size_t n_rows = n_panels * kPanelRows;
    std::size_t p = 0;
    for (; p + 2 <= n_panels; p += 2) {
        const float* x = panels + p * kPanelRows * dim;
        const float* y = x + kPanelRows * dim;
        const float* q = tile;
        __m512 first[kProductRows];
        __m512 second[kProductRows];
#pragma GCC unroll 12
        for (std::size_t i = 0; i < kProductRows; ++i) first[i] = second[i] = _mm512_setzero_ps();
        for (std::size_t d = 0; d < dim; ++d, x += kPanelRows, y += kPanelRows, q += kProductRows) {
            const __m512 rows = _mm512_loadu_ps(x);
            const __m512 more = _mm512_loadu_ps(y);
#pragma GCC unroll 12
            for (std::size_t i = 0; i < kProductRows; ++i) {
                const __m512 broadcast = _mm512_set1_ps(q[i]);
                first[i] = _mm512_fmadd_ps(broadcast, rows, first[i]);
                second[i] = _mm512_fmadd_ps(broadcast, more, second[i]);
            }
        }
#pragma GCC unroll 12
        for (std::size_t i = 0; i < kProductRows; ++i) {
            float* to = out + i * n_rows + p * kPanelRows;
            _mm512_storeu_ps(to, first[i]);
            _mm512_storeu_ps(to + kPanelRows, second[i]);
        }
    }
    if (p < n_panels) {
        product_one(tile, panels + p * kPanelRows * dim, dim, out + p * kPanelRows, n_rows);
    }
}

inline std::int64_t spin_float(std::size_t rounds) {
    __m512 sums[24];
#pragma GCC unroll 24
    for (std::size_t i = 0; i < 24; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
    __m512 x = _mm512_set1_ps(0.5F);
    for (std::size_t r = 0; r < rounds; ++r) {
        asm volatile("" : "+v"(x));
#pragma GCC unroll 24
        for (std::size_t i = 0; i < 24; ++i) sums[i] = _mm512_fmadd_ps(sums[i], x, x);
    }
#pragma GCC unroll 24
    for (std::size_t i = 0; i < 24; ++i) asm volatile("" : : "v"(sums[i]));
    return static_cast<std::int64_t>(rounds * 24 * 16);
}

}  // namespace

}  // namespace deepssim::simd
