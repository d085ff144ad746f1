// What the threshold mode finds, seen from the base: how often each row was met, and by what at best.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "deepssim/types.hpp"

namespace deepssim {

class RowTally {
   public:
    struct Entry {
        RowId row;  // index into the base, without the searcher's id offset
        float score;
        RowId query;  // id of the query: first_query + its index
    };

    // Counts for `rows` base rows at `levels` thresholds.
    RowTally(std::size_t rows, std::size_t levels);

    std::size_t rows() const { return best_.size(); }
    std::size_t levels() const { return levels_; }

    // Adds pairs; thread-safe. The outcome does not depend on the order of calls.
    void add(std::span<const Entry> entries, std::span<const float> thresholds);

    // Calls copy(counts, best) while no search adds to them; counts() and best() are for when none runs.
    template <class Copy>
    void read(const Copy& copy) const {
        const std::lock_guard lock(mutex_);
        copy(counts_, best_);
    }

    // Row-major (rows, levels): pairs at or over each threshold, ascending thresholds.
    const std::vector<std::int64_t>& counts() const { return counts_; }
    // The best pair of each row: score and query (kPadding where there was none).
    const std::vector<Match>& best() const { return best_; }

   private:
    std::size_t levels_;
    std::vector<std::int64_t> counts_;
    std::vector<Match> best_;
    mutable std::mutex mutex_;
};

}  // namespace deepssim
