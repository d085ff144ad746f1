// AMX int8 with AVX-512: 32 queries x 32 rows in four of the eight tile registers.
#include <immintrin.h>

#include "avx512-inl.hpp"

namespace deepssim::simd {

namespace {

constexpr std::size_t kQueries = 32;
constexpr std::size_t kHalf = 16;       // queries of one tile register
constexpr std::size_t kTileSteps = 16;  // steps of one tile register: 64 elements

constexpr std::size_t kTileBytes = kTileSteps * kStepBytes;  // of a query in one tile register

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

// Multiplies a tile of 32 queries with two panels of a group, into tile registers 0 to 3.
void multiply(const std::byte* q, const std::byte* x, std::size_t steps) {
    const std::size_t panel_bytes = steps * kPanelStepBytes;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (std::size_t s = 0; s < steps; s += kTileSteps) {
        const std::byte* block = q + s * kQueries * kStepBytes;
        _tile_loadd(4, block, kTileBytes);
        _tile_loadd(5, block + kHalf * kTileBytes, kTileBytes);
        _tile_loadd(6, x + s * kPanelStepBytes, kPanelStepBytes);
        _tile_loadd(7, x + panel_bytes + s * kPanelStepBytes, kPanelStepBytes);
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
}

// Writes what multiply() left to out[query * 64 + row of the group].
void store(std::int32_t* out) {
    constexpr std::size_t kStride = kGroupRows * sizeof(std::int32_t);
    _tile_stored(0, out, kStride);
    _tile_stored(1, out + kPanelRows, kStride);
    _tile_stored(2, out + kHalf * kGroupRows, kStride);
    _tile_stored(3, out + kHalf * kGroupRows + kPanelRows, kStride);
}

// Compares the sums of some queries of a tile with their thresholds.
std::size_t keep_hits(const ScanJob& job, const std::int32_t* all, std::size_t tile, std::size_t first,
                      std::size_t count, Hit* hits, std::int32_t* sums) {
    alignas(64) std::int32_t thresholds[kQueries];
    const double* terms = job.query_terms + tile * kQueryTerms * kQueries;
    for (std::size_t i = first; i < first + count; i += kLanes) {
        thresholds_of_8(terms, kQueries, i, kLanes, job.group_terms, thresholds + i);
    }
    std::size_t found = 0;
    for (std::size_t i = first; i < first + count; ++i) {
        const std::int32_t* row = all + i * kGroupRows;
        const __m512i rows[kGroupPanels] = {_mm512_load_si512(row), _mm512_load_si512(row + kPanelRows),
                                            _mm512_load_si512(row + 2 * kPanelRows),
                                            _mm512_load_si512(row + 3 * kPanelRows)};
        found += keep_hit(rows, thresholds[i], tile * kQueries + i, hits + found, sums + found * kGroupRows);
    }
    return found;
}

// One query alone, without tile registers. Those instructions multiply unsigned by signed bytes: the codes of rows get
// 128 more, and the sums -128 times those of the query.
std::size_t scan_one(const ScanJob& job, Hit* hits, std::int32_t* sums) {
    const std::byte* q = job.queries + job.only * kTileBytes;
    const std::size_t panel_bytes = job.steps * kPanelStepBytes;
    const __m512i offset = _mm512_set1_epi8(static_cast<char>(0x80));
    __m512i rows[kGroupPanels] = {};
    __m512i more = {};
    for (std::size_t s = 0; s < job.steps; ++s) {
        std::int32_t step = 0;
        std::memcpy(&step, q + (s / kTileSteps * kQueries * kTileSteps + s % kTileSteps) * kStepBytes, kStepBytes);
        const __m512i query = _mm512_set1_epi32(step);
        more = _mm512_dpbusd_epi32(more, offset, query);
#pragma GCC unroll 4
        for (std::size_t p = 0; p < kGroupPanels; ++p) {
            const __m512i x = _mm512_loadu_si512(job.group + p * panel_bytes + s * kPanelStepBytes);
            rows[p] = _mm512_dpbusd_epi32(rows[p], _mm512_xor_si512(x, offset), query);
        }
    }
    for (__m512i& of_panel : rows) of_panel = _mm512_sub_epi32(of_panel, more);
    alignas(32) std::int32_t thresholds[kLanes];
    thresholds_of_8(job.query_terms, kQueries, job.only / kLanes * kLanes, kLanes, job.group_terms, thresholds);
    return keep_hit(rows, thresholds[job.only % kLanes], job.only, hits, sums);
}

// Tile registers work slowly and on their own: while they multiply, the sums of the tile before are compared.
std::size_t scan(const ScanJob& job, Hit* hits, std::int32_t* sums) {
    if (job.only != ScanJob::kAll) return scan_one(job, hits, sums);
    _tile_loadconfig(&kShape);
    alignas(64) std::int32_t all[2][kQueries * kGroupRows];
    const std::size_t panel_bytes = job.steps * kPanelStepBytes;
    std::size_t found = 0;
    for (std::size_t tile = 0; tile <= job.n_tiles; ++tile) {
        const std::byte* q = job.queries + tile * kQueries * job.steps * kStepBytes;
        std::int32_t* const now = all[tile % 2];
        const std::int32_t* const before = all[1 - tile % 2];
        for (std::size_t half = 0; half < 2; ++half) {
            if (tile < job.n_tiles) multiply(q, job.group + 2 * half * panel_bytes, job.steps);
            if (tile > 0) {
                found += keep_hits(job, before, tile - 1, half * kHalf, kHalf, hits + found, sums + found * kGroupRows);
            }
            if (tile < job.n_tiles) store(now + 2 * half * kPanelRows);
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

std::int32_t fine_dot(const std::int16_t* query, const std::int16_t* row, std::size_t n) {
    return fine_dot_avx512(query, row, n);
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

extern const Kernels kAmx = {"amx",   CodeFormat::kInt8, kQueries,      kTileSteps,   kTileSteps, scan,
                             dot,     fine_dot,          quantise_body, largest_body, inner_body, kProductRows,
                             product, spin_integer,      spin_float};

}  // namespace deepssim::simd
