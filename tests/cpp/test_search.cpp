// The answer of a search against the answer by definition.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "deepssim/exact.hpp"
#include "deepssim/searcher.hpp"
#include "deepssim/tally.hpp"
#include "oracle.hpp"

namespace deepssim {

namespace {

using testing::Answer;
using testing::AnswerSink;
using testing::is_same;
using testing::Kind;
using testing::make_rows;
using testing::Oracle;
using testing::Rows;

// More rows than one block of panels holds, more queries than one thread takes at a time; neither a
// multiple of a panel or tile.
constexpr std::size_t kBaseRows = 1061;
constexpr std::size_t kQueries = 53;

Oracle make_oracle(Kind kind, std::size_t dim) {
    return {make_rows(kind, kQueries, dim, 11), make_rows(kind, kBaseRows, dim, 12)};
}

// A query and two rows whose float32 scans err by nearly the proven bound, in opposite directions: each
// further element is half of the sum's last place, so that every addition rounds back to where it was. The
// scan sees 1 for `under` and 1 + 3/4 (dim - 1) 2^-23 for `over`, and yet `under` has the higher score.
struct WorstCase {
    std::vector<float> query;
    std::vector<float> under;
    std::vector<float> over;

    explicit WorstCase(std::size_t dim) : query(dim, 0x1p-12F), under(dim, 0x1p-12F), over(dim, -0x1p-12F) {
        query[0] = under[0] = 1.0F;
        over[0] = 1.0F + 0.75F * static_cast<float>(dim - 1) * 0x1p-23F;
    }
};

Rows rows_of(const std::vector<std::vector<float>>& rows) {
    Rows out{rows.size(), rows.front().size(), {}};
    for (const auto& row : rows) out.data.insert(out.data.end(), row.begin(), row.end());
    return out;
}

}  // namespace

TEST_SUITE_BEGIN("search");

TEST_CASE("scores equal the definition in every bit and ties go to the lower id") {
    for (const Kind kind : testing::kAllKinds) {
        for (const std::size_t dim : {1U, 3U, 17U, 64U}) {
            const Oracle oracle = make_oracle(kind, dim);
            for (const std::size_t k : {1U, 10U, 100U}) {
                SearchOptions options;
                options.k = k;
                options.threads = k % 4 + 1;
                const Answer answer = oracle.answer(options);
                for (const std::string& level : testing::levels()) {
                    Searcher searcher(dim, kBaseRows, false, 0, level);
                    searcher.add(oracle.base.view(), {});
                    AnswerSink sink(kQueries);
                    const SearchStatistics statistics =
                        searcher.search(oracle.queries.view(), options, sink, nullptr, nullptr, nullptr, {});
                    CAPTURE(static_cast<int>(kind));
                    CAPTURE(dim);
                    CAPTURE(level);
                    CAPTURE(k);
                    CHECK(sink.is_complete());
                    CHECK(is_same(sink.answer, answer));
                    CHECK(statistics.pairs == static_cast<std::int64_t>(kQueries * kBaseRows));
                    CHECK(statistics.rescored <= statistics.pairs);
                    CHECK(statistics.exact <= statistics.rescored);
                }
            }
        }
    }
}

TEST_CASE("thresholds count every pair, those equal to the threshold too") {
    for (const Kind kind : testing::kAllKinds) {
        const Oracle oracle = make_oracle(kind, 17);
        const float low = oracle.quantile(0.9);
        const float high = oracle.quantile(0.999);
        std::vector<float> thresholds{low};
        if (high > low) thresholds.push_back(high);
        SearchOptions options;
        options.k = 2;
        options.thresholds = thresholds;
        options.max_listed = 20;
        options.threads = 2;
        options.first_query = 40;
        const Answer answer = oracle.answer(options);
        const std::vector<std::int64_t> counts = oracle.tally_counts(options);
        const std::vector<Match> best = oracle.tally_best(options);
        for (const std::string& level : testing::levels()) {
            Searcher searcher(17, kBaseRows, false, 0, level);
            searcher.add(oracle.base.view(), {});
            RowTally tally(kBaseRows, thresholds.size());
            AnswerSink sink(kQueries);
            searcher.search(oracle.queries.view(), options, sink, &tally, nullptr, nullptr, {});
            CAPTURE(static_cast<int>(kind));
            CAPTURE(level);
            CHECK(is_same(sink.answer, answer));
            CHECK(tally.counts() == counts);
            CHECK(is_same(tally.best(), best));
        }
    }
}

TEST_CASE("a bound discards most pairs of embeddings, float64 decides nearly all of the rest") {
    const Oracle oracle = make_oracle(Kind::kUnit, 64);
    Searcher searcher(64, kBaseRows, false, 0, "");
    searcher.add(oracle.base.view(), {});
    SearchOptions options;
    options.k = 5;
    AnswerSink sink(kQueries);
    const SearchStatistics statistics =
        searcher.search(oracle.queries.view(), options, sink, nullptr, nullptr, nullptr, {});
    CHECK(statistics.rescored * 20 < statistics.pairs);
    CHECK(statistics.exact * 100 < statistics.rescored);
}

TEST_CASE("how many threads search changes nothing") {
    for (const Kind kind : {Kind::kUnit, Kind::kIntegers}) {
        const Oracle oracle{make_rows(kind, 200, 9, 1), make_rows(kind, 500, 9, 2)};
        Searcher searcher(9, 500, false, 0, "");
        searcher.add(oracle.base.view(), {});
        const std::vector<float> thresholds{oracle.quantile(0.8)};
        SearchOptions options;
        options.k = 6;
        options.thresholds = thresholds;
        options.max_listed = 9;
        for (std::size_t threads = 1; threads <= 4; ++threads) {
            options.threads = threads;
            RowTally tally(500, 1);
            AnswerSink sink(200);
            searcher.search(oracle.queries.view(), options, sink, &tally, nullptr, nullptr, {});
            CHECK(is_same(sink.answer, oracle.answer(options)));
            CHECK(tally.counts() == oracle.tally_counts(options));
            CHECK(is_same(tally.best(), oracle.tally_best(options)));
        }
    }
}

TEST_CASE("dimensions and base sizes round the widths of vectors and panels") {
    for (const std::size_t dim : {1U, 2U, 7U, 8U, 9U, 15U, 16U, 17U, 31U, 33U, 65U, 97U}) {
        for (const std::size_t rows : {1U, 15U, 16U, 17U, 33U}) {
            const Oracle oracle{make_rows(Kind::kUnit, 13, dim, rows), make_rows(Kind::kUnit, rows, dim, dim + 50)};
            for (const std::string& level : testing::levels()) {
                Searcher searcher(dim, rows, false, 0, level);
                searcher.add(oracle.base.view(), {});
                SearchOptions options;
                options.k = 4;
                options.threads = 1;
                AnswerSink sink(13);
                searcher.search(oracle.queries.view(), options, sink, nullptr, nullptr, nullptr, {});
                CAPTURE(dim);
                CAPTURE(rows);
                CAPTURE(level);
                CHECK(is_same(sink.answer, oracle.answer(options)));
            }
        }
    }
}

TEST_CASE("a row is not lost where the scan errs by nearly its bound") {
    for (const std::size_t dim : {65U, 257U}) {
        const WorstCase worst(dim);
        const std::vector<float> zero(dim);
        std::vector<std::vector<float>> far(1100, zero);  // the two in different blocks
        far.front() = worst.over;
        far.back() = worst.under;
        for (const auto& rows : {std::vector{worst.over, worst.under, zero}, {worst.under, worst.over, zero}, far}) {
            const Oracle oracle{rows_of({worst.query}), rows_of(rows)};
            REQUIRE(oracle.quantile(1.0) == exact_score(worst.query.data(), worst.under.data(), 1, dim));
            for (const std::string& level : testing::levels()) {
                Searcher searcher(dim, rows.size(), false, 0, level);
                searcher.add(oracle.base.view(), {});
                const std::vector<float> thresholds{oracle.quantile(1.0)};
                for (const std::size_t k : {0U, 1U, 2U}) {
                    SearchOptions options;
                    options.k = k;
                    options.thresholds = thresholds;
                    options.max_listed = 2;
                    AnswerSink sink(1);
                    searcher.search(oracle.queries.view(), options, sink, nullptr, nullptr, nullptr, {});
                    CAPTURE(dim);
                    CAPTURE(level);
                    CAPTURE(k);
                    CHECK(is_same(sink.answer, oracle.answer(options)));
                }
                SearchOptions options;
                options.k = 1;
                AnswerSink sink(1);
                searcher.search(oracle.queries.view(), options, sink, nullptr, nullptr, nullptr, {});
                CHECK(is_same(sink.answer, oracle.answer(options)));
            }
        }
    }
}

TEST_CASE("rows of the largest dimension") {
    const Oracle oracle{make_rows(Kind::kCancelling, 2, kMaxDim, 1), make_rows(Kind::kCancelling, 18, kMaxDim, 2)};
    for (const std::string& level : testing::levels()) {
        Searcher searcher(kMaxDim, 18, false, 0, level);
        searcher.add(oracle.base.view(), {});
        SearchOptions options;
        options.k = 18;
        AnswerSink sink(2);
        searcher.search(oracle.queries.view(), options, sink, nullptr, nullptr, nullptr, {});
        CHECK(is_same(sink.answer, oracle.answer(options)));
    }
}

TEST_SUITE_END();

}  // namespace deepssim
