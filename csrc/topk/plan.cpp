#include "deepssim/plan.hpp"

#include <algorithm>
#include <limits>
#include <string>

#include "base_rows.hpp"
#include "deepssim/isa.hpp"
#include "deepssim/reverse.hpp"
#include "deepssim/tally.hpp"
#include "deepssim/types.hpp"
#include "keeper.hpp"
#include "prepared_base.hpp"
#include "simd/kernels.hpp"
#include "worker.hpp"

namespace deepssim {

namespace {

// A multiple of every tile. Large enough that a group of base rows, read once a block, costs nothing; small
// enough that the codes of 480 queries of 256 elements stay in the second-level cache.
constexpr std::size_t kQueryBlock = 480;

// More threads than any machine has are not planned for.
constexpr std::size_t kMostThreads = 1024;

// Products of sizes are taken in long double: none of them comes near its range.
void refuse_overflow(const PlanRequest& r) {
    const long double base =
        (static_cast<long double>(r.base_rows) + simd::kGroupRows) * static_cast<long double>(r.dim + 256) * 8;
    const long double listed = static_cast<long double>(r.k) + static_cast<long double>(r.max_listed);
    const long double row =
        static_cast<long double>(r.dim) * 4 + 16 + listed * 12 + static_cast<long double>(r.levels) * 8;
    const long double lists =
        (listed * 512 + static_cast<long double>(r.levels) * 8) * kQueryBlock * static_cast<long double>(kMostThreads);
    const long double tally =
        static_cast<long double>(r.base_rows) *
        (static_cast<long double>(r.levels) * 8 + static_cast<long double>(r.reverse_k) * 512 + 512);
    constexpr std::size_t kLimit = std::numeric_limits<std::size_t>::max() / 8;
    if (base + lists + tally + row * static_cast<long double>(r.max_chunk_rows) > static_cast<long double>(kLimit)) {
        throw InvalidInput("the sizes asked for overflow: reduce k or the number of pairs listed a query");
    }
}

Plan fixed_parts(const PlanRequest& r, const simd::Kernels& kernels, std::size_t threads, std::size_t query_block) {
    Plan plan;
    plan.threads = threads;
    plan.query_block = query_block;
    plan.base_bytes = base_rows_bytes(r.dim, r.base_rows, r.with_groups);
    plan.prepared_bytes = PreparedBase::bytes(r.dim, r.base_rows, r.with_rotation, threads, kernels);
    plan.tally_bytes = (r.with_tally ? r.base_rows * (r.levels * sizeof(std::int64_t) + sizeof(Match)) : 0) +
                       (r.reverse_k > 0 ? ReverseTopk::bytes(r.base_rows, r.reverse_k, r.with_reverse_cap) : 0);
    plan.worker_bytes = Worker::bytes(r, query_block, kernels);
    plan.row_bytes = r.dim * sizeof(float) + sizeof(GroupId) + sizeof(double) +
                     (r.k + r.max_listed) * (sizeof(float) + sizeof(RowId)) + r.levels * sizeof(std::int64_t);
    return plan;
}

std::size_t fixed_bytes(const Plan& plan) {
    return plan.base_bytes + plan.prepared_bytes + plan.tally_bytes + plan.threads * plan.worker_bytes;
}

Plan with_chunk(Plan plan, std::size_t rows) {
    plan.chunk_rows = rows;
    plan.total_bytes = fixed_bytes(plan) + rows * plan.row_bytes;
    return plan;
}

}  // namespace

Plan plan_search(const PlanRequest& r) {
    if (r.dim == 0 || r.dim > kMaxDim) {
        throw InvalidInput("rows must have 1 to 65,536 elements, not " + std::to_string(r.dim));
    }
    refuse_overflow(r);
    const simd::Kernels& kernels = simd::kernels_for(resolve_isa(r.isa).c_str());
    const std::size_t most_rows = std::max<std::size_t>(1, r.max_chunk_rows);
    const std::size_t least_rows = std::clamp<std::size_t>(r.min_chunk_rows, 1, most_rows);
    const std::size_t threads =
        std::clamp<std::size_t>(r.threads, 1, std::min(most_rows, kMostThreads));  // more would have no work
    if (r.memory_limit == 0) return with_chunk(fixed_parts(r, kernels, threads, kQueryBlock), most_rows);

    for (const std::size_t block : {kQueryBlock, kQueryBlock / 5, simd::kMaxTileQueries, std::size_t{1}}) {
        for (std::size_t n = threads; n >= 1; --n) {
            const Plan plan = fixed_parts(r, kernels, n, block);
            const std::size_t fixed = fixed_bytes(plan);
            if (fixed >= r.memory_limit) continue;
            const std::size_t rows = std::min(most_rows, (r.memory_limit - fixed) / plan.row_bytes);
            if (rows >= std::max(least_rows, std::min(most_rows, n * block))) return with_chunk(plan, rows);
        }
    }
    const std::size_t minimum = with_chunk(fixed_parts(r, kernels, 1, 1), least_rows).total_bytes;
    const bool is_one_row = least_rows == 1;
    throw MemoryLimitTooSmall(
        "a search of " + std::to_string(r.base_rows) + " rows of " + std::to_string(r.dim) + " elements" +
            (is_one_row ? "" : " by " + std::to_string(least_rows) + " queries at a time") + " needs at least " +
            std::to_string(minimum) + " bytes, the limit is " + std::to_string(r.memory_limit) +
            (is_one_row ? "" : "; raise it, or search fewer queries at a time"),
        minimum);
}

}  // namespace deepssim
