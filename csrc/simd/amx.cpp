// AMX int8 with AVX-512: 32 queries x 32 rows in four of the eight tile registers.
#include <immintrin.h>

#include "avx512-inl.hpp"

namespace deepssim::simd {

namespace {

constexpr std::size_t kQueries = 32;
constexpr std::size_t kHalf = 16;       // queries of one tile register
constexpr std::size_t kTileSteps = 16;  // steps of one tile register: 64 elements

// All tile registers: 16 rows of 64 bytes.
struct TileShape {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Static: g++ 12 does not see that loading the configuration reads all of it, and drops stores to a local.
constexpr TileShape kShape;

// Sums of a tile of 32 queries and two panels of a group into out[query * 64 + row of the group].
void two_panels(const std::byte* q, const std::byte* x, std::size_t steps, std::int32_t* out) {
    const std::size_t query_bytes = steps * kStepBytes;
    const std::size_t panel_bytes = steps * kPanelStepBytes;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (std::size_t s = 0; s < steps; s += kTileSteps) {
        _tile_loadd(4, q + s * kStepBytes, query_bytes);
        _tile_loadd(5, q + kHalf * query_bytes + s * kStepBytes, query_bytes);
        _tile_loadd(6, x + s * kPanelStepBytes, kPanelStepBytes);
        _tile_loadd(7, x + panel_bytes + s * kPanelStepBytes, kPanelStepBytes);
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    constexpr std::size_t kStride = kGroupRows * sizeof(std::int32_t);
    _tile_stored(0, out, kStride);
    _tile_stored(1, out + kPanelRows, kStride);
    _tile_stored(2, out + kHalf * kGroupRows, kStride);
    _tile_stored(3, out + kHalf * kGroupRows + kPanelRows, kStride);
}

std::size_t scan(const ScanJob& job, Hit* hits, std::int32_t* sums) {
    _tile_loadconfig(&kShape);
    alignas(64) std::int32_t all[kQueries * kGroupRows];
    alignas(64) std::int32_t thresholds[kQueries];
    const std::size_t panel_bytes = job.steps * kPanelStepBytes;
    std::size_t found = 0;
    for (std::size_t tile = 0; tile < job.n_tiles; ++tile) {
        const std::byte* q = job.queries + tile * kQueries * job.steps * kStepBytes;
        two_panels(q, job.group, job.steps, all);
        two_panels(q, job.group + 2 * panel_bytes, job.steps, all + 2 * kPanelRows);
        const double* terms = job.query_terms + tile * kQueryTerms * kQueries;
        for (std::size_t i = 0; i < kQueries; i += kLanes) {
            thresholds_of_8(terms, kQueries, i, kLanes, job.group_terms, thresholds + i);
        }
        for (std::size_t i = 0; i < kQueries; ++i) {
            const std::int32_t* row = all + i * kGroupRows;
            const __m512i rows[kGroupPanels] = {_mm512_load_si512(row), _mm512_load_si512(row + kPanelRows),
                                                _mm512_load_si512(row + 2 * kPanelRows),
                                                _mm512_load_si512(row + 3 * kPanelRows)};
            found += keep_hit(rows, thresholds[i], tile * kQueries + i, hits + found, sums + found * kGroupRows);
        }
    }
    _tile_release();
    return found;
}

std::int32_t dot(const std::byte* query, const std::byte* row, std::size_t bytes) {
    __m512i sum = _mm512_setzero_si512();
    for (std::size_t i = 0; i < bytes; i += 32) {
        const __m512i q = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(query + i)));
        const __m512i x = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + i)));
        sum = _mm512_dpwssd_epi32(sum, q, x);
    }
    return _mm512_reduce_add_epi32(sum);
}

std::int64_t spin_integer(std::size_t rounds) {
    _tile_loadconfig(&kShape);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    for (std::size_t r = 0; r < rounds; ++r) {
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 5);
        _tile_dpbssd(2, 4, 5);
        _tile_dpbssd(3, 4, 5);
    }
    _tile_release();
    return static_cast<std::int64_t>(rounds * 4 * 16 * 16 * 64);
}

}  // namespace

extern const Kernels kAmx = {"amx",        CodeFormat::kInt8, kQueries,     true,       kTileSteps,   scan,
                             dot,          quantise_body,     largest_body, inner_body, kProductRows, product,
                             spin_integer, spin_float};

}  // namespace deepssim::simd
