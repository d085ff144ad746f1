// One thread's share of a search: a block of queries against the whole base.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base_rows.hpp"
#include "deepssim/cancel.hpp"
#include "deepssim/plan.hpp"
#include "deepssim/reverse.hpp"
#include "deepssim/searcher.hpp"
#include "keeper.hpp"
#include "prepared_base.hpp"
#include "query_block.hpp"
#include "simd/kernels.hpp"

namespace deepssim {

// What all workers of a search share; borrowed for its duration.
struct SearchContext {
    const BaseRows& base;
    const PreparedBase& prepared;
    RowId id_offset;
    const simd::Kernels& kernels;
    MatrixView queries;
    std::span<const double> query_norms;
    const SearchOptions& options;
    std::size_t query_block;
    Sink& sink;
    RowTally* tally;
    ReverseTopk* reverse;
};

class Worker {
   public:
    explicit Worker(const SearchContext& context);

    // Bytes that a worker allocates for such a request, at most.
    static std::size_t bytes(const PlanRequest& request, std::size_t query_block, const simd::Kernels& kernels);

    // Answers queries [first, first + count), count <= query_block. Throws Cancelled.
    template <class Stop>
    void run(std::size_t first, std::size_t count, const Stop& should_stop) {
        constexpr std::size_t kPollGroups = 16;
        begin(first, count);
        for (std::size_t i = 0; i < context_.prepared.n_groups(); ++i) {
            if (i % kPollGroups == 0 && should_stop()) throw Cancelled();
            scan_group(context_.prepared.visited(i));
        }
        finish();
    }

    const SearchStatistics& statistics() const { return statistics_; }

   private:
    // A pair that was not discarded yet; its score lies between the two.
    struct Candidate {
        float lower;
        float upper;
        std::uint32_t position;
    };
    struct Query {
        Keeper best;
        Keeper listed;
        std::vector<std::int64_t> counts;
        std::vector<Candidate> pending;
        std::vector<float> lowers;  // a heap of the k best lower bounds, the least first; unused with a cap
        float proven = 0.0F;        // so many candidates are at least as good that a score below it cannot enter
        double cut = 0.0;           // a score that is lower than this is of no use
        std::size_t settle_at = 0;  // pending candidates at which the threshold is looked at again
    };

    void begin(std::size_t first, std::size_t count);
    void scan_group(std::size_t g);
    void warm_up(std::size_t slot);
    void fill_uppers(std::size_t slot, std::uint32_t g, float* out);
    void consider(const simd::Hit& hit, std::size_t slot, std::size_t g, const std::int32_t* sums);
    void look_closer(std::size_t slot, std::size_t g, std::uint64_t rows);
    void consider_pair(std::size_t slot, std::size_t position, double value, double slack);
    void set_cut(std::size_t slot);
    void raise_proven(Query& query, float lower) const;
    void raise_cut(std::size_t slot, float proven_before);
    void raise_proven_capped(Query& query);
    void add_pending(std::size_t slot, const Candidate& candidate);
    void drop_beaten(std::size_t slot);
    void settle(std::size_t slot);
    void rescore(std::size_t slot, const Candidate* candidates, std::size_t n);
    bool is_excluded(std::size_t query, std::size_t row) const;
    void keep(std::size_t slot, std::size_t row, float score);
    void flush();
    void finish();

    const SearchContext context_;
    double factor64_;
    float lowest_threshold_;
    std::size_t pending_limit_;
    std::size_t first_query_ = 0;
    std::size_t n_queries_ = 0;
    QueryBlock block_;
    std::vector<simd::Hit> hits_;
    std::vector<std::int32_t> sums_;
    std::vector<Match> probe_;  // scratch of raise_proven_capped
    std::vector<GroupId> probe_groups_;
    std::vector<float> uppers_;  // scratch of warm_up
    std::vector<Query> slots_;
    std::vector<RowTally::Entry> tallied_;
    std::vector<ReverseTopk::Entry> reversed_;
    SearchStatistics statistics_;
};

}  // namespace deepssim
