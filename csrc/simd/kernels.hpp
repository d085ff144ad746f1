// The kernel table: what each instruction set implements.
//
// Included by the ISA files, so it holds declarations and plain data only: an inline function here
// would be compiled for AVX-512 too, and the linker might keep that copy for everybody.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deepssim::simd {

// Rows are packed in panels of this many, and four panels make a group, which shares one scale.
inline constexpr std::size_t kPanelRows = 16;
inline constexpr std::size_t kGroupPanels = 4;
inline constexpr std::size_t kGroupRows = kPanelRows * kGroupPanels;

// Codes take a byte an element and go in steps of four: step s of a panel's rows lies at
// panel + (s * 16 + lane) * 4.
inline constexpr std::size_t kStepBytes = 4;
inline constexpr std::size_t kPanelStepBytes = kPanelRows * kStepBytes;

// The most queries any kernel takes in one tile.
inline constexpr std::size_t kMaxTileQueries = 32;
inline constexpr std::size_t kMaxProductRows = 12;

// How elements are coded. The codes of queries are always signed bytes.
enum class CodeFormat : std::uint8_t {
    kInt8,        // -127 to 127
    kInt8Offset,  // the same, 128 added in base rows: for instructions that multiply unsigned by signed
    kInt7Offset,  // -63 to 63, 64 added in base rows
};

// What bounds a pair's score: see docs/core.md. A query's numbers lie [term][query of the tile]; its six slacks
// go with the six bounds of a group.
inline constexpr std::size_t kSlacks = 6;
enum QueryTerm : std::size_t { kCut, kReverseOffset, kReverseFactor, kSlack, kQueryTerms = kSlack + kSlacks };
enum GroupTerm : std::size_t { kInverseScale, kRowCut, kBound, kGroupTerms = kBound + kSlacks };

// One group of base rows against consecutive tiles of queries: the group stays in the first-level cache.
struct ScanJob {
    const std::byte* group = nullptr;     // codes of the group's four panels
    const double* group_terms = nullptr;  // [kGroupTerms]
    std::size_t steps = 0;                // a multiple of Kernels::step_multiple
    std::size_t n_tiles = 0;
    const std::byte* queries = nullptr;    // [n_tiles] tiles of codes, in the kernel's layout
    const double* query_terms = nullptr;   // [n_tiles][kQueryTerms][tile_queries]
    const std::int32_t* starts = nullptr;  // [n_tiles][tile_queries] where sums start: undoes the offset of base codes
    // Where one query of a single tile is of interest, its place; hits of the others may then be left out.
    static constexpr std::size_t kAll = ~std::size_t{0};
    std::size_t only = kAll;
};

// The rows of the group that one query could not discard.
struct Hit {
    std::uint64_t rows;   // bit r: row r of the group
    std::uint32_t query;  // index among the job's queries
};

struct Kernels {
    const char* name;
    CodeFormat format;

    // Queries in a tile. So many consecutive steps of a query lie together: step s of query i is at
    // query_place(s, i) * 4 bytes.
    std::size_t tile_queries;
    std::size_t step_run;
    // What the number of steps is rounded up to; a multiple of step_run.
    std::size_t step_multiple;

    // Integer inner products I of queries with a group; reports each query with a row where
    //   I >= T,  T = floor(min(cut, (row_cut - reverse_offset) * reverse_factor) * inverse_scale - sum slack_t bound_t)
    // and writes the 64 sums of hit h at sums[h * 64]. Returns the number of hits, at most one a query. Sums wrap at 32
    // bits on the way and are exact at the end: the largest true one is 65,536 * 127 * 127 < 2^31.
    std::size_t (*scan)(const ScanJob& job, Hit* hits, std::int32_t* sums);

    // Integer inner product of two rows of codes, `bytes` a multiple of 64; the base row may be offset.
    std::int32_t (*dot)(const std::byte* query, const std::byte* row, std::size_t bytes);

    // Integer inner product of two rows of 16-bit codes, `n` a multiple of 32. The codes' limit keeps it below 2^31.
    std::int32_t (*fine_dot)(const std::int16_t* query, const std::int16_t* row, std::size_t n);

    // Codes round((row[i] - centre[i]) * inverse_scale), cut to +-limit, which `n` elements take; adds up the
    // squares of the elements less their centre, of what the codes lose at `scale`, and of the codes, in float64.
    void (*quantise)(const float* row, const float* centre, std::size_t n, double scale, double inverse_scale,
                     double limit, std::int16_t* codes, double* squares, double* lost_squares, double* code_squares);

    // The largest |row[i] - centre[i]|, rounded like float64.
    double (*largest)(const float* row, const float* centre, std::size_t n);

    // Inner product in float64; the error is within float64_error_factor(dim) * |a| * |b|.
    double (*inner)(const float* a, const float* b, std::size_t dim);

    // Inner products of `product_rows` rows, packed as tile[d * product_rows + i], with panels of 16 rows of
    // float32 (element d at panel[d * 16 + lane]): out[i * (16 * n_panels) + row]. Elements are taken in
    // order, one accumulator a pair, fused or not: the error is within
    // float32_error_factor(dim) * |a| * |b| + float32_error_absolute(dim).
    std::size_t product_rows;
    void (*product)(const float* tile, const float* panels, std::size_t n_panels, std::size_t dim, float* out);

    // Multiply-adds a loop of register-only instructions does: the ceiling of scan (int8) and product.
    std::int64_t (*spin_integer)(std::size_t rounds);
    std::int64_t (*spin_float)(std::size_t rounds);
};

extern const Kernels kPortable;
extern const Kernels kAvx2;
extern const Kernels kAvxVnni;
extern const Kernels kAvx512Vnni;
extern const Kernels kAmx;
extern const Kernels kNeonDot;

// The table of a level named by resolve_isa().
const Kernels& kernels_for(const char* level);

}  // namespace deepssim::simd
