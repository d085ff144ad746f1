// The kernel table: what each instruction set implements.
//
// Included by the ISA files, so it holds declarations and plain data only: an inline function here
// would be compiled for AVX-512 too, and the linker might keep that copy for everybody.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deepssim::simd {

// Base rows are packed in panels of this many: element d of the panel's rows lies at panel[d * 16 + lane].
inline constexpr std::size_t kPanelRows = 16;

// The most queries any kernel takes in one tile.
inline constexpr std::size_t kMaxTileQueries = 12;

struct Kernels {
    const char* name;

    // Queries in a tile, packed as tile[d * tile_queries + i].
    std::size_t tile_queries;

    // Approximate scores of one query tile against consecutive panels, in float32:
    // scores[i * (16 * n_panels) + row]. Elements are taken in order, one accumulator a pair, fused or
    // not: the error is within float32_error_factor(dim) * |q| * |x| + float32_error_absolute(dim).
    // Overflow is excluded by the limit on norms.
    void (*scan)(const float* tile, const float* panels, std::size_t n_panels, std::size_t dim, float* scores);

    // Inner products of one query (contiguous) with the 16 rows of a panel, in float64; the error is
    // within float64_error_factor(dim) * |q| * |x|.
    void (*rescore)(const float* query, const float* panel, std::size_t dim, double* sums);

    // Indices i < n with scores[i] >= cut, ascending; returns how many. `indices` has room for n + 16.
    std::size_t (*select)(const float* scores, std::size_t n, float cut, std::uint32_t* indices);
};

extern const Kernels kPortable;
extern const Kernels kAvx2;
extern const Kernels kAvx512;

// The table of a level named by resolve_isa().
const Kernels& kernels_for(const char* level);

}  // namespace deepssim::simd
