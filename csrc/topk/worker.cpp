#include "worker.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "compare.hpp"
#include "deepssim/exact.hpp"
#include "deepssim/merge.hpp"

namespace deepssim {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::size_t kBuffered = 16384;  // entries of a tally or of the reverse answer

// Candidates of a query that wait for its threshold to rise before any is scored: enough of them to hold the
// answer several times over, within reason.
std::size_t pending_limit(std::size_t k) { return std::clamp<std::size_t>(16 * k, 512, 2048); }

// New candidates after which those that were beaten meanwhile are dropped.
std::size_t settle_after(std::size_t k) { return std::clamp<std::size_t>(k, 128, 256); }

// Groups of a query that are looked at before the scan: enough rows to hold several answers.
std::size_t n_likely(std::size_t k, const PreparedBase& prepared, bool with_reverse) {
    if (k == 0 || with_reverse || prepared.guide().elements() == 0) return 0;
    constexpr std::size_t kLeast = 2;
    constexpr std::size_t kShare = 8;  // of the groups, at most
    return std::min({kLeast + k / 32, Guide::kMostFound, prepared.n_groups() / kShare});
}

// A level that at least `wanted` of `values` reach, or all, and not many more. Those below any level are -infinity.
float level_with(std::span<const float> values, std::size_t wanted) {
    float low = kInfinity;
    float high = -kInfinity;
    for (const float value : values) {
        high = std::max(high, value);
        if (value > -kInfinity) low = std::min(low, value);
    }
    constexpr int kRounds = 12;
    for (int round = 0; round < kRounds; ++round) {
        const float middle = low + (high - low) * 0.5F;
        const std::size_t count = count_reaching(values, middle);
        (count >= wanted ? low : high) = middle;
        if (count >= wanted && count < wanted + wanted / 2) break;
    }
    return low;
}

// Puts a value in the place of the least of a heap.
void replace_least(std::span<float> heap, float value) {
    std::size_t hole = 0;
    for (std::size_t child = 1; child < heap.size(); child = 2 * hole + 1) {
        if (child + 1 < heap.size() && heap[child + 1] < heap[child]) ++child;
        if (heap[child] >= value) break;
        heap[hole] = heap[child];
        hole = child;
    }
    heap[hole] = value;
}

// float32 at or below, and at or above, a float64 within its range.
float rounded_down(double value) {
    const auto near = static_cast<float>(value);
    return near - (std::fabs(near) * 0x1p-23F + std::numeric_limits<float>::denorm_min());
}
float rounded_up(double value) {
    const auto near = static_cast<float>(value);
    return near + (std::fabs(near) * 0x1p-23F + std::numeric_limits<float>::denorm_min());
}

// Any number below this has a score below `threshold`: rounding is monotone.
double value_below(float threshold) { return static_cast<double>(std::nextafter(threshold, -kInfinity)); }

}  // namespace

std::size_t Worker::bytes(const PlanRequest& r, std::size_t query_block, const simd::Kernels& kernels) {
    const std::size_t n = query_block + kernels.tile_queries;
    const std::size_t limit = pending_limit(r.k);
    const std::size_t per_query = Keeper::bytes(r.k, r.with_cap ? 1 : 0) + Keeper::bytes(r.max_listed, 0) +
                                  sizeof(Query) + r.levels * sizeof(std::int64_t) + limit * sizeof(Candidate) +
                                  (r.with_cap ? 0 : r.k * sizeof(float)) + sizeof(simd::Hit) +
                                  simd::kGroupRows * sizeof(std::int32_t);
    const std::size_t probes = limit * (4 * sizeof(Match) + 4 * sizeof(GroupId) + 64);
    return sizeof(Worker) + QueryBlock::bytes(query_block, r.dim, r.with_rotation, kernels) + n * per_query + probes +
           (r.with_tally ? kBuffered * sizeof(RowTally::Entry) : 0) +
           (r.reverse_k > 0 ? kBuffered * sizeof(ReverseTopk::Entry) : 0) + 4096;
}

