// Inner products of the bank's templates with a thumbnail at shifts, in 8-bit integers: exact, so every level agrees.
#pragma once

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include <cstdint>

#include "align.hpp"

namespace deepssim::simd {

namespace {

inline constexpr int kBankStep = static_cast<int>(kBankLanes);

#ifdef __AVX2__

// The image is below 128, so that the sums of two products keep within 16 bits where there are no better instructions.
inline __m256i add_products(__m256i sum, __m256i image, __m256i shown) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return _mm256_dpbusd_epi32(sum, image, shown);
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(image, shown), _mm256_set1_epi16(1)));
#endif
}

inline std::int32_t sum_of(__m256i lanes) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1));
    return _mm_cvtsi128_si32(half);
}

inline __m256i load_bytes(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }

// As many templates together as their sums fit into registers.
#ifdef __AVX512F__
inline constexpr std::ptrdiff_t kBankTogether = 2;
#else
inline constexpr std::ptrdiff_t kBankTogether = 1;
#endif

inline void bank_body(const BankJob& job) {
    const std::ptrdiff_t size = static_cast<std::ptrdiff_t>(job.rows) * job.width;
    for (std::ptrdiff_t t = 0; t < job.n_templates; t += kBankTogether) {
        for (std::ptrdiff_t dy = 0; dy < job.n_row_shifts; ++dy) {
            __m256i sums[kBankTogether][kBankShifts];
            for (auto& of_template : sums) {
                for (__m256i& sum : of_template) sum = _mm256_setzero_si256();
            }
            for (std::ptrdiff_t y = 0; y < job.rows; ++y) {
                const std::uint8_t* image = job.image + (y + dy * job.row_step) * job.image_stride;
                const std::int8_t* shown = job.templates + t * size + y * job.width;
                for (std::ptrdiff_t x = 0; x < job.width; x += kBankStep) {
#pragma GCC unroll 2
                    for (std::ptrdiff_t k = 0; k < kBankTogether; ++k) {
                        const __m256i bytes = load_bytes(shown + k * size + x);
#pragma GCC unroll 7
                        for (std::ptrdiff_t dx = 0; dx < kBankShifts; ++dx) {
                            sums[k][dx] = add_products(sums[k][dx], load_bytes(image + x + dx), bytes);
                        }
                    }
                }
            }
            for (std::ptrdiff_t k = 0; k < kBankTogether; ++k) {
                std::int32_t* out = job.out + ((t + k) * job.n_row_shifts + dy) * kBankShifts;
                for (std::ptrdiff_t dx = 0; dx < kBankShifts; ++dx) out[dx] = sum_of(sums[k][dx]);
            }
        }
    }
}

#else

inline void bank_body(const BankJob& job) {
    const std::ptrdiff_t size = static_cast<std::ptrdiff_t>(job.rows) * job.width;
    std::int32_t* out = job.out;
    for (std::ptrdiff_t t = 0; t < job.n_templates; ++t) {
        for (std::ptrdiff_t dy = 0; dy < job.n_row_shifts; ++dy) {
            for (std::ptrdiff_t dx = 0; dx < kBankShifts; ++dx, ++out) {
                std::int32_t sum = 0;
                for (std::ptrdiff_t y = 0; y < job.rows; ++y) {
                    const std::uint8_t* image = job.image + (y + dy * job.row_step) * job.image_stride + dx;
                    const std::int8_t* shown = job.templates + t * size + y * job.width;
                    for (std::ptrdiff_t x = 0; x < job.width; ++x) sum += std::int32_t{image[x]} * shown[x];
                }
                *out = sum;
            }
        }
    }
}

#endif

}  // namespace

}  // namespace deepssim::simd
