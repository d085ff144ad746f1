#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "deepssim/plan.hpp"
#include "deepssim/types.hpp"

namespace deepssim {

namespace {

std::vector<PlanRequest> make_requests() {
    std::vector<PlanRequest> out;
    for (const std::size_t rows : {0U, 1U, 1000U, 300000U}) {
        for (const std::size_t dim : {1U, 64U, 1000U, 65536U}) {
            for (const std::size_t k : {0U, 1U, 100U}) {
                for (const std::size_t threads : {1U, 3U, 16U}) {
                    PlanRequest request;
                    request.base_rows = rows;
                    request.dim = dim;
                    request.k = k;
                    request.max_listed = k / 2;
                    request.levels = k % 3;
                    request.with_groups = k > 1;
                    request.with_tally = k > 0;
                    request.threads = threads;
                    out.push_back(request);
                }
            }
        }
    }
    return out;
}

// 0 where a plan is found, else the smallest limit that the refusal names.
std::size_t refusal(const PlanRequest& request) {
    try {
        plan_search(request);
    } catch (const MemoryLimitTooSmall& error) {
        return error.minimum_bytes;
    }
    return 0;
}

bool is_consistent(const Plan& plan, const PlanRequest& r) {
    const std::size_t most = std::max<std::size_t>(1, r.max_chunk_rows);
    return plan.threads >= 1 && plan.threads <= r.threads && plan.query_block >= 1 &&
           plan.chunk_rows >= std::min(most, r.min_chunk_rows) && plan.chunk_rows <= most &&
           plan.total_bytes == plan.base_bytes + plan.prepared_bytes + plan.tally_bytes +
                                   plan.threads * plan.worker_bytes + plan.chunk_rows * plan.row_bytes;
}

}  // namespace

TEST_SUITE_BEGIN("plan");

TEST_CASE("without a limit the plan takes all threads and one full chunk") {
    for (PlanRequest request : make_requests()) {
        const Plan plan = plan_search(request);
        CHECK(is_consistent(plan, request));
        CHECK(plan.threads == request.threads);
        CHECK(plan.chunk_rows == request.max_chunk_rows);
    }
}

TEST_CASE("a plan keeps to its limit, and a refusal names the smallest limit that works") {
    for (PlanRequest request : make_requests()) {
        for (const std::size_t rows : {1U, 5U, 1000U}) {
            request.min_chunk_rows = rows;
            request.memory_limit = 1;
            const std::size_t minimum = refusal(request);
            REQUIRE(minimum > 1);
            request.memory_limit = minimum - 1;
            CHECK(refusal(request) == minimum);
            for (const std::size_t limit : {minimum, minimum + 1, minimum + 100000, 2 * minimum, 64 * minimum}) {
                request.memory_limit = limit;
                REQUIRE(refusal(request) == 0);  // what works under a limit works under a larger one
                const Plan plan = plan_search(request);
                CHECK(is_consistent(plan, request));
                CHECK(plan.total_bytes <= limit);
            }
        }
    }
}

TEST_CASE("a larger limit never takes threads or blocks away") {
    PlanRequest request;
    request.base_rows = 20000;
    request.dim = 256;
    request.k = 10;
    request.threads = 8;
    request.memory_limit = 1;
    const std::size_t minimum = refusal(request);
    Plan last;
    last.threads = last.query_block = 0;
    for (std::size_t limit = minimum; limit < 3 * minimum; limit += minimum / 300) {
        request.memory_limit = limit;
        const Plan plan = plan_search(request);
        CHECK(plan.query_block >= last.query_block);
        if (plan.query_block == last.query_block) CHECK(plan.threads >= last.threads);
        last = plan;
    }
    CHECK(last.threads == 8);
}

TEST_CASE("more threads than queries are not planned for") {
    PlanRequest request;
    request.threads = std::numeric_limits<std::size_t>::max();
    request.max_chunk_rows = 3;
    CHECK(plan_search(request).threads == 3);
    request.memory_limit = 1;
    CHECK_THROWS_AS(plan_search(request), MemoryLimitTooSmall);
}

TEST_CASE("sizes that cannot be are refused, also where they would wrap round") {
    PlanRequest request;
    for (const std::size_t dim : {std::size_t{0}, kMaxDim + 1, std::numeric_limits<std::size_t>::max()}) {
        request.dim = dim;
        CHECK_THROWS_AS(plan_search(request), InvalidInput);
    }
    request.dim = kMaxDim;
    CHECK(plan_search(request).chunk_rows == request.max_chunk_rows);
    constexpr std::size_t kHuge = std::size_t{1} << 63;
    request.k = kHuge;
    request.max_listed = kHuge;  // their sum wraps to zero
    CHECK_THROWS_AS(plan_search(request), InvalidInput);
    request.k = request.max_listed = 0;
    for (const std::size_t rows : {std::numeric_limits<std::size_t>::max(), kHuge, std::size_t{1} << 48}) {
        request.base_rows = rows;
        CHECK_THROWS_AS(plan_search(request), InvalidInput);
    }
}

TEST_SUITE_END();

}  // namespace deepssim