Worker::Worker(const SearchContext& context)
    : context_(context),
      factor64_(float64_error_factor(context.base.dim())),
      lowest_threshold_(context.options.thresholds.empty() ? kInfinity : context.options.thresholds.front()),
      pending_limit_(pending_limit(context.options.k)),
      block_(context.prepared, context.kernels, context.query_block,
             n_likely(context.options.k, context.prepared, context.reverse != nullptr)) {
    const SearchOptions& options = context.options;
    const std::size_t n = context.query_block + context.kernels.tile_queries;
    hits_.resize(n);
    sums_.resize(n * simd::kGroupRows);
    slots_.reserve(context.query_block);
    for (std::size_t i = 0; i < context.query_block; ++i) {
        slots_.push_back({Keeper(options.k, options.max_per_group),
                          Keeper(options.max_listed, 0),
                          std::vector<std::int64_t>(options.thresholds.size()),
                          {},
                          {},
                          0.0F,
                          0.0,
                          0});
        slots_.back().pending.reserve(pending_limit_);
        if (options.max_per_group == 0) slots_.back().lowers.reserve(options.k);
    }
    if (context.tally != nullptr) tallied_.reserve(kBuffered);
    if (context.reverse != nullptr) reversed_.reserve(kBuffered);
}

void Worker::begin(std::size_t first, std::size_t count) {
    first_query_ = first;
    n_queries_ = count;
    block_.load(context_.queries, context_.query_norms, first, count);
    for (std::size_t slot = 0; slot < count; ++slot) {
        Query& query = slots_[slot];
        query.best.reset(-kInfinity);
        query.listed.reset(lowest_threshold_);
        query.pending.clear();
        query.lowers.clear();
        query.proven = -kInfinity;
        query.settle_at = std::min(pending_limit_, 2 * settle_after(context_.options.k));
        std::fill(query.counts.begin(), query.counts.end(), 0);
        set_cut(slot);
        if (!block_.likely(slot).empty()) warm_up(slot);
    }
}

// Looks at the groups that are likely to hold a query's best, so that the scan starts from a threshold: at the rows of
// the largest bounds first, then at those that these leave.
void Worker::warm_up(std::size_t slot) {
    const std::span<const std::uint32_t> likely = block_.likely(slot);
    uppers_.assign(likely.size() * simd::kGroupRows, -kInfinity);
    std::uint64_t left[Guide::kMostFound] = {};
    for (std::size_t i = 0; i < likely.size(); ++i) {
        if (likely[i] == Guide::kNone) continue;
        left[i] = ~std::uint64_t{0} >> (simd::kGroupRows - context_.prepared.group(likely[i]).rows);
        fill_uppers(slot, likely[i], uppers_.data() + i * simd::kGroupRows);
    }
    const auto look_from = [&](float level) {
        std::uint64_t rows[Guide::kMostFound];
        for (std::size_t i = 0; i < likely.size(); ++i) {
            rows[i] = left[i] & ~mask_below(uppers_.data() + i * simd::kGroupRows, level);
            left[i] &= ~rows[i];
            statistics_.kept += std::popcount(rows[i]);
            context_.prepared.prefetch_tails(likely[i], rows[i]);
        }
        for (std::size_t i = 0; i < likely.size(); ++i) {
            if (rows[i] != 0) look_closer(slot, likely[i], rows[i]);
        }
    };
    look_from(level_with(uppers_, 2 * context_.options.k));
    look_from(rounded_down(slots_[slot].cut));
}

// Upper bounds of the scores of a query with the rows of a group, by the codes that are scanned.
void Worker::fill_uppers(std::size_t slot, std::uint32_t g, float* out) {
    const std::size_t tile = slot / context_.kernels.tile_queries;
    const std::size_t place = slot % context_.kernels.tile_queries;
    simd::ScanJob job = block_.job(g, context_.prepared.terms(g), tile, 1);
    job.only = place;
    const std::size_t found = context_.kernels.scan(job, hits_.data(), sums_.data());
    for (std::size_t i = 0; i < found; ++i) {
        if (hits_[i].query != place) continue;
        const double offset = block_.bounds(slot).offset + block_.slack(slot, g);
        const double factor = block_.head_factor(slot, g);
        for (std::size_t lane = 0; lane < context_.prepared.group(g).rows; ++lane) {
            const std::int32_t sum = sums_[i * simd::kGroupRows + lane];
            out[lane] = rounded_up(offset + factor * static_cast<double>(sum));
        }
    }
}

