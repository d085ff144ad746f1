// AVX2 with AVX-VNNI: 6 queries x 16 rows in 12 of the 16 vector registers.
#include "avx2-inl.hpp"

namespace deepssim::simd {

namespace {

struct Tile {
    static constexpr std::size_t kQueries = 6;

    static void scan_panel(const std::byte* q, const std::byte* x, std::size_t steps, const std::int32_t* starts,
                           std::size_t first_row, std::int32_t (&all)[kQueries][kGroupRows]) {
        __m256i low[kQueries];
        __m256i high[kQueries];
#pragma GCC unroll 6
        for (std::size_t i = 0; i < kQueries; ++i) low[i] = high[i] = _mm256_set1_epi32(starts[i]);
        for (std::size_t s = 0; s < steps; ++s, x += kPanelStepBytes, q += kQueries * kStepBytes) {
            const __m256i x_low = load32(x);
            const __m256i x_high = load32(x + 32);
#pragma GCC unroll 6
            for (std::size_t i = 0; i < kQueries; ++i) {
                const __m256i broadcast = broadcast4(q + i * kStepBytes);
                low[i] = _mm256_dpbusd_avx_epi32(low[i], x_low, broadcast);
                high[i] = _mm256_dpbusd_avx_epi32(high[i], x_high, broadcast);
            }
        }
#pragma GCC unroll 6
        for (std::size_t i = 0; i < kQueries; ++i) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(all[i] + first_row), low[i]);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(all[i] + first_row + 8), high[i]);
        }
    }
};

std::int32_t dot(const std::byte* query, const std::byte* row, std::size_t bytes) {
    __m256i sum = _mm256_setzero_si256();
    for (std::size_t i = 0; i < bytes; i += 32) {
        sum = _mm256_dpbusd_avx_epi32(sum, load32(row + i), load32(query + i));
    }
    return add_lanes(sum);
}

std::int32_t fine_dot(const std::int16_t* query, const std::int16_t* row, std::size_t n) {
    return fine_dot_avx2(query, row, n);
}

std::int64_t spin_integer(std::size_t rounds) {
    __m256i sums[12];
#pragma GCC unroll 12
    for (std::size_t i = 0; i < 12; ++i) sums[i] = _mm256_set1_epi32(static_cast<int>(i));
    __m256i x = _mm256_set1_epi32(0x01010101);
    for (std::size_t r = 0; r < rounds; ++r) {
        asm volatile("" : "+x"(x));  // so that no round can be left out
#pragma GCC unroll 12
        for (std::size_t i = 0; i < 12; ++i) sums[i] = _mm256_dpbusd_avx_epi32(sums[i], x, x);
    }
#pragma GCC unroll 12
    for (std::size_t i = 0; i < 12; ++i) asm volatile("" : : "x"(sums[i]));
    return static_cast<std::int64_t>(rounds * 12 * 32);
}

}  // namespace

extern const Kernels kAvxVnni = {"avxvnni",
                                 CodeFormat::kInt8Offset,
                                 Tile::kQueries,
                                 1,
                                 1,
                                 scan_with<Tile>,
                                 dot,
                                 fine_dot,
                                 quantise_body,
                                 largest_body,
                                 inner_body,
                                 kProductRows,
                                 product,
                                 spin_integer,
                                 spin_float};

}  // namespace deepssim::simd
