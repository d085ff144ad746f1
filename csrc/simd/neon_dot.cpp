// aarch64 NEON with the dot-product instructions: 6 queries x 16 rows in 24 of the 32 vector registers.
#include <arm_neon.h>

#include "kernels.hpp"
#include "shared-inl.hpp"

namespace deepssim::simd {

namespace {

constexpr std::size_t kQueries = 6;
constexpr std::size_t kQuads = 4;  // registers of four rows in a panel

const std::int8_t* bytes_of(const std::byte* at) { return reinterpret_cast<const std::int8_t*>(at); }

void scan_panel(const std::byte* q, const std::byte* x, std::size_t steps, std::size_t first_row,
                std::int32_t (&all)[kQueries][kGroupRows]) {
    int32x4_t sums[kQueries][kQuads] = {};
    for (std::size_t s = 0; s < steps; ++s, x += kPanelStepBytes, q += kQueries * kStepBytes) {
        int8x16_t rows[kQuads];
#pragma GCC unroll 4
        for (std::size_t j = 0; j < kQuads; ++j) rows[j] = vld1q_s8(bytes_of(x) + 16 * j);
#pragma GCC unroll 6
        for (std::size_t i = 0; i < kQueries; ++i) {
            std::int32_t step = 0;
            std::memcpy(&step, q + i * kStepBytes, kStepBytes);
            const int8x16_t query = vreinterpretq_s8_s32(vdupq_n_s32(step));
#pragma GCC unroll 4
            for (std::size_t j = 0; j < kQuads; ++j) sums[i][j] = vdotq_s32(sums[i][j], rows[j], query);
        }
    }
#pragma GCC unroll 6
    for (std::size_t i = 0; i < kQueries; ++i) {
#pragma GCC unroll 4
        for (std::size_t j = 0; j < kQuads; ++j) vst1q_s32(all[i] + first_row + 4 * j, sums[i][j]);
    }
}

std::size_t scan(const ScanJob& job, Hit* hits, std::int32_t* sums) {
    const std::size_t panel_bytes = job.steps * kPanelStepBytes;
    std::size_t found = 0;
    for (std::size_t tile = 0; tile < job.n_tiles; ++tile) {
        std::int32_t thresholds[kQueries];
        fill_thresholds(job.query_terms + tile * kQueryTerms * kQueries, job.group_terms, kQueries, thresholds);
        std::int32_t all[kQueries][kGroupRows];
        const std::byte* q = job.queries + tile * kQueries * job.steps * kStepBytes;
        for (std::size_t p = 0; p < kGroupPanels; ++p) {
            scan_panel(q, job.group + p * panel_bytes, job.steps, p * kPanelRows, all);
        }
        for (std::size_t i = 0; i < kQueries; ++i) {
            int32x4_t most = vld1q_s32(all[i]);
            for (std::size_t j = 4; j < kGroupRows; j += 4) most = vmaxq_s32(most, vld1q_s32(all[i] + j));
            if (vmaxvq_s32(most) < thresholds[i]) continue;
            found += keep_hit(all[i], thresholds[i], tile * kQueries + i, hits + found, sums + found * kGroupRows);
        }
    }
    return found;
}

std::int32_t dot(const std::byte* query, const std::byte* row, std::size_t bytes) {
    int32x4_t sum = vdupq_n_s32(0);
    for (std::size_t i = 0; i < bytes; i += 16) {
        sum = vdotq_s32(sum, vld1q_s8(bytes_of(row) + i), vld1q_s8(bytes_of(query) + i));
    }
    return vaddvq_s32(sum);
}

std::int32_t fine_dot(const std::int16_t* query, const std::int16_t* row, std::size_t n) {
    int32x4_t sum = vdupq_n_s32(0);
    for (std::size_t i = 0; i < n; i += 8) {
        const int16x8_t q = vld1q_s16(query + i);
        const int16x8_t x = vld1q_s16(row + i);
        sum = vmlal_s16(sum, vget_low_s16(q), vget_low_s16(x));
        sum = vmlal_high_s16(sum, q, x);
    }
    return vaddvq_s32(sum);
}

constexpr std::size_t kProductRows = 6;

void product(const float* tile, const float* panels, std::size_t n_panels, std::size_t dim, float* out) {
    const std::size_t n_rows = n_panels * kPanelRows;
    for (std::size_t p = 0; p < n_panels; ++p) {
        const float* x = panels + p * kPanelRows * dim;
        const float* q = tile;
        float32x4_t sums[kProductRows][kQuads] = {};
        for (std::size_t d = 0; d < dim; ++d, x += kPanelRows, q += kProductRows) {
#pragma GCC unroll 6
            for (std::size_t i = 0; i < kProductRows; ++i) {
#pragma GCC unroll 4
                for (std::size_t j = 0; j < kQuads; ++j) {
                    sums[i][j] = vfmaq_n_f32(sums[i][j], vld1q_f32(x + 4 * j), q[i]);
                }
            }
        }
        for (std::size_t i = 0; i < kProductRows; ++i) {
            for (std::size_t j = 0; j < kQuads; ++j) vst1q_f32(out + i * n_rows + p * kPanelRows + 4 * j, sums[i][j]);
        }
    }
}

std::int64_t spin_integer(std::size_t rounds) {
    int32x4_t sums[24] = {};
    int8x16_t x = vdupq_n_s8(1);
    for (std::size_t r = 0; r < rounds; ++r) {
        asm volatile("" : "+w"(x));
#pragma GCC unroll 24
        for (std::size_t i = 0; i < 24; ++i) sums[i] = vdotq_s32(sums[i], x, x);
    }
#pragma GCC unroll 24
    for (std::size_t i = 0; i < 24; ++i) asm volatile("" : : "w"(sums[i]));
    return static_cast<std::int64_t>(rounds * 24 * 16);
}

std::int64_t spin_float(std::size_t rounds) {
    float32x4_t sums[24] = {};
    float32x4_t x = vdupq_n_f32(0.5F);
    for (std::size_t r = 0; r < rounds; ++r) {
        asm volatile("" : "+w"(x));
#pragma GCC unroll 24
        for (std::size_t i = 0; i < 24; ++i) sums[i] = vfmaq_f32(sums[i], x, x);
    }
#pragma GCC unroll 24
    for (std::size_t i = 0; i < 24; ++i) asm volatile("" : : "w"(sums[i]));
    return static_cast<std::int64_t>(rounds * 24 * 4);
}

}  // namespace

extern const Kernels kNeonDot = {"neondot",
                                 CodeFormat::kInt8,
                                 kQueries,
                                 1,
                                 1,
                                 scan,
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
