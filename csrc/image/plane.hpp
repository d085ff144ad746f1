// A float32 image as the kernels want it: rows padded with zeros to the lanes, one more row after the last.
#pragma once

#include <cstddef>
#include <vector>

#include "simd/align.hpp"

namespace deepssim {

struct Plane {
    int rows = 0;
    int cols = 0;
    std::ptrdiff_t stride = 0;
    std::vector<float> pixels;

    Plane() = default;
    Plane(int n_rows, int n_cols) { reset(n_rows, n_cols); }

    // Keeps what it holds when the size stays: whoever writes also writes zeros into the padding.
    void reset(int n_rows, int n_cols) {
        if (n_rows == rows && n_cols == cols) return;
        rows = n_rows;
        cols = n_cols;
        constexpr int kLanes = static_cast<int>(simd::kAlignLanes);
        stride = static_cast<std::ptrdiff_t>((n_cols + kLanes - 1) / kLanes) * kLanes;
        pixels.assign((static_cast<std::size_t>(n_rows) + 1) * static_cast<std::size_t>(stride) + simd::kAlignLanes,
                      0.0F);
    }
    float* row(int y) { return pixels.data() + static_cast<std::ptrdiff_t>(y) * stride; }
    const float* row(int y) const { return pixels.data() + static_cast<std::ptrdiff_t>(y) * stride; }
    // What elementwise kernels go over: whole rows, padding included.
    std::size_t padded_size() const { return static_cast<std::size_t>(rows) * static_cast<std::size_t>(stride); }
};

}  // namespace deepssim
