// The bound that discards: no pair may be left out that could enter an answer.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "deepssim/exact.hpp"
#include "deepssim/isa.hpp"
#include "deepssim/searcher.hpp"
#include "oracle.hpp"
#include "simd/kernels.hpp"
#include "topk/base_rows.hpp"
#include "topk/prepared_base.hpp"
#include "topk/query_block.hpp"

namespace deepssim {

namespace {

using testing::Answer;
using testing::AnswerSink;
using testing::is_same;
using testing::Kind;
using testing::make_rows;
using testing::Oracle;
using testing::Rng;
using testing::Rows;

// An orthogonal matrix rounded to float32: a product of random reflections.
Rows make_rotation(std::size_t dim, std::uint64_t seed) {
    Rng rng(seed);
    std::vector<double> matrix(dim * dim);
    for (std::size_t i = 0; i < dim; ++i) matrix[i * dim + i] = 1.0;
    for (int reflection = 0; reflection < 3; ++reflection) {
        std::vector<double> v(dim);
        double squares = 0.0;
        for (double& value : v) {
            value = testing::uniform(rng);
            squares += value * value;
        }
        for (std::size_t i = 0; i < dim; ++i) {
            double along = 0.0;
            for (std::size_t d = 0; d < dim; ++d) along += matrix[i * dim + d] * v[d];
            for (std::size_t d = 0; d < dim; ++d) matrix[i * dim + d] -= 2.0 * along / squares * v[d];
        }
    }
    Rows out{dim, dim, {}};
    for (const double value : matrix) out.data.push_back(static_cast<float>(value));
    return out;
}

// Rows that make codes bad: one element that dwarfs the others, the same row again and its negative, zeros, and
// neighbours one unit in the last place apart.
Rows make_adversarial(std::size_t rows, std::size_t dim, std::uint64_t seed) {
    Rng rng(seed);
    Rows out = make_rows(Kind::kUnit, rows, dim, seed);
    for (std::size_t r = 0; r < rows; ++r) {
        float* row = out.row(r);
        switch (r % 8) {
            case 0:
                row[testing::below(rng, dim)] = 1e4F;
                break;
            case 1:
                for (std::size_t d = 0; d < dim; ++d) row[d] = 0.0F;
                break;
            case 2:
                for (std::size_t d = 0; d < dim && r > 2; ++d) row[d] = -out.row(r - 2)[d];
                break;
            case 3:
                for (std::size_t d = 0; d < dim && r > 3; ++d) row[d] = out.row(r - 3)[d];
                break;
            case 4:
                for (std::size_t d = 0; d < dim; ++d) row[d] = std::nextafter(out.row(r - 1)[d], 2.0F);
                break;
            case 5:
                for (std::size_t d = 0; d < dim; ++d) row[d] *= 1e-38F;
                break;
            case 6:
                for (std::size_t d = 0; d < dim; ++d) row[d] *= 1e15F;
                break;
            default:
                break;
        }
    }
    return out;
}

// Queries of -1 and 1, which codes hold exactly, with the signs of what the codes of the rows lose, both ways:
// there the bound by Cauchy-Schwarz is nearly reached, and a slack that is too small shows.
Rows make_aligned(const simd::Kernels& kernels, const Rows& rows) {
    const std::vector<float> origin(rows.cols, 0.0F);
    Rows out{2 * rows.rows, rows.cols, {}};
    std::vector<std::int16_t> codes(rows.cols);
    for (const double sign : {1.0, -1.0}) {
        for (std::size_t r = 0; r < rows.rows; ++r) {
            const int limit = code_limit(kernels.format);
            const double scale = scale_for(kernels.largest(rows.row(r), origin.data(), rows.cols), limit);
            encode(kernels, rows.row(r), origin.data(), rows.cols, scale, limit, codes.data());
            for (std::size_t d = 0; d < rows.cols; ++d) {
                const double lost = static_cast<double>(rows.row(r)[d]) - scale * codes[d];
                out.data.push_back(static_cast<float>(lost < 0.0 ? -sign : sign));
            }
        }
    }
    return out;
}

double exact_sum(const float* a, const float* b, std::size_t dim) {
    ExactSum sum;
    for (std::size_t d = 0; d < dim; ++d) sum.add_product(a[d], b[d]);
    return sum.rounded();
}

// What went wrong between a set of queries and a prepared base.
struct Violations {
    int of_head = 0;       // scores outside approximate +- slack
    int of_rest = 0;       // scores outside the refined interval
    int lost_pairs = 0;    // pairs that a scan left although their own score was the cut
    double closest = 0.0;  // the largest share of the slack that a score took
};

// Queries, rows and the score of each pair by definition, which no preparation and no level changes.
struct Scored {
    Rows queries;
    Rows rows;
    std::vector<double> scores;

