// Groups, caps, ids, empty sizes, sinks, inputs that are refused.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

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

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<GroupId> make_groups(std::size_t n, std::size_t n_groups, std::uint64_t seed) {
    testing::Rng rng(seed);
    std::vector<GroupId> groups;
    for (std::size_t i = 0; i < n; ++i) groups.push_back(static_cast<GroupId>(testing::below(rng, n_groups + 1)) - 1);
    return groups;
}

Answer run(const Searcher& searcher, const Rows& queries, const SearchOptions& options) {
    AnswerSink sink(queries.rows);
    searcher.search(queries.view(), options, sink, nullptr, nullptr, nullptr, {});
    CHECK(sink.is_complete());
    return sink.answer;
}

}  // namespace

TEST_SUITE_BEGIN("search_options");

TEST_CASE("pairs of a group or id are left out, and caps hold") {
    constexpr std::size_t kRows = 300;
    constexpr std::size_t kQueries = 61;
    constexpr RowId kOffset = 1000;
    for (const Kind kind : {Kind::kUnit, Kind::kIntegers, Kind::kNearTies}) {
        const Oracle oracle{make_rows(kind, kQueries, 12, 1), make_rows(kind, kRows, 12, 2)};
        // With three groups and a cap of one, k can never be filled but by rows of no group.
        for (const std::size_t n_groups : {3U, 40U}) {
            const std::vector<GroupId> groups = make_groups(kRows, n_groups, 3);
            const std::vector<GroupId> query_groups = make_groups(kQueries, n_groups, 4);
            const std::vector<float> thresholds{oracle.quantile(0.7), 1e30F};
            for (unsigned mask = 0; mask < 12; ++mask) {
                SearchOptions options;
                options.k = 7;
                options.threads = 2;
                options.thresholds = thresholds;
                options.max_listed = 5;
                options.query_groups = query_groups;
                options.first_query = kOffset + 5;
                options.exclude_same_group = (mask & 1U) != 0;
                options.exclude_same_id = (mask & 2U) != 0;
                options.max_per_group = mask / 4;
                const Answer answer = oracle.answer(options, groups, kOffset);
                for (const std::string& level : testing::levels()) {
                    Searcher searcher(12, kRows, true, kOffset, level);
                    searcher.add(oracle.base.view(), groups);
                    CAPTURE(static_cast<int>(kind));
                    CAPTURE(n_groups);
                    CAPTURE(level);
                    CAPTURE(mask);
                    CHECK(is_same(run(searcher, oracle.queries, options), answer));
                }
            }
        }
    }
}

TEST_CASE("rows of no group are neither excluded nor capped") {
    const Oracle oracle{make_rows(Kind::kUnit, 3, 5, 1), make_rows(Kind::kUnit, 40, 5, 2)};
    const std::vector<GroupId> none(40, kNoGroup);
    const std::vector<GroupId> none_either(3, kNoGroup);
    Searcher searcher(5, 40, true, 0, "");
    searcher.add(oracle.base.view(), none);
    SearchOptions plain;
    plain.k = 20;
    SearchOptions strict = plain;
    strict.max_per_group = 1;
    strict.exclude_same_group = true;
    strict.query_groups = none_either;
    CHECK(is_same(run(searcher, oracle.queries, strict), oracle.answer(plain)));
}

TEST_CASE("k = 0, k over the rows, no rows and no queries are legal") {
    const Rows queries = make_rows(Kind::kUnit, 3, 6, 1);
    const Rows base = make_rows(Kind::kUnit, 5, 6, 2);
    Searcher searcher(6, 5, false, 0, "");
    SearchOptions options;
    options.k = 3;
    CHECK(is_same(run(searcher, queries, options), Answer(3)));
    searcher.add({base.row(0), 0, 6, 6}, {});
    CHECK(searcher.rows() == 0);
    searcher.add(base.view(), {});
    options.k = 0;
    CHECK(is_same(run(searcher, queries, options), Answer(3)));
    options.k = 100;
    CHECK(is_same(run(searcher, queries, options), Oracle(queries, base).answer(options)));
    options.k = 3;
    const Rows none{0, 6, {}};
    CHECK(run(searcher, none, options).best.empty());
    Searcher empty(6, 0, false, 0, "");
    CHECK(is_same(run(empty, queries, options), Answer(3)));
}

