// Exact top-k and threshold search by inner product over packed base rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <shared_mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "deepssim/cancel.hpp"
#include "deepssim/plan.hpp"
#include "deepssim/reverse.hpp"
#include "deepssim/sink.hpp"
#include "deepssim/tally.hpp"
#include "deepssim/types.hpp"

namespace deepssim {

class BaseRows;
class PreparedBase;

// How base rows are made ready for the scan. It sets how fast a search is, never what it finds.
struct Preparation {
    std::size_t head = 0;   // elements scanned for every pair; the rest only where they do not decide. 0: all
    MatrixView rotation{};  // (dim, dim) orthonormal rows, best directions first; empty: none
};

struct SearchOptions {
    std::size_t k = 0;
    std::size_t max_per_group = 0;            // at most so many rows of one group in a query's k; 0: no cap
    bool exclude_same_group = false;          // leave out pairs whose groups are equal and known
    bool exclude_same_id = false;             // leave out the pair of a query with the base row of its id
    RowId first_query = 0;                    // id of the first query
    std::span<const GroupId> query_groups{};  // empty: none known
    std::span<const float> thresholds{};      // ascending; a pair counts when score >= threshold
    std::size_t max_listed = 0;               // pairs over the lowest threshold listed a query, best first
    std::size_t threads = 0;                  // 0: as many as the process may use
    std::size_t memory_limit = 0;             // bytes for the base, workers and results; 0: no limit
    bool may_rotate = false;                  // the plan leaves room for a prepared base with a rotation
};

// What a prepared base is of; the bytes that go with it depend on the level's codes alone.
struct PreparedHeader {
    std::size_t dim = 0;
    std::size_t rows = 0;
    std::size_t head = 0;
    bool is_rotated = false;
};
using WriteBytes = std::function<void(const void* from, std::size_t n)>;
using ReadBytes = std::function<void(void* to, std::size_t n)>;

// How many pairs came how far. Each stage discards by a proven bound; only `pairs` is the same on every machine.
struct SearchStatistics {
    std::int64_t pairs = 0;     // scanned
    std::int64_t kept = 0;      // not discarded by the bound of the head's codes
    std::int64_t refined = 0;   // of these: not discarded by the bound of all codes
    std::int64_t rescored = 0;  // not discarded by what was found until then: scored in float64
    std::int64_t exact = 0;     // not decided in float64: summed exactly
};

// Base rows are added once, then searched any number of times. The rows are copied into panels; nothing
// of the caller is kept. Searches may run side by side; add() waits for them.
class Searcher {
   public:
    // Room for `capacity` rows of `dim` elements is taken at once. Ids are id_offset + index.
    Searcher(std::size_t dim, std::size_t capacity, bool with_groups, RowId id_offset, std::string_view isa);
    ~Searcher();
    Searcher(const Searcher&) = delete;
    Searcher& operator=(const Searcher&) = delete;

    // Copies rows in. All or nothing: throws InvalidInput (naming the row) for a value that is not
    // finite, a norm over kMaxNorm, a wrong width or more rows than there is room for.
    void add(MatrixView rows, std::span<const GroupId> groups);

    // Makes the rows added so far ready to be scanned. search() does so by itself, with Preparation{}, when it
    // finds rows that are not. Throws InvalidInput for a rotation that is none; `poll` as in search().
    void prepare(const Preparation& preparation, std::size_t threads, const std::function<void()>& poll);
    bool is_prepared() const;

    // What was prepared, to be kept and taken up again by a searcher of the same rows at a level with the same
    // codes(). Throws InvalidInput where nothing was prepared, or for what cannot be of these rows.
    PreparedHeader prepared_header() const;
    void write_prepared(const WriteBytes& write) const;
    void read_prepared(const PreparedHeader& header, const ReadBytes& read);
    void forget_prepared();
    std::string_view codes() const;

    // Answers each query through `sink`. `poll` runs on the calling thread every 20 ms; what it throws
    // ends the search and comes out here, as does what a worker throws. Throws Cancelled.
    SearchStatistics search(MatrixView queries, const SearchOptions& options, Sink& sink, RowTally* tally,
                            ReverseTopk* reverse, const CancelToken* cancel, const std::function<void()>& poll) const;

    // The plan that search() would keep to for these options and this many queries.
    Plan plan(const SearchOptions& options, std::size_t n_queries, bool with_tally, const ReverseTopk* reverse) const;

    // Copies base rows first, first + step, ... to `out`, at most `most` of them; returns how many.
    std::size_t sample(std::size_t first, std::size_t step, std::size_t most, float* out) const;

    std::size_t dim() const;
    std::size_t rows() const;
    std::size_t capacity() const;
    RowId id_offset() const { return id_offset_; }
    const std::string& isa() const { return isa_; }

   private:
    void prepare_locked(const Preparation& preparation, std::size_t threads, const std::function<void()>& poll) const;

    std::string isa_;
    RowId id_offset_;
    std::unique_ptr<BaseRows> base_;
    mutable std::unique_ptr<PreparedBase> prepared_;
    mutable std::shared_mutex mutex_;
};

}  // namespace deepssim
