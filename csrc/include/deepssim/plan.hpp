// The byte plan of a search: what is allocated, where it goes, and whether it fits.
#pragma once

#include <cstddef>
#include <string>

namespace deepssim {

struct PlanRequest {
    std::size_t base_rows = 0;
    std::size_t dim = 1;
    std::size_t k = 0;           // length of a query's top-k list
    std::size_t max_listed = 0;  // length of a query's list of pairs over the lowest threshold
    std::size_t levels = 0;      // number of thresholds counted
    bool with_groups = false;
    bool with_cap = false;          // at most so many rows of a group in a query's k
    bool with_tally = false;        // counts and best query for each base row
    bool with_rotation = false;     // the base may be prepared with a rotation and a split
    std::size_t reverse_k = 0;      // length of a base row's list of queries
    bool with_reverse_cap = false;  // at most so many queries of a group in it
    std::size_t threads = 1;        // at most; the plan may take fewer
    std::size_t memory_limit = 0;   // bytes; 0: no limit
    std::size_t max_chunk_rows = 65536;
    std::size_t min_chunk_rows = 1;  // queries that one call must take; at most max_chunk_rows
    std::string isa;                 // as resolve_isa() takes it
};

struct Plan {
    std::size_t base_bytes = 0;      // rows, norms, groups
    std::size_t prepared_bytes = 0;  // codes, order, bounds, and what making them takes besides
    std::size_t tally_bytes = 0;     // the tally and the reverse answer
    std::size_t worker_bytes = 0;    // one thread: coded queries, lists, buffers
    std::size_t row_bytes = 0;       // one query of a chunk: its input row and its results
    std::size_t threads = 1;
    std::size_t query_block = 0;  // queries that one thread takes at a time
    std::size_t chunk_rows = 0;   // queries of one search() call
    std::size_t total_bytes = 0;  // all of the above, with `threads` workers and one chunk
};

// Fits the request under its limit: first with fewer queries a chunk (never under min_chunk_rows), then with
// fewer threads, last with smaller blocks. A limit above one that works, works. Throws MemoryLimitTooSmall, naming the
// smallest limit that works, and InvalidInput for a request whose sizes overflow.
Plan plan_search(const PlanRequest& request);

}  // namespace deepssim
