// Plain C++: runs anywhere, and is what the other levels are compared with.
#include "kernels.hpp"

namespace deepssim::simd {

namespace {

constexpr std::size_t kQueries = 4;

void scan(const float* tile, const float* panels, std::size_t n_panels, std::size_t dim, float* scores) {
    const std::size_t n_rows = n_panels * kPanelRows;
    for (std::size_t p = 0; p < n_panels; ++p) {
        const float* panel = panels + p * kPanelRows * dim;
        float sums[kQueries][kPanelRows] = {};
        for (std::size_t d = 0; d < dim; ++d) {
            const float* x = panel + d * kPanelRows;
            const float* q = tile + d * kQueries;
            for (std::size_t i = 0; i < kQueries; ++i) {
                for (std::size_t lane = 0; lane < kPanelRows; ++lane) sums[i][lane] += q[i] * x[lane];
            }
        }
        for (std::size_t i = 0; i < kQueries; ++i) {
            float* out = scores + i * n_rows + p * kPanelRows;
            for (std::size_t lane = 0; lane < kPanelRows; ++lane) out[lane] = sums[i][lane];
        }
    }
}

void rescore(const float* query, const float* panel, std::size_t dim, double* sums) {
    double totals[kPanelRows] = {};
    for (std::size_t d = 0; d < dim; ++d) {
        const auto q = static_cast<double>(query[d]);
        const float* x = panel + d * kPanelRows;
        for (std::size_t lane = 0; lane < kPanelRows; ++lane) totals[lane] += q * static_cast<double>(x[lane]);
    }
    for (std::size_t lane = 0; lane < kPanelRows; ++lane) sums[lane] = totals[lane];
}

std::size_t select(const float* scores, std::size_t n, float cut, std::uint32_t* indices) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; ++i) {
        indices[count] = static_cast<std::uint32_t>(i);
        count += scores[i] >= cut ? 1U : 0U;
    }
    return count;
}

}  // namespace

extern const Kernels kPortable = {"portable", kQueries, scan, rescore, select};

}  // namespace deepssim::simd