TEST_CASE("rows added in parts are the rows added at once") {
    const Oracle oracle{make_rows(Kind::kIntegers, 5, 10, 1), make_rows(Kind::kIntegers, 100, 10, 2)};
    Searcher searcher(10, 200, false, 0, "");
    for (std::size_t first = 0; first < 100;) {
        const std::size_t count = std::min<std::size_t>(1 + first / 3, 100 - first);
        searcher.add({oracle.base.row(first), count, 10, 10}, {});
        first += count;
    }
    CHECK(searcher.rows() == 100);
    SearchOptions options;
    options.k = 30;
    CHECK(is_same(run(searcher, oracle.queries, options), oracle.answer(options)));
}

TEST_CASE("any row stride, backwards too") {
    const Oracle oracle{make_rows(Kind::kUnit, 4, 7, 1), make_rows(Kind::kUnit, 30, 7, 2)};
    Rows spaced{30, 11, std::vector<float>(330, kNan)};  // nothing beyond a row's elements may be read
    for (std::size_t i = 0; i < 30; ++i) std::copy_n(oracle.base.row(i), 7, spaced.row(29 - i));
    Searcher searcher(7, 30, false, 0, "");
    searcher.add({spaced.row(29), 30, 7, -11}, {});
    SearchOptions options;
    options.k = 30;
    CHECK(is_same(run(searcher, oracle.queries, options), oracle.answer(options)));
}

TEST_CASE("add is all or nothing and names the row") {
    const Rows good = make_rows(Kind::kUnit, 20, 8, 1);
    for (const float bad : {kNan, kInfinity, -kInfinity, 0x1p64F}) {
        Searcher searcher(8, 40, false, 0, "");
        searcher.add(good.view(), {});
        Rows rows = good;
        rows.row(13)[7] = bad;
        CHECK_THROWS_WITH_AS(searcher.add(rows.view(), {}), doctest::Contains("base row 13 "), InvalidInput);
        CHECK(searcher.rows() == 20);
        searcher.add(good.view(), {});  // the room is still there, and what follows is searched right
        CHECK(searcher.rows() == 40);
        SearchOptions options;
        options.k = 2;
        const Answer answer = run(searcher, good, options);
        for (std::size_t i = 0; i < 20; ++i) {
            REQUIRE(answer.best[i].size() == 2);
            CHECK(answer.best[i][0].id == static_cast<RowId>(i));
            CHECK(answer.best[i][1].id == static_cast<RowId>(i + 20));
        }
        AnswerSink sink(20);
        CHECK_THROWS_WITH_AS(searcher.search(rows.view(), options, sink, nullptr, nullptr, nullptr, {}),
                             doctest::Contains("query row 13 "), InvalidInput);
    }
}

TEST_CASE("shapes that do not fit are refused") {
    const Rows rows = make_rows(Kind::kUnit, 3, 8, 1);
    const std::vector<GroupId> groups(3);
    Searcher plain(8, 2, false, 0, "");
    CHECK_THROWS_WITH_AS(plain.add(rows.view(), {}), doctest::Contains("no room for 3"), InvalidInput);
    Searcher other(9, 3, false, 0, "");
    CHECK_THROWS_WITH_AS(other.add(rows.view(), {}), doctest::Contains("8 elements"), InvalidInput);
    Searcher ungrouped(8, 3, false, 0, "");
    CHECK_THROWS_AS(ungrouped.add(rows.view(), groups), InvalidInput);
    Searcher grouped(8, 3, true, 0, "");
    CHECK_THROWS_AS(grouped.add(rows.view(), {}), InvalidInput);
    CHECK_THROWS_AS(grouped.add(rows.view(), std::span(groups).first(2)), InvalidInput);
    CHECK_THROWS_AS(Searcher(0, 1, false, 0, ""), InvalidInput);
    CHECK_THROWS_AS(Searcher(kMaxDim + 1, 1, false, 0, ""), InvalidInput);
    CHECK_THROWS_AS(Searcher(8, 1, false, -1, ""), InvalidInput);
    CHECK_THROWS_AS(Searcher(8, 3, false, std::numeric_limits<RowId>::max() - 1, ""), InvalidInput);
}

