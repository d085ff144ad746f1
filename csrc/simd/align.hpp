// The kernel table of registration: sums over images, written once in align-inl.hpp and compiled for each
// instruction set. Every level gives the same bits: eight lanes, fixed order, nothing fused, or integers.
//
// Included by the ISA files, so it holds declarations and plain data only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deepssim::simd {

inline constexpr std::size_t kAlignLanes = 8;
// Rows are padded to this. What keeps columns apart takes as many at once.
inline constexpr std::size_t kAlignPadding = 16;

// Columns first[row] .. last[row] - 1 of each row; a row without any has first >= last.
struct Spans {
    const int* first;
    const int* last;
};

// Samples `moving` at m * (row, column) + d by bilinear interpolation, zeros outside the spans.
struct WarpJob {
    const float* moving;           // each pixel and the one below it; two more pixels than the rows have can be read
    std::ptrdiff_t moving_stride;  // pixels
    int moving_rows;
    int moving_cols;
    double matrix[4];
    double offset[2];
    Spans spans;
    int rows;
    std::ptrdiff_t stride;  // of `out` and `fixed`, a multiple of the padding
    const float* fixed;
    float* out;
};

// Over the spans: sums of fixed (a) and warped (b) pixels and of their products. Float32 over eight rows, then float64.
struct PairSums {
    double a;
    double b;
    double aa;
    double bb;
    double ab;
};

// Sums of two planes and of their products over the spans.
struct PairJob {
    const float* a;
    const float* b;
    std::ptrdiff_t stride;
    Spans spans;
    int rows;
};

// The normal equations of one Gauss-Newton step; see register.cpp.
struct NormalJob {
    const float* fixed;
    const float* warped;
    std::ptrdiff_t stride;
    Spans spans;  // one pixel inside what was warped: differences reach to the neighbours
    int rows;
    float gain;
    float bias;
    float inverse_square;  // of the Cauchy scale
    float factor_rows;     // full-resolution pixels in one of this level
    float factor_columns;
    float centre_row;
    float centre_column;
};
// The upper triangle of J^T W J row by row (rotation, row shift, column shift, log scale), then J^T W e.
inline constexpr std::size_t kNormalTerms = 14;

// One box of width 2 radius + 1 with a part `edge` of the next element on each side; `scale` is 1 / its weight.
struct Box {
    int radius;
    float edge;
    float scale;
};

// Columns of in * times (times may be null) under the boxes one after the other, zeros outside, transposed.
struct SmoothJob {
    const float* in;
    const float* times;
    std::ptrdiff_t stride;
    int rows;
    int cols;
    const Box* boxes;
    int n_boxes;
    float* out;  // out[column * out_stride + row]
    std::ptrdiff_t out_stride;
    float* scratch;  // smooth_scratch() floats
};

inline constexpr int kBankShifts = 7;  // columns; -3 to 3
inline constexpr std::size_t kBankLanes = 32;

// Inner products of templates with an image at shifts.
struct BankJob {
    const std::int8_t* templates;  // [n_templates][rows][width], n_templates even
    int n_templates;
    int rows;
    int width;                  // a multiple of the bank's lanes
    const std::uint8_t* image;  // below 128; shift (i, dx) of row y starts at image + (y + i * row_step) * stride + dx
    std::ptrdiff_t image_stride;
    int n_row_shifts;
    int row_step;
    std::int32_t* out;  // [n_templates][n_row_shifts][kBankShifts]
};

struct LocalNormJob {
    const float* image;
    const float* sums;     // smoothed image
    const float* squares;  // smoothed square
    const float* weights;  // smoothed mask
    const float* mask;     // null: all
    float epsilon_square;
    std::size_t n;  // a multiple of the lanes
    float* out;
};

struct LocalCorrelationJob {
    const float* weights;
    const float* a;
    const float* b;
    const float* aa;
    const float* bb;
    const float* ab;
    float constant;
    std::size_t n;
    float* out;
};

struct AlignKernels {
    const char* name;
    PairSums (*warp)(const WarpJob& job);
    PairSums (*pair)(const PairJob& job);
    void (*normal)(const NormalJob& job, double* sums);
    void (*smooth)(const SmoothJob& job);
    void (*bank)(const BankJob& job);
    void (*local_norm)(const LocalNormJob& job);
    void (*local_correlation)(const LocalCorrelationJob& job);
};

extern const AlignKernels kAlignPortable;
extern const AlignKernels kAlignAvx2;
extern const AlignKernels kAlignAvx512;

// The table for a level named by resolve_isa().
const AlignKernels& align_kernels_for(const char* level);

}  // namespace deepssim::simd
