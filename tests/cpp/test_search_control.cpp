// Cancelling, errors that come out, searches side by side.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

#include "common/parallel.hpp"
#include "deepssim/searcher.hpp"
#include "deepssim/tally.hpp"
#include "oracle.hpp"

namespace deepssim {

namespace {

using testing::AnswerSink;
using testing::is_same;
using testing::Kind;
using testing::make_rows;
using testing::Oracle;
using testing::Rows;

class SinkError : public std::runtime_error {
   public:
    using std::runtime_error::runtime_error;
};

// Fails at one query.
class FailingSink final : public Sink {
   public:
    explicit FailingSink(std::size_t query) : query_(query) {}
    void accept(const QueryResult& result) override {
        if (result.query == query_) throw SinkError("the disk is full");
    }

   private:
    std::size_t query_;
};

// Holds every worker until it is opened, so that a search cannot end before.
class GatedSink final : public Sink {
   public:
    void accept(const QueryResult& /*result*/) override {
        accepted_.fetch_add(1);
        while (!is_open_.load()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    void open() { is_open_.store(true); }
    std::size_t accepted() const { return accepted_.load(); }

   private:
    std::atomic<bool> is_open_{false};
    std::atomic<std::size_t> accepted_{0};
};

}  // namespace

TEST_SUITE_BEGIN("search_control");

TEST_CASE("a token set before ends a search at once, the searcher stays usable") {
    const Oracle oracle{make_rows(Kind::kUnit, 10, 8, 1), make_rows(Kind::kUnit, 50, 8, 2)};
    Searcher searcher(8, 50, false, 0, "");
    searcher.add(oracle.base.view(), {});
    CancelToken token;
    token.cancel();
    SearchOptions options;
    options.k = 3;
    AnswerSink sink(10);
    CHECK_THROWS_AS(searcher.search(oracle.queries.view(), options, sink, nullptr, nullptr, &token, {}), Cancelled);
    AnswerSink again(10);
    const CancelToken unset;
    searcher.search(oracle.queries.view(), options, again, nullptr, nullptr, &unset, {});
    CHECK(is_same(again.answer, oracle.answer(options)));
}

TEST_CASE("a token set from another thread ends a search that runs") {
    const Rows queries = make_rows(Kind::kUnit, 5000, 8, 1);
    const Rows base = make_rows(Kind::kUnit, 50, 8, 2);
    Searcher searcher(8, 50, false, 0, "");
    searcher.add(base.view(), {});
    CancelToken token;
    GatedSink sink;
    SearchOptions options;
    options.k = 1;
    options.threads = 2;
    std::jthread canceller([&] {
        while (sink.accepted() == 0) std::this_thread::yield();
        token.cancel();
        sink.open();
    });
    CHECK_THROWS_AS(searcher.search(queries.view(), options, sink, nullptr, nullptr, &token, {}), Cancelled);
    CHECK(sink.accepted() < queries.rows);  // each worker ended after the block it was in
}

TEST_CASE("what a sink throws reaches the caller") {
    const Rows queries = make_rows(Kind::kUnit, 300, 8, 1);
    const Rows base = make_rows(Kind::kUnit, 50, 8, 2);
    Searcher searcher(8, 50, false, 0, "");
    searcher.add(base.view(), {});
    for (const std::size_t threads : {1U, 4U}) {
        for (const std::size_t query : {0U, 150U, 299U}) {
            FailingSink sink(query);
            SearchOptions options;
            options.k = 1;
            options.threads = threads;
            CHECK_THROWS_WITH_AS(searcher.search(queries.view(), options, sink, nullptr, nullptr, nullptr, {}),
                                 "the disk is full", SinkError);
        }
    }
}

TEST_CASE("what poll throws ends the search and reaches the caller, on its own thread") {
    const Rows queries = make_rows(Kind::kUnit, 300, 8, 1);
    const Rows base = make_rows(Kind::kUnit, 50, 8, 2);
    Searcher searcher(8, 50, false, 0, "");
    searcher.add(base.view(), {});
    GatedSink sink;
    SearchOptions options;
    options.k = 1;
    options.threads = 2;
    int calls = 0;
    const auto caller = std::this_thread::get_id();
    bool is_elsewhere = false;
    const auto poll = [&] {
        is_elsewhere = is_elsewhere || std::this_thread::get_id() != caller;
        if (++calls < 3) return;
        sink.open();
        throw SinkError("interrupted");
    };
    CHECK_THROWS_WITH_AS(searcher.search(queries.view(), options, sink, nullptr, nullptr, nullptr, poll), "interrupted",
                         SinkError);
    CHECK(calls == 3);
    CHECK_FALSE(is_elsewhere);
}

TEST_CASE("searches side by side, while rows are added, all answer right") {
    const Oracle oracle{make_rows(Kind::kIntegers, 60, 6, 1), make_rows(Kind::kIntegers, 120, 6, 2)};
    Searcher searcher(6, 240, false, 0, "");
    searcher.add(oracle.base.view(), {});
    const std::vector<float> thresholds{2.0F};
    SearchOptions options;
    options.k = 4;
    options.threads = 2;
    options.thresholds = thresholds;
    options.max_listed = 3;
    const testing::Answer expected = oracle.answer(options);
    // The same rows once more: ties, so the best stay those with the lower ids; counts double.
    testing::Answer doubled = expected;
    for (auto& counts : doubled.counts) counts[0] *= 2;
    std::atomic<int> wrong{0};
    {
        std::vector<std::jthread> callers;
        callers.reserve(4);
        for (int caller = 0; caller < 4; ++caller) {
            callers.emplace_back([&] {
                for (int round = 0; round < 5; ++round) {
                    AnswerSink sink(60);
                    searcher.search(oracle.queries.view(), options, sink, nullptr, nullptr, nullptr, {});
                    const bool is_right = sink.answer.counts == expected.counts || sink.answer.counts == doubled.counts;
                    if (!is_right) ++wrong;
                }
            });
        }
        searcher.add(oracle.base.view(), {});
    }
    CHECK(wrong == 0);
    CHECK(searcher.rows() == 240);
}

TEST_CASE("one tally takes the counts of searches side by side") {
    const Oracle oracle{make_rows(Kind::kUnit, 120, 6, 1), make_rows(Kind::kUnit, 80, 6, 2)};
    Searcher searcher(6, 80, false, 0, "");
    searcher.add(oracle.base.view(), {});
    const std::vector<float> thresholds{oracle.quantile(0.5), oracle.quantile(0.9)};
    RowTally tally(80, 2);
    {
        std::vector<std::jthread> callers;
        callers.reserve(4);
        for (std::size_t part = 0; part < 4; ++part) {
            callers.emplace_back([&, part] {
                SearchOptions options;
                options.thresholds = thresholds;
                options.threads = 1;
                options.first_query = static_cast<RowId>(part * 30);
                CountSink sink(2);
                searcher.search({oracle.queries.row(part * 30), 30, 6, 6}, options, sink, &tally, nullptr, nullptr, {});
            });
        }
    }
    SearchOptions whole;
    whole.thresholds = thresholds;
    CHECK(tally.counts() == oracle.tally_counts(whole));
    CHECK(is_same(tally.best(), oracle.tally_best(whole)));
}

TEST_CASE("the first error of a crew stops the others") {
    std::atomic<int> stopped{0};
    std::atomic<int> started{0};
    const auto body = [&](const std::function<bool()>& should_stop) {
        if (started.fetch_add(1) == 0) throw SinkError("first");
        while (!should_stop()) std::this_thread::yield();
        ++stopped;
    };
    CHECK_THROWS_WITH_AS(run_parallel(4, body, {}), "first", SinkError);
    CHECK(stopped == 3);
    CHECK(usable_processors() >= 1);
}

TEST_SUITE_END();

}  // namespace deepssim
