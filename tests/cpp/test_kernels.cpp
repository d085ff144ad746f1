#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "deepssim/exact.hpp"
#include "deepssim/isa.hpp"
#include "oracle.hpp"
#include "simd/kernels.hpp"
#include "topk/codes.hpp"

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

// Multiplies and counts the scores that differ from the float64 sums by more than `factor` * |q| * |x| + `absolute`.
int count_wrong(const Kernels& kernels, const Rows& queries, const Rows& base, double factor, double absolute) {
    const std::size_t dim = base.cols;
    const std::vector<float> tile = pack_tile(queries, kernels.product_rows);
    const std::vector<float> panels = pack_panels(base);
    constexpr float kUnset = 1e30F;
    std::vector<float> scores(kernels.product_rows * base.rows, kUnset);
    kernels.product(tile.data(), panels.data(), base.rows / kPanelRows, dim, scores.data());
    int wrong = 0;
    for (std::size_t i = 0; i < kernels.product_rows; ++i) {
        for (std::size_t r = 0; r < base.rows; ++r) {
            const double expected = plain_sum(queries.row(i), base.row(r), dim);
            const double allowed = factor * norm_upper_bound(queries.row(i), dim) * norm_upper_bound(base.row(r), dim);
            const double error = std::fabs(static_cast<double>(scores[i * base.rows + r]) - expected);
            wrong += error <= allowed + absolute ? 0 : 1;
        }
    }
    return wrong;
}

// Random codes of three tiles of queries and one group of rows, scanned at a threshold that some pairs reach.
class ScanCase {
   public:
    ScanCase(const Kernels& kernels, std::size_t dim, bool at_ends, Rng& rng)
        : kernels_(kernels),
          shape_(dim, dim, kernels),
          n_queries_(kTiles * kernels.tile_queries),
          queries_(n_queries_ * dim),
          rows_(simd::kGroupRows * dim) {
        const int limit = code_limit(kernels.format);
        const auto draw = [&] {
            if (at_ends) return static_cast<std::int8_t>(testing::below(rng, 8) == 0 ? -limit : limit);
            const std::size_t span = 2 * static_cast<std::size_t>(limit) + 1;
            return static_cast<std::int8_t>(static_cast<int>(testing::below(rng, span)) - limit);
        };
        for (std::int8_t& code : queries_) code = draw();
        for (std::int8_t& code : rows_) code = draw();
        for (std::size_t i = 0; i < n_queries_; ++i) {
            for (std::size_t r = 0; r < simd::kGroupRows; ++r) {
                std::int64_t sum = 0;
                for (std::size_t d = 0; d < dim; ++d) {
                    sum += std::int64_t{queries_[i * dim + d]} * rows_[r * dim + d];
                }
                expected_.push_back(sum);
            }
        }
        threshold_ = static_cast<double>(expected_[testing::below(rng, expected_.size())]);
        pack();
    }

    // Pairs that were wrongly kept or left, or whose sum is wrong; and rows' own products by dot().
    int count_wrong() {
        const simd::ScanJob job{group_.data(),  terms_.data(),       shape_.steps,  kTiles,
                                packed_.data(), query_terms_.data(), starts_.data()};
        std::vector<simd::Hit> hits(n_queries_);
        std::vector<std::int32_t> sums(n_queries_ * simd::kGroupRows);
        const std::size_t found = kernels_.scan(job, hits.data(), sums.data());
        std::vector<std::uint64_t> kept(n_queries_);
        int wrong = 0;
        for (std::size_t h = 0; h < found; ++h) {
            kept[hits[h].query] = hits[h].rows;
            for (std::size_t r = 0; r < simd::kGroupRows; ++r) {
                wrong += sums[h * simd::kGroupRows + r] == expected_[hits[h].query * simd::kGroupRows + r] ? 0 : 1;
            }
        }
        for (std::size_t i = 0; i < n_queries_; ++i) {
            for (std::size_t r = 0; r < simd::kGroupRows; ++r) {
                const bool is_kept = ((kept[i] >> r) & 1U) != 0;
                wrong += is_kept == is_expected(i, r) ? 0 : 1;
            }
        }
        return wrong + count_wrong_alone(job) + count_wrong_dots();
    }

   private:
    bool is_expected(std::size_t query, std::size_t row) const {
        return static_cast<double>(expected_[query * simd::kGroupRows + row]) >= threshold_;
    }

    // The same for each query of the first tile, asked for alone.
    int count_wrong_alone(simd::ScanJob job) {
        int wrong = 0;
        job.n_tiles = 1;
        std::vector<simd::Hit> hits(kernels_.tile_queries);
        std::vector<std::int32_t> sums(kernels_.tile_queries * simd::kGroupRows);
        for (job.only = 0; job.only < kernels_.tile_queries; ++job.only) {
            const std::size_t found = kernels_.scan(job, hits.data(), sums.data());
            const auto hit = std::find_if(hits.begin(), hits.begin() + static_cast<std::ptrdiff_t>(found),
                                          [&](const simd::Hit& h) { return h.query == job.only; });
            const auto h = static_cast<std::size_t>(hit - hits.begin());
            for (std::size_t r = 0; r < simd::kGroupRows; ++r) {
                wrong += (h < found && ((hit->rows >> r) & 1U) != 0) == is_expected(job.only, r) ? 0 : 1;
                if (h == found) continue;
                wrong += sums[h * simd::kGroupRows + r] == expected_[job.only * simd::kGroupRows + r] ? 0 : 1;
            }
        }
        return wrong;
    }

