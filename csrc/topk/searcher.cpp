#include "deepssim/searcher.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>

#include "base_rows.hpp"
#include "common/parallel.hpp"
#include "deepssim/exact.hpp"
#include "deepssim/isa.hpp"
#include "prepared_base.hpp"
#include "simd/kernels.hpp"
#include "worker.hpp"

namespace deepssim {

namespace {

void check_options(const SearchOptions& options, std::size_t n_queries, const BaseRows& base, const RowTally* tally,
                   const ReverseTopk* reverse) {
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
    if (reverse != nullptr && reverse->rows() != base.rows()) {
        throw InvalidInput("the reverse answer was made for another number of base rows");
    }
    if (reverse != nullptr && reverse->max_per_group() != 0 && options.query_groups.empty() && n_queries > 0) {
        throw InvalidInput("a cap per group of the reverse answer needs groups of the queries");
    }
    if (tally == nullptr) return;
    if (tally->rows() != base.rows() || tally->levels() != options.thresholds.size()) {
        throw InvalidInput("the tally was made for another number of base rows or thresholds");
    }
}

// Upper bounds of the norms of queries. Throws InvalidInput naming the first that is not fit to be searched.
std::vector<double> checked_norms(MatrixView queries, std::size_t threads, const std::function<void()>& poll) {
    constexpr std::size_t kRun = 1024;
    std::vector<double> norms(queries.rows);
    std::atomic<bool> is_good{true};
    for_each_parallel(
        queries.rows, kRun, threads, poll, [] { return 0; },
        [&](std::size_t i, int) {
            norms[i] = norm_upper_bound(queries.row(i), queries.cols);
            if (!(norms[i] <= kMaxNorm)) is_good = false;
        });
    for (std::size_t i = 0; i < queries.rows && !is_good; ++i) checked_norm(queries.row(i), queries.cols, "query", i);
    return norms;
}

// Queries a thread takes at a time: as many blocks for each thread, all alike.
std::size_t block_size(std::size_t n_queries, const Plan& plan, std::size_t tile) {
    const std::size_t blocks = (n_queries + plan.query_block - 1) / plan.query_block;
    const std::size_t even = (blocks + plan.threads - 1) / plan.threads * plan.threads;
    const std::size_t size = (n_queries + even - 1) / even;
    return std::min(plan.query_block, (size + tile - 1) / tile * tile);
}

}  // namespace

Searcher::Searcher(std::size_t dim, std::size_t capacity, bool with_groups, RowId id_offset, std::string_view isa)
    : isa_(resolve_isa(isa)), id_offset_(id_offset) {
    PlanRequest request;  // refuses dimensions and sizes that cannot be
    request.dim = dim;
    request.base_rows = capacity;
    request.with_groups = with_groups;
    request.isa = isa_;
    plan_search(request);
    if (id_offset < 0 || capacity > static_cast<std::size_t>(std::numeric_limits<RowId>::max() - id_offset)) {
        throw InvalidInput("ids must lie between 0 and 2^63 - 1: the id offset " + std::to_string(id_offset) +
                           " does not allow that");
    }
    base_ = std::make_unique<BaseRows>(dim, capacity, with_groups);
}

Searcher::~Searcher() = default;

std::size_t Searcher::dim() const { return base_->dim(); }
std::size_t Searcher::capacity() const { return base_->capacity(); }

std::size_t Searcher::rows() const {
    const std::shared_lock lock(mutex_);
    return base_->rows();
}

std::size_t Searcher::sample(std::size_t first, std::size_t step, std::size_t most, float* out) const {
    const std::shared_lock lock(mutex_);
    std::size_t n = 0;
    for (std::size_t i = first; i < base_->rows() && n < most; i += step, ++n) {
        std::memcpy(out + n * dim(), base_->row(i), dim() * sizeof(float));
    }
    return n;
}

bool Searcher::is_prepared() const {
    const std::shared_lock lock(mutex_);
    return prepared_ != nullptr;
}

void Searcher::add(MatrixView rows, std::span<const GroupId> groups) {
    const std::unique_lock lock(mutex_);
    const FloatEnvironment environment;
    base_->add(rows, groups);
    prepared_.reset();
}

void Searcher::prepare(const Preparation& preparation, std::size_t threads, const std::function<void()>& poll) {
    const std::unique_lock lock(mutex_);
    prepare_locked(preparation, threads, poll);
}

void Searcher::prepare_locked(const Preparation& preparation, std::size_t threads,
                              const std::function<void()>& poll) const {
    const FloatEnvironment environment;
    prepared_.reset();
    prepared_ = std::make_unique<PreparedBase>(*base_, preparation, simd::kernels_for(isa_.c_str()),
                                               threads == 0 ? usable_processors() : threads, poll);
}

PreparedHeader Searcher::prepared_header() const {
    const std::shared_lock lock(mutex_);
    if (prepared_ == nullptr) throw InvalidInput("nothing was prepared yet");
    return prepared_->header();
}

void Searcher::write_prepared(const WriteBytes& write) const {
    const std::shared_lock lock(mutex_);
    if (prepared_ == nullptr) throw InvalidInput("nothing was prepared yet");
    prepared_->write(write);
}

void Searcher::forget_prepared() {
    const std::unique_lock lock(mutex_);
    prepared_.reset();
}

void Searcher::read_prepared(const PreparedHeader& header, const ReadBytes& read) {
    const std::unique_lock lock(mutex_);
    prepared_.reset();
    prepared_ = std::make_unique<PreparedBase>(*base_, header, simd::kernels_for(isa_.c_str()), read);
}

std::string_view Searcher::codes() const {
    const simd::Kernels& kernels = simd::kernels_for(isa_.c_str());
    switch (kernels.format) {
        case simd::CodeFormat::kInt8Offset:
            return "int8-offset";
        case simd::CodeFormat::kInt7Offset:
            return "int7-offset";
        case simd::CodeFormat::kInt8:
            break;
    }
    return kernels.step_multiple == 1 ? "int8" : "int8-64";  // padded to other lengths
}

Plan Searcher::plan(const SearchOptions& options, std::size_t n_queries, bool with_tally,
                    const ReverseTopk* reverse) const {
    PlanRequest request;
    request.base_rows = base_->capacity();
    request.dim = base_->dim();
    request.k = options.k;
    request.max_listed = options.max_listed;
    request.levels = options.thresholds.size();
    request.with_groups = base_->with_groups();
    request.with_cap = options.max_per_group != 0;
    request.with_tally = with_tally;
    request.with_rotation = options.may_rotate;
    request.reverse_k = reverse == nullptr ? 0 : reverse->k();
    request.with_reverse_cap = reverse != nullptr && reverse->max_per_group() != 0;
    request.threads = options.threads == 0 ? usable_processors() : options.threads;
    request.memory_limit = options.memory_limit;
    request.max_chunk_rows = n_queries;
    request.min_chunk_rows = n_queries;  // one call answers them all
    request.isa = isa_;
    return plan_search(request);
}

SearchStatistics Searcher::search(MatrixView queries, const SearchOptions& options, Sink& sink, RowTally* tally,
                                  ReverseTopk* reverse, const CancelToken* cancel,
                                  const std::function<void()>& poll) const {
    std::shared_lock lock(mutex_);
    const FloatEnvironment environment;
    if (queries.cols != dim()) {
        throw InvalidInput("queries have " + std::to_string(queries.cols) + " elements, the base rows have " +
                           std::to_string(dim()));
    }
    check_options(options, queries.rows, *base_, tally, reverse);
    if (queries.rows == 0) return {};
    const Plan plan = this->plan(options, queries.rows, tally != nullptr, reverse);
    const std::vector<double> norms = checked_norms(queries, plan.threads, poll);
    while (prepared_ == nullptr) {
        lock.unlock();
        {
            const std::unique_lock alone(mutex_);
            if (prepared_ == nullptr) prepare_locked({}, plan.threads, poll);
        }
        lock.lock();
        check_options(options, queries.rows, *base_, tally, reverse);  // rows may have come meanwhile
    }

    const simd::Kernels& kernels = simd::kernels_for(isa_.c_str());
    const std::size_t block = block_size(queries.rows, plan, kernels.tile_queries);
    const SearchContext context{*base_,  *prepared_, id_offset_, kernels, queries, norms,
                                options, block,      sink,       tally,   reverse};
    const std::size_t n_blocks = (queries.rows + block - 1) / block;
    std::atomic<std::size_t> next{0};
    std::mutex totals_mutex;
    SearchStatistics totals;
    const auto body = [&](const std::function<bool()>& failed) {
        Worker worker(context);
        const auto should_stop = [&] { return failed() || (cancel != nullptr && cancel->is_cancelled()); };
        for (std::size_t i = next++; i < n_blocks; i = next++) {
            const std::size_t first = i * block;
            worker.run(first, std::min(block, queries.rows - first), should_stop);
            if (should_stop()) throw Cancelled();
        }
        const std::lock_guard totals_lock(totals_mutex);
        totals.pairs += worker.statistics().pairs;
        totals.kept += worker.statistics().kept;
        totals.refined += worker.statistics().refined;
        totals.rescored += worker.statistics().rescored;
        totals.exact += worker.statistics().exact;
    };
    run_parallel(std::min(plan.threads, n_blocks), body, poll);
    return totals;
}

}  // namespace deepssim