    Scored(Rows of_queries, Rows of_rows) : queries(std::move(of_queries)), rows(std::move(of_rows)) {
        for (std::size_t r = 0; r < rows.rows; ++r) {
            for (std::size_t i = 0; i < queries.rows; ++i) {
                scores.push_back(exact_sum(queries.row(i), rows.row(r), rows.cols));
            }
        }
    }
    const double* of_row(std::size_t row) const { return scores.data() + row * queries.rows; }
};

Violations hunt(const simd::Kernels& kernels, const Scored& scored, const Preparation& preparation) {
    const Rows& queries = scored.queries;
    const Rows& rows = scored.rows;
    BaseRows base(rows.cols, rows.rows, false);
    base.add(rows.view(), {});
    const PreparedBase prepared(base, preparation, kernels, 1, {});
    std::vector<double> norms;
    for (std::size_t i = 0; i < queries.rows; ++i) norms.push_back(norm_upper_bound(queries.row(i), queries.cols));
    QueryBlock block(prepared, kernels, queries.rows, 0);
    block.load(queries.view(), norms, 0, queries.rows);
    std::vector<simd::Hit> hits(queries.rows + simd::kMaxTileQueries);
    std::vector<std::int32_t> sums(hits.size() * simd::kGroupRows);
    Violations found;
    for (std::size_t g = 0; g < prepared.n_groups(); ++g) {
        for (std::size_t lane = 0; lane < prepared.group(g).rows; ++lane) {
            const std::size_t position = g * simd::kGroupRows + lane;
            const double* scores = scored.of_row(prepared.row(position));
            for (std::size_t i = 0; i < queries.rows; ++i) block.set_cut(i, scores[i]);
            const std::size_t n =
                kernels.scan(block.job(g, prepared.terms(g), 0, block.n_tiles()), hits.data(), sums.data());
            std::vector<bool> is_kept(queries.rows);
            for (std::size_t h = 0; h < n; ++h) {
                const std::size_t i = hits[h].query;
                if (i >= queries.rows || ((hits[h].rows >> lane) & 1U) == 0) continue;
                is_kept[i] = true;
                const double head =
                    block.bounds(i).offset + block.head_factor(i, g) * sums[h * simd::kGroupRows + lane];
                found.closest = std::max(found.closest, std::fabs(head - scores[i]) / block.slack(i, g));
                found.of_head += std::fabs(head - scores[i]) <= block.slack(i, g) ? 0 : 1;
                if (prepared.shape().rest() == 0) continue;
                const QueryBlock::Refiner refine(block, i, g);
                found.of_head += std::fabs(refine.head(position) - scores[i]) <= block.fine_slack(i, g) ? 0 : 1;
                const double whole = refine.head(position) + refine.rest(position);
                found.of_rest += std::fabs(whole - scores[i]) <= block.refined_slack(i, g) ? 0 : 1;
            }
            for (std::size_t i = 0; i < queries.rows; ++i) found.lost_pairs += is_kept[i] ? 0 : 1;
        }
    }
    return found;
}

void check_none(const Violations& found) {
    CHECK(found.of_head == 0);
    CHECK(found.of_rest == 0);
    CHECK(found.lost_pairs == 0);
}

// The preparations that a row of `dim` elements can have: whole, split, rotated.
std::vector<Preparation> preparations(std::size_t dim, const Rows& rotation) {
    std::vector<Preparation> out{{}};
    for (const std::size_t head : {std::size_t{1}, dim / 3, dim - 1}) {
        if (head == 0 || head >= dim) continue;
        out.push_back({head, {}});
        if (rotation.rows > 0) out.push_back({head, rotation.view()});
    }
    if (rotation.rows > 0) out.push_back({0, rotation.view()});
    return out;
}

}  // namespace

TEST_SUITE_BEGIN("bound");

TEST_CASE("no score lies outside its bound, whatever the rows, the split, the rotation and the level") {
    for (const std::size_t dim : {1U, 2U, 3U, 17U, 64U, 130U}) {
        const Rows rotation = make_rotation(dim, dim);
        std::vector<Scored> sets;
        for (const Kind kind : testing::kAllKinds) {
            sets.emplace_back(make_rows(kind, 9, dim, dim), make_rows(kind, 70, dim, dim + 1));
        }
        sets.emplace_back(make_adversarial(16, dim, 3), make_adversarial(70, dim, 4));
        // A query that is one of the rows, and rows of other scales than the queries.
        sets.emplace_back(make_adversarial(70, dim, 5), make_adversarial(70, dim, 5));
        sets.emplace_back(make_rows(Kind::kScales, 9, dim, 6), make_rows(Kind::kDenormal, 70, dim, 7));
        for (const Preparation& preparation : preparations(dim, rotation)) {
            for (const std::string& level : supported_isa_levels()) {
                const simd::Kernels& kernels = simd::kernels_for(level.c_str());
                CAPTURE(dim);
                CAPTURE(level);
                CAPTURE(preparation.head);
                CAPTURE(preparation.rotation.rows);
                for (std::size_t set = 0; set < sets.size(); ++set) {
                    CAPTURE(set);
                    check_none(hunt(kernels, sets[set], preparation));
                }
            }
        }
    }
}

TEST_CASE("the bound holds for long rows") {
    for (const std::size_t dim : {1000U, 4096U}) {
        const Scored adversarial(make_adversarial(5, dim, 3), make_adversarial(20, dim, 4));
        const Scored cancelling(make_rows(Kind::kCancelling, 3, dim, 3), make_rows(Kind::kCancelling, 9, dim, 4));
        for (const std::string& level : supported_isa_levels()) {
            const simd::Kernels& kernels = simd::kernels_for(level.c_str());
            CAPTURE(dim);
            CAPTURE(level);
            for (const std::size_t head : {std::size_t{0}, dim / 4}) {
                check_none(hunt(kernels, adversarial, {head, {}}));
                check_none(hunt(kernels, cancelling, {head, {}}));
            }
        }
    }
    const Rows rotation = make_rotation(1000, 1);
    const Scored scored(make_adversarial(5, 1000, 3), make_adversarial(20, 1000, 4));
    check_none(hunt(simd::kernels_for(resolve_isa("").c_str()), scored, {300, rotation.view()}));
}

TEST_CASE("queries along what the codes lose nearly reach the bound, and do not pass it") {
    for (const std::string& level : supported_isa_levels()) {
        const simd::Kernels& kernels = simd::kernels_for(level.c_str());
        for (const std::size_t dim : {12U, 64U, 200U}) {
            CAPTURE(level);
            CAPTURE(dim);
            double closest = 0.0;
            for (std::uint64_t seed = 0; seed < 20; ++seed) {
                // One row and its negative: the centre is zero, so the codes are those that the queries were made from.
                Rows rows = make_rows(Kind::kUnit, 2, dim, seed);
                for (std::size_t d = 0; d < dim; ++d) rows.row(1)[d] = -rows.row(0)[d];
                const Rows queries = make_aligned(kernels, rows);
                const Violations found = hunt(kernels, Scored(queries, rows), {});
                check_none(found);
                closest = std::max(closest, found.closest);
            }
            CHECK(closest > 0.8);
            CHECK(closest <= 1.0);
        }
    }
}

TEST_CASE("a rotation that is none is refused") {
    Rows rotation = make_rotation(8, 1);
    Searcher searcher(8, 2, false, 0, "");
    searcher.add(make_rows(Kind::kUnit, 2, 8, 1).view(), {});
    CHECK_THROWS_AS(searcher.prepare({0, {rotation.data.data(), 7, 8, 8}}, 1, {}), InvalidInput);
    CHECK_THROWS_AS(searcher.prepare({0, make_rotation(7, 1).view()}, 1, {}), InvalidInput);
    rotation.data[3] = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS_AS(searcher.prepare({0, rotation.view()}, 1, {}), InvalidInput);
    rotation = make_rotation(8, 1);
    for (float& value : rotation.data) value *= 2.0F;
    CHECK_THROWS_AS(searcher.prepare({0, rotation.view()}, 1, {}), InvalidInput);
}

TEST_CASE("how a base is prepared changes no answer") {
    for (const Kind kind : testing::kAllKinds) {
        constexpr std::size_t kDim = 37;
        const Oracle oracle{make_rows(kind, 25, kDim, 1), make_rows(kind, 700, kDim, 2)};
        const Rows rotation = make_rotation(kDim, 3);
        const std::vector<float> thresholds{oracle.quantile(0.9), std::nextafter(oracle.quantile(0.999), 1e30F)};
        std::vector<SearchOptions> asked;
        std::vector<Answer> answers;
        for (const std::size_t k : {0U, 1U, 5U, 60U}) {
            SearchOptions options;
            options.k = k;
            options.threads = 2;
            if (k != 1 && thresholds[0] < thresholds[1]) options.thresholds = thresholds;
            options.max_listed = options.thresholds.empty() ? 0 : 4;
            asked.push_back(options);
            answers.push_back(oracle.answer(options));
        }
        for (const std::string& level : supported_isa_levels()) {
            for (const Preparation& preparation : preparations(kDim, rotation)) {
                Searcher searcher(kDim, 700, false, 0, level);
                searcher.add(oracle.base.view(), {});
                CHECK_FALSE(searcher.is_prepared());
                searcher.prepare(preparation, 2, {});
                CHECK(searcher.is_prepared());
                for (std::size_t i = 0; i < asked.size(); ++i) {
                    AnswerSink sink(25);
                    const SearchStatistics statistics =
                        searcher.search(oracle.queries.view(), asked[i], sink, nullptr, nullptr, nullptr, {});
                    CAPTURE(static_cast<int>(kind));
                    CAPTURE(level);
                    CAPTURE(preparation.head);
                    CAPTURE(preparation.rotation.rows);
                    CAPTURE(asked[i].k);
                    CHECK(is_same(sink.answer, answers[i]));
                    CHECK(statistics.kept <= statistics.pairs);
                    CHECK(statistics.refined <= statistics.kept);
                    CHECK(statistics.rescored <= statistics.refined);
                }
            }
        }
    }
}

TEST_SUITE_END();

}  // namespace deepssim
