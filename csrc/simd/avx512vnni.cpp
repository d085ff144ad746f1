// AVX-512 with VNNI: 6 queries x 64 rows in 24 of the 32 vector registers.
#include <immintrin.h>

#include "avx512-inl.hpp"

namespace deepssim::simd {

namespace {

constexpr std::size_t kQueries = 6;

// sum += rows . query, four bytes a lane. In assembly, since g++ 12 does not keep 24 sums in registers when
// they go through its intrinsic: the scan then runs at two fifths of its speed.
inline void add_products(__m512i& sum, const __m512i& rows, const __m512i& query) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(rows), "v"(query));
}

std::size_t scan(const ScanJob& job, Hit* hits, std::int32_t* sums) {
    std::size_t found = 0;
    const std::size_t panel_bytes = job.steps * kPanelStepBytes;
    for (std::size_t tile = 0; tile < job.n_tiles; ++tile) {
        const std::byte* x = job.group;
        const std::byte* q = job.queries + tile * kQueries * job.steps * kStepBytes;
        const std::int32_t* start = job.starts + tile * kQueries;
        __m512i a[kQueries];
        __m512i b[kQueries];
        __m512i c[kQueries];
        __m512i d[kQueries];
#pragma GCC unroll 6
        for (std::size_t i = 0; i < kQueries; ++i) a[i] = b[i] = c[i] = d[i] = _mm512_set1_epi32(start[i]);
        for (std::size_t s = 0; s < job.steps; ++s, x += kPanelStepBytes, q += kQueries * kStepBytes) {
            const __m512i x0 = _mm512_loadu_si512(x);
            const __m512i x1 = _mm512_loadu_si512(x + panel_bytes);
            const __m512i x2 = _mm512_loadu_si512(x + 2 * panel_bytes);
            const __m512i x3 = _mm512_loadu_si512(x + 3 * panel_bytes);
#pragma GCC unroll 6
            for (std::size_t i = 0; i < kQueries; ++i) {
                std::int32_t step = 0;
                std::memcpy(&step, q + i * kStepBytes, kStepBytes);
                const __m512i broadcast = _mm512_set1_epi32(step);
                add_products(a[i], x0, broadcast);
                add_products(b[i], x1, broadcast);
                add_products(c[i], x2, broadcast);
                add_products(d[i], x3, broadcast);
            }
        }
        alignas(32) std::int32_t thresholds[kLanes];
        thresholds_of_8(job.query_terms + tile * kQueryTerms * kQueries, kQueries, 0, kQueries, job.group_terms,
                        thresholds);
#pragma GCC unroll 6
        for (std::size_t i = 0; i < kQueries; ++i) {
            const __m512i rows[kGroupPanels] = {a[i], b[i], c[i], d[i]};
            found += keep_hit(rows, thresholds[i], tile * kQueries + i, hits + found, sums + found * kGroupRows);
        }
    }
    return found;
}

std::int32_t dot(const std::byte* query, const std::byte* row, std::size_t bytes) {
    __m512i sum = _mm512_setzero_si512();
    for (std::size_t i = 0; i < bytes; i += 64) {
        sum = _mm512_dpbusd_epi32(sum, _mm512_loadu_si512(row + i), _mm512_loadu_si512(query + i));
    }
    return _mm512_reduce_add_epi32(sum);
}

std::int32_t fine_dot(const std::int16_t* query, const std::int16_t* row, std::size_t n) {
    return fine_dot_avx512(query, row, n);
}

std::int64_t spin_integer(std::size_t rounds) {
    __m512i sums[24];
#pragma GCC unroll 24
    for (std::size_t i = 0; i < 24; ++i) sums[i] = _mm512_set1_epi32(static_cast<int>(i));
    __m512i x = _mm512_set1_epi32(0x01010101);
    for (std::size_t r = 0; r < rounds; ++r) {
        asm volatile("" : "+v"(x));  // so that no round can be left out
#pragma GCC unroll 24
        for (std::size_t i = 0; i < 24; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], x, x);
    }
#pragma GCC unroll 24
    for (std::size_t i = 0; i < 24; ++i) asm volatile("" : : "v"(sums[i]));
    return static_cast<std::int64_t>(rounds * 24 * 64);
}

}  // namespace

extern const Kernels kAvx512Vnni = {"avx512vnni",
                                    CodeFormat::kInt8Offset,
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
