#include "worker.hpp"

#include <algorithm>
#include <limits>

#include "deepssim/exact.hpp"
#include "deepssim/merge.hpp"

namespace deepssim {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::size_t kTallyBuffer = 16384;

std::size_t tiles_in(std::size_t queries, std::size_t tile) { return (queries + tile - 1) / tile; }

}  // namespace

std::size_t Worker::bytes(const PlanRequest& r, const Plan& plan) {
    const std::size_t block_rows = plan.panel_block * simd::kPanelRows;
    // Rounded up to the largest tile of any instruction set, so that plans do not depend on it.
    const std::size_t queries = tiles_in(plan.query_block, simd::kMaxTileQueries) * simd::kMaxTileQueries;
    const std::size_t per_row = sizeof(std::uint32_t) + sizeof(Candidate) + 4 * sizeof(Match);
    const std::size_t per_query =
        Keeper::bytes(r.k, 1) + Keeper::bytes(r.max_listed, 0) + sizeof(Query) + r.levels * sizeof(std::int64_t);
    return sizeof(Worker) + queries * (r.dim * sizeof(float) + per_query) +
           block_rows * (simd::kMaxTileQueries * sizeof(float) + per_row) + 4096 +
           (r.with_tally ? kTallyBuffer * sizeof(RowTally::Entry) : 0);
}

Worker::Worker(const SearchContext& context)
    : context_(context),
      factor32_(float32_error_factor(context.base.dim())),
      absolute32_(float32_error_absolute(context.base.dim())),
      factor64_(float64_error_factor(context.base.dim())),
      lowest_threshold_(context.options.thresholds.empty() ? kInfinity : context.options.thresholds.front()) {
    const Plan& plan = context.plan;
    const SearchOptions& options = context.options;
    const std::size_t tile = context.kernels.tile_queries;
    const std::size_t block_rows = plan.panel_block * simd::kPanelRows;
    tiles_.resize(tiles_in(plan.query_block, tile) * tile * context.base.dim());
    scores_.resize(tile * block_rows);
    indices_.resize(block_rows + simd::kPanelRows);
    candidates_.reserve(block_rows);
    probe_.reserve(block_rows);
    slots_.reserve(plan.query_block);
    for (std::size_t i = 0; i < plan.query_block; ++i) {
        slots_.push_back({Keeper(options.k, options.max_per_group), Keeper(options.max_listed, 0),
                          std::vector<std::int64_t>(options.thresholds.size())});
    }
    if (context.tally != nullptr) entries_.reserve(kTallyBuffer);
}

void Worker::begin(std::size_t first, std::size_t count) {
    first_query_ = first;
    n_queries_ = count;
    const std::size_t tile = context_.kernels.tile_queries;
    const std::size_t dim = context_.base.dim();
    std::fill(tiles_.begin(), tiles_.end(), 0.0F);
    for (std::size_t slot = 0; slot < count; ++slot) {
        const float* row = context_.queries.row(first + slot);
        float* out = tiles_.data() + (slot / tile) * tile * dim + slot % tile;
        for (std::size_t d = 0; d < dim; ++d) out[d * tile] = row[d];
        slots_[slot].best.reset(-kInfinity);
        slots_[slot].listed.reset(lowest_threshold_);
        std::fill(slots_[slot].counts.begin(), slots_[slot].counts.end(), 0);
    }
}

