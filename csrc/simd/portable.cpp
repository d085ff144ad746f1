// Plain C++: runs anywhere, and is what the other levels are compared with.
#include "kernels.hpp"
#include "shared-inl.hpp"

namespace deepssim::simd {

namespace {

constexpr std::size_t kQueries = 4;
constexpr std::size_t kElements = 4;  // of a step

std::size_t scan(const ScanJob& job, Hit* hits, std::int32_t* sums) {
    std::size_t found = 0;
    for (std::size_t tile = 0; tile < job.n_tiles; ++tile) {
        const auto* queries =
            reinterpret_cast<const std::int8_t*>(job.queries) + tile * kQueries * job.steps * kStepBytes;
        std::int32_t thresholds[kQueries];
        fill_thresholds(job.query_terms + tile * kQueryTerms * kQueries, job.group_terms, kQueries, thresholds);
        std::int32_t all[kQueries][kGroupRows] = {};
        for (std::size_t p = 0; p < kGroupPanels; ++p) {
            const auto* x = reinterpret_cast<const std::int8_t*>(job.group) + p * job.steps * kPanelStepBytes;
            for (std::size_t s = 0; s < job.steps; ++s, x += kPanelStepBytes) {
                for (std::size_t i = 0; i < kQueries; ++i) {
                    const std::int8_t* q = queries + (s * kQueries + i) * kStepBytes;
                    for (std::size_t lane = 0; lane < kPanelRows; ++lane) {
                        std::int32_t sum = 0;
                        for (std::size_t e = 0; e < kElements; ++e) sum += q[e] * x[lane * kStepBytes + e];
                        all[i][p * kPanelRows + lane] += sum;
                    }
                }
            }
        }
        for (std::size_t i = 0; i < kQueries; ++i) {
            found += keep_hit(all[i], thresholds[i], tile * kQueries + i, hits + found, sums + found * kGroupRows);
        }
    }
    return found;
}

std::int32_t dot(const std::byte* query, const std::byte* row, std::size_t bytes) {
    const auto* q = reinterpret_cast<const std::int8_t*>(query);
    const auto* x = reinterpret_cast<const std::int8_t*>(row);
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < bytes; ++i) sum += q[i] * x[i];
    return sum;
}

std::int32_t fine_dot(const std::int16_t* query, const std::int16_t* row, std::size_t n) {
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += query[i] * row[i];
    return sum;
}

constexpr std::size_t kProductRows = 4;

void product(const float* tile, const float* panels, std::size_t n_panels, std::size_t dim, float* out) {
    const std::size_t n_rows = n_panels * kPanelRows;
    for (std::size_t p = 0; p < n_panels; ++p) {
        const float* panel = panels + p * kPanelRows * dim;
        float sums[kProductRows][kPanelRows] = {};
        for (std::size_t d = 0; d < dim; ++d) {
            const float* x = panel + d * kPanelRows;
            const float* q = tile + d * kProductRows;
            for (std::size_t i = 0; i < kProductRows; ++i) {
                for (std::size_t lane = 0; lane < kPanelRows; ++lane) sums[i][lane] += q[i] * x[lane];
            }
        }
        for (std::size_t i = 0; i < kProductRows; ++i) {
            std::memcpy(out + i * n_rows + p * kPanelRows, sums[i], sizeof(sums[i]));
        }
    }
}

std::int64_t spin_integer(std::size_t rounds) {
    std::int32_t sums[kPanelRows] = {};
    for (std::size_t r = 0; r < rounds; ++r) {
        for (std::size_t lane = 0; lane < kPanelRows; ++lane) {
            sums[lane] += static_cast<std::int32_t>(lane) * static_cast<std::int32_t>(r & 127U);
        }
        asm volatile("" : : "r"(sums) : "memory");
    }
    return static_cast<std::int64_t>(rounds * kPanelRows);
}

std::int64_t spin_float(std::size_t rounds) {
    float sums[kPanelRows] = {};
    for (std::size_t r = 0; r < rounds; ++r) {
        for (std::size_t lane = 0; lane < kPanelRows; ++lane) sums[lane] = sums[lane] * 0.5F + 1.0F;
        asm volatile("" : : "r"(sums) : "memory");
    }
    return static_cast<std::int64_t>(rounds * kPanelRows);
}

}  // namespace

extern const Kernels kPortable = {"portable",
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
