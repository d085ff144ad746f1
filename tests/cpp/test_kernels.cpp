#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "deepssim/exact.hpp"
#include "deepssim/isa.hpp"
#include "oracle.hpp"
#include "simd/kernels.hpp"

namespace deepssim {

namespace {

using simd::Kernels;
using simd::kPanelRows;
using testing::Kind;
using testing::make_rows;
using testing::Rng;
using testing::Rows;

// Round the widths of vectors, unrolled loops and caches.
constexpr std::size_t kDims[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 257};

std::vector<float> pack_tile(const Rows& queries, std::size_t tile) {
    std::vector<float> packed(tile * queries.cols);
    for (std::size_t i = 0; i < tile; ++i) {
        for (std::size_t d = 0; d < queries.cols; ++d) packed[d * tile + i] = queries.row(i)[d];
    }
    return packed;
}

std::vector<float> pack_panels(const Rows& base) {
    std::vector<float> packed(base.rows * base.cols);
    for (std::size_t r = 0; r < base.rows; ++r) {
        float* panel = packed.data() + r / kPanelRows * kPanelRows * base.cols;
        for (std::size_t d = 0; d < base.cols; ++d) panel[d * kPanelRows + r % kPanelRows] = base.row(r)[d];
    }
    return packed;
}

double plain_sum(const float* a, const float* b, std::size_t dim) {
    double sum = 0.0;
    for (std::size_t d = 0; d < dim; ++d) sum += static_cast<double>(a[d]) * static_cast<double>(b[d]);
    return sum;
}

// Scans and counts the scores that differ from the float64 sums by more than `factor` * |q| * |x| + `absolute`.
int count_wrong(const Kernels& kernels, const Rows& queries, const Rows& base, double factor, double absolute) {
    const std::size_t dim = base.cols;
    const std::vector<float> tile = pack_tile(queries, kernels.tile_queries);
    const std::vector<float> panels = pack_panels(base);
    constexpr float kUnset = 1e30F;
    std::vector<float> scores(kernels.tile_queries * base.rows, kUnset);
    kernels.scan(tile.data(), panels.data(), base.rows / kPanelRows, dim, scores.data());
    int wrong = 0;
    for (std::size_t i = 0; i < kernels.tile_queries; ++i) {
        for (std::size_t r = 0; r < base.rows; ++r) {
            const double expected = plain_sum(queries.row(i), base.row(r), dim);
            const double allowed = factor * norm_upper_bound(queries.row(i), dim) * norm_upper_bound(base.row(r), dim);
            const double error = std::fabs(static_cast<double>(scores[i * base.rows + r]) - expected);
            wrong += error <= allowed + absolute ? 0 : 1;
        }
    }
    return wrong;
}

}  // namespace

TEST_SUITE_BEGIN("kernels");

TEST_CASE("scans of small integers are equal to a plain loop") {
    for (const std::string& level : supported_isa_levels()) {
        const Kernels& kernels = simd::kernels_for(level.c_str());
        REQUIRE(kernels.tile_queries <= simd::kMaxTileQueries);
        for (const std::size_t dim : kDims) {
            for (std::size_t panels = 1; panels <= 5; ++panels) {
                CAPTURE(level);
                CAPTURE(dim);
                CAPTURE(panels);
                const Rows queries = make_rows(Kind::kIntegers, kernels.tile_queries, dim, dim);
                const Rows base = make_rows(Kind::kIntegers, panels * kPanelRows, dim, 1000 + dim);
                CHECK(count_wrong(kernels, queries, base, 0.0, 0.0) == 0);
            }
        }
    }
}

TEST_CASE("scans of all scales keep to their error bound") {
    for (const std::string& level : supported_isa_levels()) {
        const Kernels& kernels = simd::kernels_for(level.c_str());
        for (const Kind kind : testing::kAllKinds) {
            for (const std::size_t dim : kDims) {
                CAPTURE(level);
                CAPTURE(dim);
                CAPTURE(static_cast<int>(kind));
                const Rows queries = make_rows(kind, kernels.tile_queries, dim, dim);
                const Rows base = make_rows(kind, 3 * kPanelRows, dim, 1000 + dim);
                CHECK(count_wrong(kernels, queries, base, float32_error_factor(dim) + float64_error_factor(dim),
                                  float32_error_absolute(dim)) == 0);
            }
        }
    }
}

TEST_CASE("rows of the largest norms do not overflow a scan") {
    for (const std::string& level : supported_isa_levels()) {
        const Kernels& kernels = simd::kernels_for(level.c_str());
        for (const std::size_t dim : {1U, 16U, 64U}) {
            Rows queries{kernels.tile_queries, dim, std::vector<float>(kernels.tile_queries * dim)};
            Rows base{kPanelRows, dim, std::vector<float>(kPanelRows * dim)};
            const auto element = static_cast<float>(0x1p63 / std::sqrt(static_cast<double>(dim)));
            for (float& value : queries.data) value = element;
            for (float& value : base.data) value = -element;
            CAPTURE(level);
            CAPTURE(dim);
            CHECK(count_wrong(kernels, queries, base, float32_error_factor(dim), 0.0) == 0);
        }
    }
}

TEST_CASE("rescoring is within the float64 bound, and exact on integers") {
    for (const std::string& level : supported_isa_levels()) {
        const Kernels& kernels = simd::kernels_for(level.c_str());
        for (const Kind kind : testing::kAllKinds) {
            for (const std::size_t dim : kDims) {
                const Rows query = make_rows(kind, 1, dim, dim);
                const Rows base = make_rows(kind, kPanelRows, dim, 1000 + dim);
                const std::vector<float> panel = pack_panels(base);
                double sums[kPanelRows] = {};
                kernels.rescore(query.row(0), panel.data(), dim, sums);
                int wrong = 0;
                for (std::size_t r = 0; r < kPanelRows; ++r) {
                    ExactSum exact;
                    for (std::size_t d = 0; d < dim; ++d) exact.add_product(query.row(0)[d], base.row(r)[d]);
                    const double error = std::fabs(sums[r] - exact.rounded());
                    // Half a unit more for the rounding of the sum that it is compared with.
                    const double allowed = (float64_error_factor(dim) + 0x1p-53) * norm_upper_bound(query.row(0), dim) *
                                           norm_upper_bound(base.row(r), dim);
                    wrong += error <= (kind == Kind::kIntegers ? 0.0 : allowed) ? 0 : 1;
                }
                CAPTURE(level);
                CAPTURE(dim);
                CAPTURE(static_cast<int>(kind));
                CHECK(wrong == 0);
            }
        }
    }
}

TEST_CASE("selection returns the ascending indices at or over the cut") {
    Rng rng(5);
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (const std::string& level : supported_isa_levels()) {
        const Kernels& kernels = simd::kernels_for(level.c_str());
        for (std::size_t n = 0; n <= 70; ++n) {
            std::vector<float> scores(n);
            for (float& score : scores) score = static_cast<float>(testing::below(rng, 5)) - 2.0F;
            for (const float cut : {-kInfinity, -2.0F, -0.0F, 0.0F, 1.0F, 2.0F, 3.0F, kInfinity}) {
                std::vector<std::uint32_t> expected;
                for (std::size_t i = 0; i < n; ++i) {
                    if (scores[i] >= cut) expected.push_back(static_cast<std::uint32_t>(i));
                }
                std::vector<std::uint32_t> indices(n + kPanelRows);
                indices.resize(kernels.select(scores.data(), n, cut, indices.data()));
                CAPTURE(level);
                CAPTURE(n);
                CAPTURE(cut);
                CHECK(indices == expected);
            }
        }
    }
}

TEST_SUITE_END();

}  // namespace deepssim
