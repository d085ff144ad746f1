// Where results go. Scoring, keeping and writing are apart: a search calls accept() once a query.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "deepssim/types.hpp"

namespace deepssim {

struct QueryResult {
    std::size_t query = 0;                 // index into the queries of the call
    std::span<const Match> best;           // at most k, best first
    std::span<const Match> listed;         // pairs over the lowest threshold: the best max_listed
    std::span<const std::int64_t> counts;  // pairs at or over each threshold, all of them
};

class Sink {
   public:
    virtual ~Sink() = default;
    // Called once for each query, from several threads at a time, in no order.
    virtual void accept(const QueryResult& result) = 0;
};

// Writes into arrays of the caller, padded with kPadding. Pointers may be null where a part is not wanted.
class ArraySink final : public Sink {
   public:
    struct Target {
        float* scores = nullptr;
        RowId* ids = nullptr;
        std::size_t width = 0;
    };
    ArraySink(Target best, Target listed, std::int64_t* counts, std::size_t levels)
        : best_(best), listed_(listed), counts_(counts), levels_(levels) {}
    void accept(const QueryResult& result) override;

   private:
    Target best_;
    Target listed_;
    std::int64_t* counts_;
    std::size_t levels_;
};

// Keeps totals only: pairs at or over each threshold, and queries with at least one.
class CountSink final : public Sink {
   public:
    explicit CountSink(std::size_t levels) : pairs_(levels), queries_(levels) {}
    void accept(const QueryResult& result) override;
    std::vector<std::int64_t> pairs() const;
    std::vector<std::int64_t> queries() const;

   private:
    std::vector<std::atomic<std::int64_t>> pairs_;
    std::vector<std::atomic<std::int64_t>> queries_;
};

}  // namespace deepssim
