// What a search really allocates, against what its plan says.
#include <doctest/doctest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <vector>

#include "deepssim/searcher.hpp"
#include "deepssim/tally.hpp"
#include "oracle.hpp"

namespace {

std::atomic<std::size_t> live_bytes{0};
std::atomic<std::size_t> peak_bytes{0};

void* counted(void* memory) {
    const std::size_t now = live_bytes.fetch_add(malloc_usable_size(memory)) + malloc_usable_size(memory);
    std::size_t peak = peak_bytes.load();
    while (now > peak && !peak_bytes.compare_exchange_weak(peak, now)) {
    }
    return memory;
}

void* counted_new(std::size_t size) {
    void* const memory = std::malloc(size == 0 ? 1 : size);  // NOLINT(cppcoreguidelines-no-malloc): what new is made of
    if (memory == nullptr) throw std::bad_alloc();
    return counted(memory);
}

void counted_delete(void* memory) noexcept {
    if (memory != nullptr) live_bytes.fetch_sub(malloc_usable_size(memory));
    std::free(memory);  // NOLINT(cppcoreguidelines-no-malloc)
}

}  // namespace

void* operator new(std::size_t size) { return counted_new(size); }
void* operator new[](std::size_t size) { return counted_new(size); }
void* operator new[](std::size_t size, std::align_val_t alignment) {
    void* const memory = std::aligned_alloc(static_cast<std::size_t>(alignment), (size + 63) / 64 * 64);
    if (memory == nullptr) throw std::bad_alloc();
    return counted(memory);
}
void operator delete[](void* memory, std::align_val_t /*alignment*/) noexcept { counted_delete(memory); }
void operator delete(void* memory) noexcept { counted_delete(memory); }
void operator delete[](void* memory) noexcept { counted_delete(memory); }
void operator delete(void* memory, std::size_t /*size*/) noexcept { counted_delete(memory); }
void operator delete[](void* memory, std::size_t /*size*/) noexcept { counted_delete(memory); }

namespace deepssim {

namespace {

using testing::Kind;
using testing::make_rows;
using testing::Rows;

class NullSink final : public Sink {
   public:
    void accept(const QueryResult& /*result*/) override {}
};

constexpr std::size_t kRows = 2000;
constexpr std::size_t kQueries = 100;

// Bytes that a search takes at its peak, beyond what was there before.
std::size_t bytes_of(const Searcher& searcher, const Rows& queries, const SearchOptions& options, RowTally* tally) {
    NullSink sink;
    const std::size_t before = live_bytes.load();
    peak_bytes.store(before);
    searcher.search(queries.view(), options, sink, tally, nullptr, nullptr, {});
    return peak_bytes.load() - before;
}

}  // namespace

TEST_SUITE_BEGIN("memory");

TEST_CASE("the base takes what the plan says") {
    const std::size_t before = live_bytes.load();
    const Searcher searcher(100, kRows, true, 0, "");
    const std::size_t taken = live_bytes.load() - before;
    const std::size_t planned = searcher.plan({}, 1, false, nullptr).base_bytes;
    constexpr std::size_t kPages = 16384;  // what the system rounds up
    CHECK(taken <= planned + kPages);
    CHECK(taken + kPages >= planned);
}

TEST_CASE("workers stay within the plan, whatever is asked and whatever the data") {
    for (const Kind kind : {Kind::kUnit, Kind::kNearTies}) {
        for (const std::size_t dim : {3U, 100U}) {
            const Rows queries = make_rows(kind, kQueries, dim, 1);
            const Rows base = make_rows(kind, kRows, dim, 2);
            std::vector<GroupId> groups(kRows);
            for (std::size_t i = 0; i < kRows; ++i) groups[i] = static_cast<GroupId>(i / 3);
            Searcher searcher(dim, kRows, true, 0, "");
            searcher.add(base.view(), groups);
            const std::vector<float> thresholds{0.0F, 0.5F};
            for (const std::size_t k : {1U, 200U}) {
                for (const std::size_t cap : {0U, 2U}) {
                    for (const std::size_t threads : {1U, 3U}) {
                        SearchOptions options;
                        options.k = k;
                        options.max_per_group = cap;
                        options.thresholds = thresholds;
                        options.max_listed = 50;
                        options.threads = threads;
                        RowTally tally(kRows, 2);
                        const Plan plan = searcher.plan(options, kQueries, true, nullptr);
                        // Threads, locks and errors take a little that no plan counts.
                        const std::size_t planned = plan.prepared_bytes + plan.threads * plan.worker_bytes +
                                                    kQueries * sizeof(double) + 4096 * threads;
                        CAPTURE(static_cast<int>(kind));
                        CAPTURE(dim);
                        CAPTURE(k);
                        CAPTURE(cap);
                        CAPTURE(threads);
                        CHECK(bytes_of(searcher, queries, options, &tally) <= planned);
                    }
                }
            }
        }
    }
}

TEST_CASE("a refused limit names one that works, whatever the number of threads") {
    const Rows queries = make_rows(Kind::kUnit, kQueries, 16, 1);
    const Rows base = make_rows(Kind::kUnit, kRows, 16, 2);
    Searcher searcher(16, kRows, false, 0, "");
    searcher.add(base.view(), {});
    for (const std::size_t threads : {1U, 2U, 8U}) {
        SearchOptions options;
        options.k = 40;
        options.threads = threads;
        options.memory_limit = 1000;
        NullSink sink;
        std::size_t minimum = 0;
        try {
            searcher.search(queries.view(), options, sink, nullptr, nullptr, nullptr, {});
        } catch (const MemoryLimitTooSmall& error) {
            minimum = error.minimum_bytes;
        }
        REQUIRE(minimum > 1000);
        options.memory_limit = minimum - 1;
        CHECK_THROWS_AS(searcher.search(queries.view(), options, sink, nullptr, nullptr, nullptr, {}),
                        MemoryLimitTooSmall);
        for (std::size_t limit = minimum; limit < 4 * minimum; limit += minimum / 16) {
            options.memory_limit = limit;
            CHECK(searcher.search(queries.view(), options, sink, nullptr, nullptr, nullptr, {}).pairs ==
                  static_cast<std::int64_t>(kQueries * kRows));
            CHECK(searcher.plan(options, kQueries, false, nullptr).total_bytes <= limit);
        }
    }
}

TEST_SUITE_END();

}  // namespace deepssim
