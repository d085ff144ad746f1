// AVX2 without VNNI: 4 queries x 16 rows in 8 of the 16 vector registers.
//
// The byte products of AVX2 saturate at 16 bits. Codes of seven bits (1 to 127 against -63 to 63) leave room for
// four products there: |sum| <= 4 * 127 * 63 = 32,004 < 2^15. Two steps are added in 16 bits before they are
// widened, five instructions for 64 products. Codes of 16 bits (multiply-add of pairs) were a third slower and
// float32 half as fast; see docs/core.md.
#include "avx2-inl.hpp"

namespace deepssim::simd {

namespace {

__m256i add_products(__m256i sum, __m256i first, __m256i second, __m256i q_first, __m256i q_second) {
    const __m256i pairs =
        _mm256_add_epi16(_mm256_maddubs_epi16(first, q_first), _mm256_maddubs_epi16(second, q_second));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

struct Tile {
    static constexpr std::size_t kQueries = 4;
    static constexpr std::size_t kTileBytes = kQueries * kStepBytes;

    static void scan_panel(const std::byte* q, const std::byte* x, std::size_t steps, const std::int32_t* starts,
                           std::size_t first_row, std::int32_t (&all)[kQueries][kGroupRows]) {
        __m256i low[kQueries];
        __m256i high[kQueries];
#pragma GCC unroll 4
        for (std::size_t i = 0; i < kQueries; ++i) low[i] = high[i] = _mm256_set1_epi32(starts[i]);
        for (std::size_t s = 0; s < steps; s += 2, x += 2 * kPanelStepBytes, q += 2 * kTileBytes) {
            const __m256i low_first = load32(x);
            const __m256i high_first = load32(x + 32);
            const __m256i low_second = load32(x + kPanelStepBytes);
            const __m256i high_second = load32(x + kPanelStepBytes + 32);
#pragma GCC unroll 4
            for (std::size_t i = 0; i < kQueries; ++i) {
                const __m256i first = broadcast4(q + i * kStepBytes);
                const __m256i second = broadcast4(q + kTileBytes + i * kStepBytes);
                low[i] = add_products(low[i], low_first, low_second, first, second);
                high[i] = add_products(high[i], high_first, high_second, first, second);
            }
        }
#pragma GCC unroll 4
        for (std::size_t i = 0; i < kQueries; ++i) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(all[i] + first_row), low[i]);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(all[i] + first_row + 8), high[i]);
        }
    }
};

std::int32_t dot(const std::byte* query, const std::byte* row, std::size_t bytes) {
    __m256i sum = _mm256_setzero_si256();
    for (std::size_t i = 0; i < bytes; i += 64) {
        sum = add_products(sum, load32(row + i), load32(row + i + 32), load32(query + i), load32(query + i + 32));
    }
    return add_lanes(sum);
}

std::int32_t fine_dot(const std::int16_t* query, const std::int16_t* row, std::size_t n) {
    return fine_dot_avx2(query, row, n);
}

std::int64_t spin_integer(std::size_t rounds) {
    __m256i sums[4];
    __m256i x[4];
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 4; ++i) sums[i] = x[i] = _mm256_set1_epi8(static_cast<char>(i));
    for (std::size_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 4
        for (std::size_t i = 0; i < 4; ++i) {
            asm volatile("" : "+x"(x[i]));  // so that no product can be taken once for all
            __m256i y = x[i];
            asm volatile("" : "+x"(y));
            sums[i] = add_products(sums[i], x[i], y, x[i], y);
        }
    }
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 4; ++i) asm volatile("" : : "x"(sums[i]));
    return static_cast<std::int64_t>(rounds * 4 * 64);
}

}  // namespace

extern const Kernels kAvx2 = {"avx2",
                              CodeFormat::kInt7Offset,
                              Tile::kQueries,
                              1,
                              2,
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