void Worker::set_cut(std::size_t slot) {
    Query& query = slots_[slot];
    const float best = std::max(query.best.threshold(), context_.options.k == 0 ? kInfinity : query.proven);
    query.cut = value_below(std::min(best, lowest_threshold_));
    block_.set_cut(slot, query.cut);
}

void Worker::scan_group(std::size_t g) {
    const PreparedBase& prepared = context_.prepared;
    double terms[simd::kGroupTerms];
    std::copy_n(prepared.terms(g), simd::kGroupTerms, terms);
    statistics_.pairs += static_cast<std::int64_t>(prepared.group(g).rows * n_queries_);
    const std::size_t n_tiles = block_.n_tiles();
    // Where rows have answers of their own these rise as tiles go by, from nothing at first: few tiles at a time.
    std::size_t batch = context_.reverse == nullptr ? n_tiles : 1;
    for (std::size_t tile = 0; tile < n_tiles; batch = std::min(2 * batch, n_tiles)) {
        const std::size_t count = std::min(batch, n_tiles - tile);
        if (context_.reverse != nullptr) {
            float lowest = kInfinity;
            for (std::size_t i = 0; i < prepared.group(g).rows; ++i) {
                lowest = std::min(lowest, context_.reverse->cut(prepared.row(g * simd::kGroupRows + i)));
            }
            const double cut = value_below(lowest);
            terms[simd::kRowCut] = std::isfinite(cut) ? cut - std::fabs(cut) * 0x1p-40 : cut;
        }
        const std::size_t found = context_.kernels.scan(block_.job(g, terms, tile, count), hits_.data(), sums_.data());
        for (std::size_t i = 0; i < found; ++i) {
            const std::size_t slot = tile * context_.kernels.tile_queries + hits_[i].query;
            if (slot >= n_queries_ || std::ranges::find(block_.likely(slot), g) != block_.likely(slot).end()) continue;
            consider(hits_[i], slot, g, sums_.data() + i * simd::kGroupRows);
        }
        if (context_.reverse != nullptr) flush();
        tile += count;
    }
}

bool Worker::is_excluded(std::size_t query, std::size_t row) const {
    const SearchOptions& options = context_.options;
    if (options.exclude_same_id &&
        options.first_query + static_cast<RowId>(query) == context_.id_offset + static_cast<RowId>(row)) {
        return true;
    }
    if (!options.exclude_same_group || options.query_groups.empty()) return false;
    const GroupId group = options.query_groups[query];
    return group != kNoGroup && group == context_.base.group(row);
}

// From the integer sums of a query with a group to candidates.
void Worker::consider(const simd::Hit& hit, std::size_t slot, std::size_t g, const std::int32_t* sums) {
    const PreparedBase& prepared = context_.prepared;
    const std::size_t rows = prepared.group(g).rows;
    const std::uint64_t real = rows == simd::kGroupRows ? hit.rows : hit.rows & ((std::uint64_t{1} << rows) - 1);
    statistics_.kept += std::popcount(real);
    if (prepared.shape().rest() > 0) return look_closer(slot, g, real);
    const float proven = slots_[slot].proven;
    const double offset = block_.bounds(slot).offset;
    const double factor = block_.head_factor(slot, g);
    const double slack = block_.slack(slot, g);
    for (std::uint64_t left = real; left != 0; left &= left - 1) {
        const auto lane = static_cast<std::size_t>(std::countr_zero(left));
        const double value = offset + factor * static_cast<double>(sums[lane]);
        consider_pair(slot, g * simd::kGroupRows + lane, value, slack);
    }
    raise_cut(slot, proven);
}

