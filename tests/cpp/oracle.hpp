// What the tests compare the core with: plain loops, no blocks, no bounds, no threads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "deepssim/searcher.hpp"
#include "deepssim/sink.hpp"
#include "deepssim/types.hpp"

namespace deepssim::testing {

using Rng = std::mt19937_64;

// Rows of a test, dense.
struct Rows {
    std::size_t rows = 0;
    std::size_t cols = 0;
    std::vector<float> data;

    MatrixView view() const { return {data.data(), rows, cols, static_cast<std::ptrdiff_t>(cols)}; }
    float* row(std::size_t i) { return data.data() + i * cols; }
    const float* row(std::size_t i) const { return data.data() + i * cols; }
};

// Uniform in [-1, 1), the same on every standard library.
double uniform(Rng& rng);
std::size_t below(Rng& rng, std::size_t n);

// The levels that a test goes through: all that run here. ThreadSanitizer looks at what threads share, and no kernel
// shares anything; it takes the level that searches by default.
std::vector<std::string> levels();

// What makes the order of scores hard to get right.
enum class Kind {
    kUnit,        // rows of norm 1, as embeddings are
    kIntegers,    // elements -1, 0, 1: many exact ties
    kNearTies,    // all rows equal but for last bits
    kScales,      // norms from 2^-60 to 2^60
    kDenormal,    // products and sums below the normal range of float32
    kCancelling,  // sums much smaller than their terms
};
inline constexpr std::array kAllKinds = {Kind::kUnit,   Kind::kIntegers, Kind::kNearTies,
                                         Kind::kScales, Kind::kDenormal, Kind::kCancelling};

Rows make_rows(Kind kind, std::size_t rows, std::size_t cols, std::uint64_t seed);

// One result of a search, or what it must be.
struct Answer {
    std::vector<std::vector<Match>> best;
    std::vector<std::vector<Match>> listed;
    std::vector<std::vector<std::int64_t>> counts;

    explicit Answer(std::size_t queries = 0) : best(queries), listed(queries), counts(queries) {}
};

// Keeps a search's results. accept() writes to a place of its own for each query, so it needs no lock.
class AnswerSink final : public Sink {
   public:
    explicit AnswerSink(std::size_t queries) : answer(queries), calls_(queries) {}
    void accept(const QueryResult& result) override;
    // Whether every query was answered exactly once.
    bool is_complete() const;

    Answer answer;

   private:
    std::vector<int> calls_;
};

// The answer by definition: exact_score of every pair, a full sort, then the rules one by one.
class Oracle {
   public:
    Oracle(Rows query_rows, Rows base_rows);

    Answer answer(const SearchOptions& options, std::span<const GroupId> groups = {}, RowId id_offset = 0) const;
    // Counts (row-major, rows x levels) and best query of each base row.
    std::vector<std::int64_t> tally_counts(const SearchOptions& options) const;
    std::vector<Match> tally_best(const SearchOptions& options) const;

    float score(std::size_t query, std::size_t row) const { return scores_[query * base.rows + row]; }

    // A score that occurs, so that comparisons with it are not idle; `part` in [0, 1] from low to high.
    float quantile(double part) const;

    const Rows queries;
    const Rows base;

   private:
    std::vector<float> scores_;
};

// Scores equal in every bit, ids equal.
bool is_same(const std::vector<Match>& a, const std::vector<Match>& b);
bool is_same(const Answer& a, const Answer& b);

}  // namespace deepssim::testing
