// Each base row's best queries, over any number of searches and beside any other mode.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "deepssim/reverse.hpp"
#include "deepssim/searcher.hpp"
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

constexpr std::size_t kRows = 190;
constexpr std::size_t kQueries = 120;
constexpr std::size_t kDim = 19;

std::vector<GroupId> make_groups(std::size_t n, std::size_t n_groups) {
    std::vector<GroupId> groups;
    for (std::size_t i = 0; i < n; ++i) groups.push_back(static_cast<GroupId>(i * 7 % (n_groups + 1)) - 1);
    return groups;
}

std::vector<std::vector<Match>> read(const ReverseTopk& reverse) {
    std::vector<float> scores(reverse.rows() * reverse.k());
    std::vector<RowId> ids(scores.size());
    reverse.read(scores.data(), ids.data());
    std::vector<std::vector<Match>> out(reverse.rows());
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (ids[i] >= 0) out[i / reverse.k()].push_back({scores[i], ids[i]});
    }
    return out;
}

// By definition: the search with queries and base exchanged, as they are in `turned`.
std::vector<std::vector<Match>> expected(const Oracle& turned, std::size_t k, std::size_t cap,
                                         std::span<const GroupId> query_groups, std::span<const GroupId> row_groups,
                                         bool exclude_same_group, bool exclude_same_id) {
    SearchOptions options;
    options.k = k;
    options.max_per_group = cap;
    options.query_groups = row_groups;
    options.exclude_same_group = exclude_same_group;
    options.exclude_same_id = exclude_same_id;
    return turned.answer(options, query_groups).best;
}

bool is_same(const std::vector<std::vector<Match>>& a, const std::vector<std::vector<Match>>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](const auto& x, const auto& y) { return testing::is_same(x, y); });
}

}  // namespace

TEST_SUITE_BEGIN("reverse");

TEST_CASE("rows get their best queries, whatever else the same search finds") {
    for (const Kind kind : {Kind::kUnit, Kind::kIntegers, Kind::kNearTies, Kind::kScales}) {
        const Oracle oracle{make_rows(kind, kQueries, kDim, 1), make_rows(kind, kRows, kDim, 2)};
        const std::vector<GroupId> query_groups = make_groups(kQueries, 9);
        const std::vector<GroupId> row_groups = make_groups(kRows, 12);
        const std::vector<float> thresholds{oracle.quantile(0.95)};
        const Oracle turned{oracle.base, oracle.queries};
        for (unsigned mask = 0; mask < 32; ++mask) {
            SearchOptions options;
            options.k = (mask & 1U) != 0 ? 4 : 0;
            if ((mask & 2U) != 0) options.thresholds = thresholds;
            options.max_listed = options.thresholds.empty() ? 0 : 6;
            options.query_groups = query_groups;
            options.exclude_same_group = (mask & 4U) != 0;
            options.exclude_same_id = (mask & 8U) != 0;
            options.threads = 1 + mask % 2;
            const std::size_t cap = (mask & 16U) != 0 ? 2 : 0;
            const Answer answer = oracle.answer(options, row_groups);
            const auto of_rows =
                expected(turned, 5, cap, query_groups, row_groups, options.exclude_same_group, options.exclude_same_id);
            for (const std::string& level : testing::levels()) {
                Searcher searcher(kDim, kRows, true, 0, level);
                searcher.add(oracle.base.view(), row_groups);
                ReverseTopk reverse(kRows, 5, cap);
                AnswerSink sink(kQueries);
                searcher.search(oracle.queries.view(), options, sink, nullptr, &reverse, nullptr, {});
                CAPTURE(static_cast<int>(kind));
                CAPTURE(level);
                CAPTURE(mask);
                CHECK(is_same(sink.answer, answer));
                CHECK(is_same(read(reverse), of_rows));
            }
        }
    }
}

TEST_CASE("queries that stream by in parts give the answer of all") {
    const Oracle oracle{make_rows(Kind::kIntegers, kQueries, kDim, 1), make_rows(Kind::kIntegers, kRows, kDim, 2)};
    const Oracle turned{oracle.base, oracle.queries};
    Searcher searcher(kDim, kRows, false, 0, "");
    searcher.add(oracle.base.view(), {});
    for (const std::size_t k : {1U, 3U, 200U}) {
        const auto whole = expected(turned, k, 0, {}, {}, false, false);
        for (const std::size_t step : {1U, 7U, 50U}) {
            ReverseTopk reverse(kRows, k, 0);
            for (std::size_t last = kQueries; last > 0;) {  // from the last to the first: the order is of no account
                const std::size_t first = last > step ? last - step : 0;
                SearchOptions options;
                options.first_query = static_cast<RowId>(first);
                options.k = 2;
                AnswerSink sink(last - first);
                searcher.search({oracle.queries.row(first), last - first, kDim, kDim}, options, sink, nullptr, &reverse,
                                nullptr, {});
                last = first;
            }
            CHECK(is_same(read(reverse), whole));
        }
    }
}

TEST_CASE("a reverse answer of another size, or a cap without groups, is refused") {
    const Rows rows = make_rows(Kind::kUnit, 4, 3, 1);
    Searcher searcher(3, 4, false, 0, "");
    searcher.add(rows.view(), {});
    AnswerSink sink(4);
    ReverseTopk other(5, 1, 0);
    CHECK_THROWS_AS(searcher.search(rows.view(), {}, sink, nullptr, &other, nullptr, {}), InvalidInput);
    ReverseTopk capped(4, 1, 1);
    CHECK_THROWS_AS(searcher.search(rows.view(), {}, sink, nullptr, &capped, nullptr, {}), InvalidInput);
}

TEST_SUITE_END();

}  // namespace deepssim