TEST_CASE("options that contradict the base are refused") {
    const Rows rows = make_rows(Kind::kUnit, 3, 8, 1);
    Searcher searcher(8, 3, false, 0, "");
    searcher.add(rows.view(), {});
    const std::vector<GroupId> two(2);
    const std::vector<GroupId> three(3);
    const std::vector<float> falling{0.5F, 0.4F};
    const std::vector<float> equal{0.5F, 0.5F};
    const std::vector<float> nan{kNan};
    const std::vector<float> infinite{kInfinity};
    const auto refuses = [&](const SearchOptions& options, RowTally* tally = nullptr) {
        AnswerSink sink(3);
        CHECK_THROWS_AS(searcher.search(rows.view(), options, sink, tally, nullptr, nullptr, {}), InvalidInput);
    };
    refuses({.query_groups = two});
    refuses({.exclude_same_group = true, .query_groups = three});
    refuses({.max_per_group = 1});
    refuses({.thresholds = falling});
    refuses({.thresholds = equal});
    refuses({.thresholds = nan});
    refuses({.thresholds = infinite});
    refuses({.max_listed = 1});
    refuses({.first_query = -1});
    refuses({.first_query = std::numeric_limits<RowId>::max()});
    RowTally wrong_rows(4, 0);
    refuses({}, &wrong_rows);
    RowTally wrong_levels(3, 1);
    refuses({}, &wrong_levels);
    Searcher grouped(8, 3, true, 0, "");
    grouped.add(rows.view(), three);
    AnswerSink sink(3);
    CHECK_THROWS_AS(grouped.search(rows.view(), {.exclude_same_group = true}, sink, nullptr, nullptr, nullptr, {}),
                    InvalidInput);
    const Rows narrow = make_rows(Kind::kUnit, 3, 7, 1);
    CHECK_THROWS_AS(searcher.search(narrow.view(), {}, sink, nullptr, nullptr, nullptr, {}), InvalidInput);
}

TEST_CASE("an array sink pads, a count sink totals") {
    const Oracle oracle{make_rows(Kind::kIntegers, 4, 3, 1), make_rows(Kind::kIntegers, 6, 3, 2)};
    Searcher searcher(3, 6, false, 0, "");
    searcher.add(oracle.base.view(), {});
    const std::vector<float> thresholds{1.0F, 2.0F};
    SearchOptions options;
    options.k = 8;
    options.max_listed = 7;
    options.thresholds = thresholds;
    std::vector<float> scores(32);
    std::vector<RowId> ids(32);
    std::vector<float> listed_scores(28);
    std::vector<RowId> listed_ids(28);
    std::vector<std::int64_t> counts(8);
    ArraySink arrays({scores.data(), ids.data(), 8}, {listed_scores.data(), listed_ids.data(), 7}, counts.data(), 2);
    searcher.search(oracle.queries.view(), options, arrays, nullptr, nullptr, nullptr, {});
    CountSink totals(2);
    searcher.search(oracle.queries.view(), options, totals, nullptr, nullptr, nullptr, {});

    const Answer expected = oracle.answer(options);
    std::vector<std::int64_t> pairs(2);
    std::vector<std::int64_t> queries(2);
    for (std::size_t q = 0; q < 4; ++q) {
        for (std::size_t place = 0; place < 8; ++place) {
            const Match match = place < expected.best[q].size() ? expected.best[q][place] : kPadding;
            CHECK(scores[q * 8 + place] == match.score);
            CHECK(ids[q * 8 + place] == match.id);
        }
        for (std::size_t place = 0; place < 7; ++place) {
            const Match match = place < expected.listed[q].size() ? expected.listed[q][place] : kPadding;
            CHECK(listed_scores[q * 7 + place] == match.score);
            CHECK(listed_ids[q * 7 + place] == match.id);
        }
        for (std::size_t level = 0; level < 2; ++level) {
            CHECK(counts[q * 2 + level] == expected.counts[q][level]);
            pairs[level] += expected.counts[q][level];
            queries[level] += expected.counts[q][level] > 0 ? 1 : 0;
        }
    }
    CHECK(totals.pairs() == pairs);
    CHECK(totals.queries() == queries);
}

TEST_SUITE_END();

}  // namespace deepssim