    static constexpr std::size_t kTiles = 3;

    void pack() {
        const std::size_t tile = kernels_.tile_queries;
        const std::size_t dim = shape_.dim;
        const int offset = code_offset(kernels_.format);
        packed_.assign(n_queries_ * shape_.head_bytes(), std::byte{0});
        group_.assign(simd::kGroupRows * shape_.head_bytes(), std::byte{0});
        query_terms_.assign(n_queries_ * simd::kQueryTerms, 0.0);
        starts_.assign(n_queries_, 0);
        for (std::size_t i = 0; i < n_queries_; ++i) {
            const std::size_t place = i % tile;
            for (std::size_t d = 0; d < dim; ++d) {
                const std::size_t step = d / simd::kStepBytes;
                const std::size_t at = query_place(kernels_, step, place);
                const std::int8_t code = queries_[i * dim + d];
                packed_[i / tile * tile * shape_.head_bytes() + at * simd::kStepBytes + d % simd::kStepBytes] =
                    static_cast<std::byte>(code);
                starts_[i] -= offset * code;
            }
            double* terms = query_terms_.data() + i / tile * tile * simd::kQueryTerms + place;
            terms[simd::kCut * tile] = threshold_;
            terms[simd::kReverseFactor * tile] = 1.0;
        }
        for (std::size_t r = 0; r < simd::kGroupRows; ++r) {
            std::byte* panel = group_.data() + r / kPanelRows * kPanelRows * shape_.head_bytes();
            for (std::size_t d = 0; d < dim; ++d) {
                panel[d / simd::kStepBytes * simd::kPanelStepBytes + r % kPanelRows * simd::kStepBytes +
                      d % simd::kStepBytes] = static_cast<std::byte>(rows_[r * dim + d] + offset);
            }
        }
        terms_.assign(simd::kGroupTerms, 0.0);
        terms_[simd::kInverseScale] = 1.0;
        terms_[simd::kRowCut] = std::numeric_limits<double>::infinity();
    }

    int count_wrong_dots() const {
        const std::size_t bytes = (shape_.dim + 63) / 64 * 64;
        const int offset = code_offset(kernels_.format);
        std::vector<std::byte> query(bytes);
        std::vector<std::byte> row(bytes);
        int wrong = 0;
        for (std::size_t i = 0; i < 3; ++i) {
            for (std::size_t d = 0; d < shape_.dim; ++d) {
                query[d] = static_cast<std::byte>(queries_[i * shape_.dim + d]);
                row[d] = static_cast<std::byte>(rows_[i * shape_.dim + d] + offset);
            }
            const std::int32_t sum = starts_[i] + kernels_.dot(query.data(), row.data(), bytes);
            wrong += sum == expected_[i * simd::kGroupRows + i] ? 0 : 1;
        }
        return wrong;
    }

    const Kernels& kernels_;
    CodeShape shape_;
    std::size_t n_queries_;
    std::vector<std::int8_t> queries_;
    std::vector<std::int8_t> rows_;
    std::vector<std::int64_t> expected_;
    double threshold_ = 0.0;
    std::vector<std::byte> packed_;
    std::vector<std::byte> group_;
    std::vector<double> query_terms_;
    std::vector<double> terms_;
    std::vector<std::int32_t> starts_;
};

}  // namespace

TEST_SUITE_BEGIN("kernels");

TEST_CASE("products of small integers are equal to a plain loop") {
    for (const std::string& level : supported_isa_levels()) {
        const Kernels& kernels = simd::kernels_for(level.c_str());
        REQUIRE(kernels.product_rows <= simd::kMaxProductRows);
        for (const std::size_t dim : kDims) {
            for (std::size_t panels = 1; panels <= 5; ++panels) {
                CAPTURE(level);
                CAPTURE(dim);
                CAPTURE(panels);
                const Rows queries = make_rows(Kind::kIntegers, kernels.product_rows, dim, dim);
                const Rows base = make_rows(Kind::kIntegers, panels * kPanelRows, dim, 1000 + dim);
                CHECK(count_wrong(kernels, queries, base, 0.0, 0.0) == 0);
            }
        }
    }
}

