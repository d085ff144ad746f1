// One thread's share of a search: a block of queries against the whole base.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "deepssim/cancel.hpp"
#include "deepssim/plan.hpp"
#include "deepssim/searcher.hpp"
#include "keeper.hpp"
#include "packed_base.hpp"
#include "simd/kernels.hpp"

namespace deepssim {

// What all workers of a search share; borrowed for its duration.
struct SearchContext {
    const PackedBase& base;
    RowId id_offset;
    const simd::Kernels& kernels;
    MatrixView queries;
    std::span<const double> query_norms;
    const SearchOptions& options;
    const Plan& plan;
    Sink& sink;
    RowTally* tally;
};

class Worker {
   public:
    explicit Worker(const SearchContext& context);

    // Bytes that a worker allocates for such a request, at most.
    static std::size_t bytes(const PlanRequest& request, const Plan& plan);

    // Answers queries [first, first + count), count <= plan.query_block. Throws Cancelled.
    template <class Stop>
    void run(std::size_t first, std::size_t count, const Stop& should_stop) {
        begin(first, count);
        const std::size_t step = context_.plan.panel_block;
        for (std::size_t panel = 0; panel < context_.base.panels(); panel += step) {
            if (should_stop()) throw Cancelled();
            scan_panels(panel, std::min(step, context_.base.panels() - panel));
        }
        finish();
    }

    const SearchStatistics& statistics() const { return statistics_; }

   private:
    struct Query {
        Keeper best;
        Keeper listed;
        std::vector<std::int64_t> counts;
    };
    struct Candidate {
        float approximate;
        std::uint32_t row;  // within the scanned panels
    };

    void begin(std::size_t first, std::size_t count);
    void scan_panels(std::size_t first_panel, std::size_t n_panels);
    void consider(std::size_t slot, const float* scores, std::size_t first_panel, std::size_t n_rows, double max_norm);
    bool is_excluded(std::size_t query, std::size_t row) const;
    void prefilter(std::size_t slot, std::size_t first_row, double slack, float listing_cut);
    void rescore(std::size_t slot, std::size_t first_panel);
    void keep(std::size_t slot, std::size_t row, float score);
    void flush_tally();
    void finish();

    const SearchContext context_;
    double factor32_;
    double absolute32_;
    double factor64_;
    float lowest_threshold_;
    std::size_t first_query_ = 0;
    std::size_t n_queries_ = 0;
    std::vector<float> tiles_;   // packed queries of the block
    std::vector<float> scores_;  // of one tile against one block of panels
    std::vector<std::uint32_t> indices_;
    std::vector<Candidate> candidates_;
    std::vector<Match> probe_;  // scratch of prefilter
    std::vector<GroupId> probe_groups_;
    std::vector<Query> slots_;
    std::vector<RowTally::Entry> entries_;
    SearchStatistics statistics_;
};

}  // namespace deepssim
