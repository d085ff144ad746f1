#include "deepssim/searcher.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>

#include "deepssim/exact.hpp"
#include "deepssim/isa.hpp"
#include "packed_base.hpp"
#include "parallel.hpp"
#include "simd/kernels.hpp"
#include "worker.hpp"

namespace deepssim {

namespace {

void check_options(const SearchOptions& options, std::size_t n_queries, const PackedBase& base, const RowTally* tally) {
    if (!options.query_groups.empty() && options.query_groups.size() != n_queries) {
        throw InvalidInput("expected " + std::to_string(n_queries) + " query groups, got " +
                           std::to_string(options.query_groups.size()));
    }
    if (options.first_query < 0 ||
        n_queries > static_cast<std::size_t>(std::numeric_limits<RowId>::max() - options.first_query)) {
        throw InvalidInput("query ids must lie between 0 and 2^63 - 1: the first query's, " +
                           std::to_string(options.first_query) + ", does not allow that");
    }
    if (options.exclude_same_group && !base.with_groups()) {
        throw InvalidInput("excluding the same group needs groups of the base rows");
    }
    if (options.exclude_same_group && options.query_groups.empty() && n_queries > 0) {
        throw InvalidInput("excluding the same group needs groups of the queries");
    }
    if (options.max_per_group != 0 && !base.with_groups()) {
        throw InvalidInput("a cap per group needs groups of the base rows");
    }
    for (std::size_t i = 0; i < options.thresholds.size(); ++i) {
        if (!std::isfinite(options.thresholds[i])) throw InvalidInput("thresholds must be finite");
        if (i > 0 && !(options.thresholds[i - 1] < options.thresholds[i])) {
            throw InvalidInput("thresholds must ascend");
        }
    }
    if (options.max_listed > 0 && options.thresholds.empty()) {
        throw InvalidInput("listing pairs needs a threshold");
    }
    if (tally == nullptr) return;
    if (tally->rows() != base.rows() || tally->levels() != options.thresholds.size()) {
        throw InvalidInput("the tally was made for another number of base rows or thresholds");
    }
}

}  // namespace

Searcher::Searcher(std::size_t dim, std::size_t capacity, bool with_groups, RowId id_offset, std::string_view isa)
    : isa_(resolve_isa(isa)), id_offset_(id_offset) {
    PlanRequest request;  // refuses dimensions and sizes that cannot be
    request.dim = dim;
    request.base_rows = capacity;
    request.with_groups = with_groups;
    plan_search(request);
    if (id_offset < 0 || capacity > static_cast<std::size_t>(std::numeric_limits<RowId>::max() - id_offset)) {
        throw InvalidInput("ids must lie between 0 and 2^63 - 1: the id offset " + std::to_string(id_offset) +
                           " does not allow that");
    }
    base_ = std::make_unique<PackedBase>(dim, capacity, with_groups);
}

Searcher::~Searcher() = default;

std::size_t Searcher::dim() const { return base_->dim(); }
std::size_t Searcher::capacity() const { return base_->capacity(); }

std::size_t Searcher::rows() const {
    const std::shared_lock lock(mutex_);
    return base_->rows();
}

void Searcher::add(MatrixView rows, std::span<const GroupId> groups) {
    const std::unique_lock lock(mutex_);
    const FloatEnvironment environment;
    base_->add(rows, groups);
}

Plan Searcher::plan(const SearchOptions& options, std::size_t n_queries, bool with_tally) const {
    PlanRequest request;
    request.base_rows = base_->capacity();
    request.dim = base_->dim();
    request.k = options.k;
    request.max_listed = options.max_listed;
    request.levels = options.thresholds.size();
    request.with_groups = base_->with_groups();
    request.with_tally = with_tally;
    request.threads = options.threads == 0 ? usable_processors() : options.threads;
    request.memory_limit = options.memory_limit;
    request.max_chunk_rows = n_queries;
    request.min_chunk_rows = n_queries;  // one call answers them all
    return plan_search(request);
}

SearchStatistics Searcher::search(MatrixView queries, const SearchOptions& options, Sink& sink, RowTally* tally,
                                  const CancelToken* cancel, const std::function<void()>& poll) const {
    const std::shared_lock lock(mutex_);
    const FloatEnvironment environment;
    if (queries.cols != dim()) {
        throw InvalidInput("queries have " + std::to_string(queries.cols) + " elements, the base rows have " +
                           std::to_string(dim()));
    }
    check_options(options, queries.rows, *base_, tally);
    if (queries.rows == 0) return {};
    const Plan plan = this->plan(options, queries.rows, tally != nullptr);
    std::vector<double> norms(queries.rows);
    for (std::size_t i = 0; i < queries.rows; ++i) norms[i] = checked_norm(queries.row(i), dim(), "query", i);

    const SearchContext context{*base_, id_offset_, simd::kernels_for(isa_.c_str()), queries, norms, options, plan,
                                sink,   tally};
    const std::size_t n_blocks = (queries.rows + plan.query_block - 1) / plan.query_block;
    std::atomic<std::size_t> next{0};
    std::mutex totals_mutex;
    SearchStatistics totals;
    const auto body = [&](const std::function<bool()>& failed) {
        Worker worker(context);
        const auto should_stop = [&] { return failed() || (cancel != nullptr && cancel->is_cancelled()); };
        for (std::size_t block = next++; block < n_blocks; block = next++) {
            const std::size_t first = block * plan.query_block;
            worker.run(first, std::min(plan.query_block, queries.rows - first), should_stop);
            if (should_stop()) throw Cancelled();
        }
        const std::lock_guard totals_lock(totals_mutex);
        totals.pairs += worker.statistics().pairs;
        totals.rescored += worker.statistics().rescored;
        totals.exact += worker.statistics().exact;
    };
    run_parallel(std::min(plan.threads, n_blocks), body, poll);
    return totals;
}

}  // namespace deepssim
