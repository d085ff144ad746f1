// What the AVX2 levels share: the frame of the scan, and the float32 product.
#pragma once

#include <immintrin.h>

#include "kernels.hpp"
#include "shared-inl.hpp"

namespace deepssim::simd {

namespace {

// Writes a hit if any of a query's 64 sums reaches the threshold; returns whether.
inline std::size_t keep_hit_avx2(const std::int32_t* all, std::int32_t threshold, std::size_t query, Hit* hit,
                                 std::int32_t* sums) {
    const __m256i limit = _mm256_set1_epi32(threshold);
    std::uint64_t discarded = 0;
    for (std::size_t j = 0; j < kGroupRows / 8; ++j) {
        const __m256i eight = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(all + 8 * j));
        const auto mask =
            static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, eight))));
        discarded |= static_cast<std::uint64_t>(mask) << (8 * j);
    }
    if (~discarded == 0) return 0;
    std::memcpy(sums, all, kGroupRows * sizeof(std::int32_t));
    *hit = {~discarded, static_cast<std::uint32_t>(query)};
    return 1;
}

// The frame of a scan, panel by panel. Tile::kQueries; Tile::scan_panel(tile of queries, panel, steps, starts,
// first row, sums) fills the sums of 16 rows.
template <class Tile>
std::size_t scan_with(const ScanJob& job, Hit* hits, std::int32_t* sums) {
    constexpr std::size_t kQueries = Tile::kQueries;
    const std::size_t panel_bytes = job.steps * kPanelStepBytes;
    std::size_t found = 0;
    for (std::size_t tile = 0; tile < job.n_tiles; ++tile) {
        std::int32_t thresholds[kQueries];
        fill_thresholds(job.query_terms + tile * kQueryTerms * kQueries, job.group_terms, kQueries, thresholds);
        alignas(32) std::int32_t all[kQueries][kGroupRows];
        const std::byte* q = job.queries + tile * kQueries * job.steps * kStepBytes;
        const std::int32_t* starts = job.starts + tile * kQueries;
        for (std::size_t p = 0; p < kGroupPanels; ++p) {
            Tile::scan_panel(q, job.group + p * panel_bytes, job.steps, starts, p * kPanelRows, all);
        }
        for (std::size_t i = 0; i < kQueries; ++i) {
            found += keep_hit_avx2(all[i], thresholds[i], tile * kQueries + i, hits + found, sums + found * kGroupRows);
        }
    }
    return found;
}

inline std::int32_t add_lanes(__m256i sum) {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    return _mm_cvtsi128_si32(four);
}

inline __m256i load32(const std::byte* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }

inline std::int32_t fine_dot_avx2(const std::int16_t* query, const std::int16_t* row, std::size_t n) {
    __m256i sum = _mm256_setzero_si256();
    for (std::size_t i = 0; i < n; i += 16) {
        const __m256i q = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(query + i));
        const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + i));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(q, x));
    }
    return add_lanes(sum);
}

inline __m256i broadcast4(const std::byte* at) {
    std::int32_t step = 0;
    std::memcpy(&step, at, kStepBytes);
    return _mm256_set1_epi32(step);
}

inline constexpr std::size_t kProductRows = 6;

inline void product(const float* tile, const float* panels, std::size_t n_panels, std::size_t dim, float* out) {
    const std::size_t n_rows = n_panels * kPanelRows;
    for (std::size_t p = 0; p < n_panels; ++p) {
        const float* x = panels + p * kPanelRows * dim;
        const float* q = tile;
        __m256 low[kProductRows];
        __m256 high[kProductRows];
#pragma GCC unroll 6
        for (std::size_t i = 0; i < kProductRows; ++i) low[i] = high[i] = _mm256_setzero_ps();
        for (std::size_t d = 0; d < dim; ++d, x += kPanelRows, q += kProductRows) {
            const __m256 x_low = _mm256_loadu_ps(x);
            const __m256 x_high = _mm256_loadu_ps(x + 8);
#pragma GCC unroll 6
            for (std::size_t i = 0; i < kProductRows; ++i) {
                const __m256 broadcast = _mm256_broadcast_ss(q + i);
                low[i] = _mm256_fmadd_ps(broadcast, x_low, low[i]);
                high[i] = _mm256_fmadd_ps(broadcast, x_high, high[i]);
            }
        }
#pragma GCC unroll 6
        for (std::size_t i = 0; i < kProductRows; ++i) {
            float* to = out + i * n_rows + p * kPanelRows;
            _mm256_storeu_ps(to, low[i]);
            _mm256_storeu_ps(to + 8, high[i]);
        }
    }
}

inline std::int64_t spin_float(std::size_t rounds) {
    __m256 sums[12];
#pragma GCC unroll 12
    for (std::size_t i = 0; i < 12; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
    __m256 x = _mm256_set1_ps(0.5F);
    for (std::size_t r = 0; r < rounds; ++r) {
        asm volatile("" : "+x"(x));
#pragma GCC unroll 12
        for (std::size_t i = 0; i < 12; ++i) sums[i] = _mm256_fmadd_ps(sums[i], x, x);
    }
#pragma GCC unroll 12
    for (std::size_t i = 0; i < 12; ++i) asm volatile("" : : "x"(sums[i]));
    return static_cast<std::int64_t>(rounds * 12 * 8);
}

}  // namespace

}  // namespace deepssim::simd
