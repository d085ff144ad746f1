// A float32 image as the kernels want it: rows padded with zeros, one more row after the last.
#pragma once

#include <algorithm>
#include <cstddef>

#include "common/aligned.hpp"
#include "simd/align.hpp"

namespace deepssim {

struct Plane {
    int rows = 0;
    int cols = 0;
    std::ptrdiff_t stride = 0;
    AlignedFloats pixels;

    Plane() = default;
    Plane(int n_rows, int n_cols) { reset(n_rows, n_cols); }

    // Keeps what it holds when the size stays: whoever writes also writes zeros into the padding.
    void reset(int n_rows, int n_cols) {
        if (n_rows == rows && n_cols == cols) return;
        rows = n_rows;
        cols = n_cols;
        constexpr int kPad = static_cast<int>(simd::kAlignPadding);
        stride = static_cast<std::ptrdiff_t>((n_cols + kPad - 1) / kPad) * kPad;
        pixels.assign((static_cast<std::size_t>(n_rows) + 1) * static_cast<std::size_t>(stride) + simd::kAlignLanes,
                      0.0F);
    }
    float* row(int y) { return pixels.data() + static_cast<std::ptrdiff_t>(y) * stride; }
    const float* row(int y) const { return pixels.data() + static_cast<std::ptrdiff_t>(y) * stride; }
    // What elementwise kernels go over: whole rows, padding included.
    std::size_t padded_size() const { return static_cast<std::size_t>(rows) * static_cast<std::size_t>(stride); }
};

// A plane as a warp reads it: beside each pixel the one below it, so that four neighbours are one load of 16 bytes.
struct RowPairs {
    int rows = 0;
    int cols = 0;
    std::ptrdiff_t stride = 0;  // pixels, of two floats each
    AlignedFloats pixels;

    void fill(const Plane& plane) {
        rows = plane.rows;
        cols = plane.cols;
        stride = plane.stride;
        pixels.resize(2 * plane.padded_size() + simd::kAlignLanes);
        for (int y = 0; y < rows; ++y) {
            const float* above = plane.row(y);
            const float* below = plane.row(std::min(y + 1, rows - 1));
            float* out = pixels.data() + std::ptrdiff_t{2} * y * stride;
            for (std::ptrdiff_t x = 0; x < stride; ++x) {
                out[2 * x] = above[x];
                out[2 * x + 1] = below[x];
            }
        }
    }
};

}  // namespace deepssim