void Worker::scan_panels(std::size_t first_panel, std::size_t n_panels) {
    const PackedBase& base = context_.base;
    const std::size_t tile = context_.kernels.tile_queries;
    const std::size_t n_rows = std::min(n_panels * simd::kPanelRows, base.rows() - first_panel * simd::kPanelRows);
    double max_norm = 0.0;
    for (std::size_t p = 0; p < n_panels; ++p) max_norm = std::max(max_norm, base.panel_norm(first_panel + p));
    for (std::size_t start = 0; start < n_queries_; start += tile) {
        context_.kernels.scan(tiles_.data() + start * base.dim(), base.panel(first_panel), n_panels, base.dim(),
                              scores_.data());
        const std::size_t end = std::min(n_queries_, start + tile);
        for (std::size_t slot = start; slot < end; ++slot) {
            consider(slot, scores_.data() + (slot - start) * n_panels * simd::kPanelRows, first_panel, n_rows,
                     max_norm);
        }
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

// From approximate scores of a block of rows to exact ones of the few that could matter.
void Worker::consider(std::size_t slot, const float* scores, std::size_t first_panel, std::size_t n_rows,
                      double max_norm) {
    const std::size_t query = first_query_ + slot;
    const std::size_t first_row = first_panel * simd::kPanelRows;
    const double slack = factor32_ * context_.query_norms[query] * max_norm + absolute32_;
    const float listing_cut = discard_below(lowest_threshold_, slack);
    const float cut = std::min(discard_below(slots_[slot].best.threshold(), slack), listing_cut);
    statistics_.pairs += static_cast<std::int64_t>(n_rows);
    const std::size_t found = context_.kernels.select(scores, n_rows, cut, indices_.data());
    if (found == 0) return;
    candidates_.clear();
    for (std::size_t i = 0; i < found; ++i) {
        if (!is_excluded(query, first_row + indices_[i])) candidates_.push_back({scores[indices_[i]], indices_[i]});
    }
    if (context_.options.k > 0 && candidates_.size() > context_.options.k) {
        prefilter(slot, first_row, slack, listing_cut);
    }
    rescore(slot, first_panel);
}

// k rows of this block have scores of at least (k-th best approximate score - slack): rows that cannot
// reach that need no exact score. Without this every row of the first blocks would be rescored.
void Worker::prefilter(std::size_t slot, std::size_t first_row, double slack, float listing_cut) {
    const SearchOptions& options = context_.options;
    probe_.clear();
    probe_groups_.clear();
    for (const Candidate& candidate : candidates_) {
        probe_.push_back({candidate.approximate, static_cast<RowId>(candidate.row)});
        if (options.max_per_group != 0) probe_groups_.push_back(context_.base.group(first_row + candidate.row));
    }
    keep_best(probe_, probe_groups_, options.k, options.max_per_group);
    if (probe_.size() < options.k) return;
    // The k-th is a lower bound of the block's own k-th score once it is moved down by the slack.
    const float reached = discard_below(probe_.back().score, slack);
    const float bound = std::max(reached, slots_[slot].best.threshold());
    const float cut = std::min(discard_below(bound, slack), listing_cut);
    std::erase_if(candidates_, [cut](const Candidate& c) { return c.approximate < cut; });
}

void Worker::rescore(std::size_t slot, std::size_t first_panel) {
    const PackedBase& base = context_.base;
    const std::size_t query = first_query_ + slot;
    const float* row = context_.queries.row(query);
    const double scale = factor64_ * context_.query_norms[query];
    double sums[simd::kPanelRows];
    std::size_t current = std::numeric_limits<std::size_t>::max();
    for (const Candidate& candidate : candidates_) {  // ascending rows: a panel is rescored once
        const std::size_t panel = first_panel + candidate.row / simd::kPanelRows;
        const std::size_t lane = candidate.row % simd::kPanelRows;
        if (panel != current) {
            context_.kernels.rescore(row, base.panel(panel), base.dim(), sums);
            current = panel;
        }
        const std::size_t index = panel * simd::kPanelRows + lane;
        std::optional<float> score = score_if_decided(sums[lane], scale * base.norm(index));
        if (!score) {
            score = exact_score(row, base.panel(panel) + lane, simd::kPanelRows, base.dim());
            ++statistics_.exact;
        }
        keep(slot, index, *score);
    }
    statistics_.rescored += static_cast<std::int64_t>(candidates_.size());
}

void Worker::keep(std::size_t slot, std::size_t row, float score) {
    Query& query = slots_[slot];
    const Match match{score, context_.id_offset + static_cast<RowId>(row)};
    query.best.add(match, context_.base.group(row));
    if (!(score >= lowest_threshold_)) return;
    query.listed.add(match, kNoGroup);
    const std::span<const float> thresholds = context_.options.thresholds;
    for (std::size_t level = 0; level < thresholds.size(); ++level) {
        if (score >= thresholds[level]) ++query.counts[level];
    }
    if (context_.tally == nullptr) return;
    const auto id = context_.options.first_query + static_cast<RowId>(first_query_ + slot);
    entries_.push_back({static_cast<RowId>(row), score, id});
    if (entries_.size() == kTallyBuffer) flush_tally();
}

void Worker::flush_tally() {
    if (entries_.empty()) return;
    context_.tally->add(entries_, context_.options.thresholds);
    entries_.clear();
}

void Worker::finish() {
    flush_tally();
    for (std::size_t slot = 0; slot < n_queries_; ++slot) {
        Query& query = slots_[slot];
        context_.sink.accept({first_query_ + slot, query.best.finish(), query.listed.finish(), query.counts});
    }
}

}  // namespace deepssim