// Rows of a group that have a rest, by finer codes.
void Worker::look_closer(std::size_t slot, std::size_t g, std::uint64_t rows) {
    const QueryBlock::Refiner refine(block_, slot, g);
    const double fine_slack = block_.fine_slack(slot, g);
    double refined_slack = -1.0;  // few pairs need it
    const float proven = slots_[slot].proven;
    for (std::uint64_t left = rows; left != 0; left &= left - 1) {
        const std::size_t position = g * simd::kGroupRows + static_cast<std::size_t>(std::countr_zero(left));
        const double head = refine.head(position);
        if (context_.reverse == nullptr && head + fine_slack < slots_[slot].cut) continue;
        if (refined_slack < 0.0) refined_slack = block_.refined_slack(slot, g);
        consider_pair(slot, position, head + refine.rest(position), refined_slack);
    }
    raise_cut(slot, proven);
}

void Worker::consider_pair(std::size_t slot, std::size_t position, double value, double slack) {
    const double upper = value + slack;
    const bool is_wanted_by_query = upper >= slots_[slot].cut;
    if (!is_wanted_by_query && context_.reverse == nullptr) return;
    const Candidate candidate{rounded_down(value - slack), rounded_up(upper), static_cast<std::uint32_t>(position)};
    const bool is_wanted_by_row =
        context_.reverse != nullptr && candidate.upper >= context_.reverse->cut(context_.prepared.row(position));
    if (!is_wanted_by_query && !is_wanted_by_row) return;
    if (is_excluded(first_query_ + slot, context_.prepared.row(position))) return;
    ++statistics_.refined;
    if (is_wanted_by_row) {
        rescore(slot, &candidate, 1);  // at once, so that the row's cut rises
    } else {
        add_pending(slot, candidate);
    }
}

void Worker::add_pending(std::size_t slot, const Candidate& candidate) {
    Query& query = slots_[slot];
    if (query.pending.size() >= query.settle_at) settle(slot);
    query.pending.push_back(candidate);
    if (context_.options.k > 0 && context_.options.max_per_group == 0) raise_proven(query, candidate.lower);
}

// k pairs have scores of at least the k-th best of their lower bounds.
void Worker::raise_proven(Query& query, float lower) const {
    std::vector<float>& heap = query.lowers;
    if (heap.size() < context_.options.k) {
        heap.push_back(lower);
        std::push_heap(heap.begin(), heap.end(), std::greater<>());
        if (heap.size() == context_.options.k) query.proven = heap.front();
    } else if (lower > heap.front()) {
        replace_least(heap, lower);
        query.proven = heap.front();
    }
}

// Lets the scan know of a threshold that has risen.
void Worker::raise_cut(std::size_t slot, float proven_before) {
    if (slots_[slot].proven > proven_before) set_cut(slot);
}

// The same where at most so many rows of a group count.
void Worker::raise_proven_capped(Query& query) {
    const SearchOptions& options = context_.options;
    if (options.k == 0 || options.max_per_group == 0 || query.pending.size() < options.k) return;
    probe_.clear();
    probe_groups_.clear();
    for (const Candidate& candidate : query.pending) {
        const std::size_t row = context_.prepared.row(candidate.position);
        probe_.push_back({candidate.lower, static_cast<RowId>(row)});
        probe_groups_.push_back(context_.base.group(row));
    }
    keep_best(probe_, probe_groups_, options.k, options.max_per_group);
    if (probe_.size() == options.k) query.proven = std::max(query.proven, probe_.back().score);
}

// Drops the candidates that those found since have beaten.
void Worker::drop_beaten(std::size_t slot) {
    Query& query = slots_[slot];
    raise_proven_capped(query);
    set_cut(slot);
    const double cut = query.cut;
    std::erase_if(query.pending, [cut](const Candidate& c) { return static_cast<double>(c.upper) < cut; });
}