TEST_CASE("products of all scales keep to their error bound") {
    for (const std::string& level : supported_isa_levels()) {
        const Kernels& kernels = simd::kernels_for(level.c_str());
        for (const Kind kind : testing::kAllKinds) {
            for (const std::size_t dim : kDims) {
                CAPTURE(level);
                CAPTURE(dim);
                CAPTURE(static_cast<int>(kind));
                const Rows queries = make_rows(kind, kernels.product_rows, dim, dim);
                const Rows base = make_rows(kind, 3 * kPanelRows, dim, 1000 + dim);
                CHECK(count_wrong(kernels, queries, base, float32_error_factor(dim) + float64_error_factor(dim),
                                  float32_error_absolute(dim)) == 0);
            }
        }
    }
}

TEST_CASE("rows of the largest norms do not overflow a product") {
    for (const std::string& level : supported_isa_levels()) {
        const Kernels& kernels = simd::kernels_for(level.c_str());
        for (const std::size_t dim : {1U, 16U, 64U}) {
            Rows queries{kernels.product_rows, dim, std::vector<float>(kernels.product_rows * dim)};
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

TEST_CASE("inner products are within the float64 bound, and exact on integers") {
    for (const std::string& level : supported_isa_levels()) {
        const Kernels& kernels = simd::kernels_for(level.c_str());
        for (const Kind kind : testing::kAllKinds) {
            for (const std::size_t dim : kDims) {
                const Rows query = make_rows(kind, 1, dim, dim);
                const Rows base = make_rows(kind, kPanelRows, dim, 1000 + dim);
                int wrong = 0;
                for (std::size_t r = 0; r < kPanelRows; ++r) {
                    ExactSum exact;
                    for (std::size_t d = 0; d < dim; ++d) exact.add_product(query.row(0)[d], base.row(r)[d]);
                    const double sum = kernels.inner(query.row(0), base.row(r), dim);
                    // Half a unit more for the rounding of the sum that it is compared with.
                    const double allowed = (float64_error_factor(dim) + 0x1p-53) * norm_upper_bound(query.row(0), dim) *
                                           norm_upper_bound(base.row(r), dim);
                    wrong += std::fabs(sum - exact.rounded()) <= (kind == Kind::kIntegers ? 0.0 : allowed) ? 0 : 1;
                }
                CAPTURE(level);
                CAPTURE(dim);
                CAPTURE(static_cast<int>(kind));
                CHECK(wrong == 0);
            }
        }
    }
}

TEST_CASE("codes are the nearest integers, and what they lose is measured") {
    for (const std::string& level : supported_isa_levels()) {
        const Kernels& kernels = simd::kernels_for(level.c_str());
        const int limit = code_limit(kernels.format);
        for (const Kind kind : testing::kAllKinds) {
            for (const std::size_t dim : kDims) {
                const Rows rows = make_rows(kind, 2, dim, dim);
                const float* row = rows.row(0);
                const float* centre = rows.row(1);
                double largest = 0.0;
                for (std::size_t d = 0; d < dim; ++d) {
                    largest =
                        std::max(largest, std::fabs(static_cast<double>(row[d]) - static_cast<double>(centre[d])));
                }
                CAPTURE(level);
                CAPTURE(dim);
                CAPTURE(static_cast<int>(kind));
                CHECK(kernels.largest(row, centre, dim) == largest);
                const double scale = scale_for(largest, limit);
                std::vector<std::int16_t> codes(dim + 1, 99);
                const CodedPart part = encode(kernels, row, centre, dim, scale, limit, codes.data());
                CHECK(codes[dim] == 99);
                long double squares = 0.0L;
                long double lost = 0.0L;
                int wrong = 0;
                for (std::size_t d = 0; d < dim; ++d) {
                    const auto z = static_cast<long double>(row[d]) - static_cast<long double>(centre[d]);
                    const auto code = static_cast<long double>(codes[d]);
                    const long double error = z - code * static_cast<long double>(scale);
                    squares += z * z;
                    lost += error * error;
                    wrong +=
                        std::abs(codes[d]) <= limit && std::fabs(static_cast<double>(error)) <= scale * 0.5001 ? 0 : 1;
                }
                CHECK(wrong == 0);
                CHECK(part.norm >= static_cast<double>(std::sqrt(squares)));
                CHECK(part.lost >= static_cast<double>(std::sqrt(lost)));
                CHECK(part.norm <= static_cast<double>(std::sqrt(squares)) * 1.000001);
                CHECK(part.lost <= static_cast<double>(std::sqrt(lost)) + 0x1p-40 * part.norm);
            }
        }
    }
}

TEST_CASE("integer sums are exact at every dimension and both ends of the codes") {
    Rng rng(3);
    for (const std::string& level : supported_isa_levels()) {
        const Kernels& kernels = simd::kernels_for(level.c_str());
        REQUIRE(kernels.tile_queries <= simd::kMaxTileQueries);
        for (const std::size_t dim : {1U, 4U, 5U, 63U, 64U, 65U, 300U, 65536U}) {
            for (const bool at_ends : {false, true}) {
                CAPTURE(level);
                CAPTURE(dim);
                CAPTURE(at_ends);
                CHECK(ScanCase(kernels, dim, at_ends, rng).count_wrong() == 0);
            }
        }
    }
}

TEST_SUITE_END();

}  // namespace deepssim
