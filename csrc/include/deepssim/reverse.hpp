// The search seen from the base: each row's best queries, over any number of searches.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "deepssim/types.hpp"

namespace deepssim {

class Keeper;

// The best `k` queries of every base row so far (at most `max_per_group` of one group of queries; 0: no cap), in
// the same total order, the id being the query's. Searches add to it; what they add, in which order and from
// how many threads changes nothing.
class ReverseTopk {
   public:
    struct Entry {
        RowId row = 0;  // index into the base, without the searcher's id offset
        Match query;
        GroupId group = 0;
    };

    ReverseTopk(std::size_t rows, std::size_t k, std::size_t max_per_group);
    ~ReverseTopk();
    ReverseTopk(const ReverseTopk&) = delete;
    ReverseTopk& operator=(const ReverseTopk&) = delete;

    std::size_t rows() const { return n_rows_; }
    std::size_t k() const { return k_; }
    std::size_t max_per_group() const { return max_per_group_; }

    // A query with a score below this cannot be among the row's best any more. Only ever rises.
    float cut(std::size_t row) const { return cuts_[row].load(std::memory_order_relaxed); }

    // Thread-safe.
    void add(std::span<const Entry> entries);

    // Writes (rows, k) scores and ids, padded with kPadding.
    void read(float* scores, RowId* ids) const;

    static std::size_t bytes(std::size_t rows, std::size_t k, std::size_t max_per_group);

   private:
    std::size_t n_rows_;
    std::size_t k_;
    std::size_t max_per_group_;
    mutable std::vector<Keeper> keepers_;  // finish() sorts, which changes no answer
    std::unique_ptr<std::atomic<float>[]> cuts_;
    mutable std::mutex mutex_;
};

}  // namespace deepssim