// Makes room among the candidates of a query: by scoring them where they are too many.
void Worker::settle(std::size_t slot) {
    Query& query = slots_[slot];
    drop_beaten(slot);
    if (query.pending.size() > pending_limit_ * 3 / 4) {
        rescore(slot, query.pending.data(), query.pending.size());
        query.pending.clear();
        set_cut(slot);
    }
    // At least half as many again, so that looking costs a constant share of adding.
    const std::size_t more = std::max(settle_after(context_.options.k), query.pending.size() / 2);
    query.settle_at = std::min(pending_limit_, query.pending.size() + more);
}

void Worker::rescore(std::size_t slot, const Candidate* candidates, std::size_t n) {
    const BaseRows& base = context_.base;
    const std::size_t query = first_query_ + slot;
    const float* row = context_.queries.row(query);
    const double scale = factor64_ * context_.query_norms[query];
    constexpr std::size_t kAhead = 3;
    for (std::size_t i = 0; i < std::min(n, kAhead); ++i) {
        base.prefetch(context_.prepared.row(candidates[i].position));
    }
    for (std::size_t i = 0; i < n; ++i) {
        if (i + kAhead < n) {
            base.prefetch(context_.prepared.row(candidates[i + kAhead].position));
        }
        const std::size_t index = context_.prepared.row(candidates[i].position);
        const double sum = context_.kernels.inner(row, base.row(index), base.dim());
        std::optional<float> score = score_if_decided(sum, scale * base.norm(index));
        if (!score) {
            score = exact_score(row, base.row(index), 1, base.dim());
            ++statistics_.exact;
        }
        keep(slot, index, *score);
    }
    statistics_.rescored += static_cast<std::int64_t>(n);
}

void Worker::keep(std::size_t slot, std::size_t row, float score) {
    Query& query = slots_[slot];
    const Match match{score, context_.id_offset + static_cast<RowId>(row)};
    query.best.add(match, context_.base.group(row));
    const auto id = context_.options.first_query + static_cast<RowId>(first_query_ + slot);
    if (context_.reverse != nullptr && score >= context_.reverse->cut(row)) {
        const std::span<const GroupId> groups = context_.options.query_groups;
        reversed_.push_back(
            {static_cast<RowId>(row), {score, id}, groups.empty() ? kNoGroup : groups[first_query_ + slot]});
        if (reversed_.size() == kBuffered) flush();
    }
    if (!(score >= lowest_threshold_)) return;
    query.listed.add(match, kNoGroup);
    const std::span<const float> thresholds = context_.options.thresholds;
    for (std::size_t level = 0; level < thresholds.size(); ++level) {
        if (score >= thresholds[level]) ++query.counts[level];
    }
    if (context_.tally == nullptr) return;
    tallied_.push_back({static_cast<RowId>(row), score, id});
    if (tallied_.size() == kBuffered) flush();
}

void Worker::flush() {
    if (!tallied_.empty()) context_.tally->add(tallied_, context_.options.thresholds);
    if (!reversed_.empty()) context_.reverse->add(reversed_);
    tallied_.clear();
    reversed_.clear();
}

void Worker::finish() {
    for (std::size_t slot = 0; slot < n_queries_; ++slot) {
        Query& query = slots_[slot];
        drop_beaten(slot);
        // The likeliest first: once k are scored the others face a score instead of a lower bound.
        const std::size_t first = std::min(context_.options.k, query.pending.size());
        const auto middle = query.pending.begin() + static_cast<std::ptrdiff_t>(first);
        std::nth_element(query.pending.begin(), middle, query.pending.end(),
                         [](const Candidate& a, const Candidate& b) { return a.lower > b.lower; });
        rescore(slot, query.pending.data(), first);
        query.pending.erase(query.pending.begin(), middle);
        query.best.finish();
        drop_beaten(slot);
        rescore(slot, query.pending.data(), query.pending.size());
        context_.sink.accept({first_query_ + slot, query.best.finish(), query.listed.finish(), query.counts});
    }
    flush();
}

}  // namespace deepssim
