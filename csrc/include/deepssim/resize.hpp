// Area resampling of grey images.
#pragma once

#include <cstddef>

#include "deepssim/types.hpp"

namespace deepssim {

// Each output pixel is the mean of the input over the rectangle that it covers, fractions of pixels
// included (box filter; when enlarging, each output pixel takes the value or the weighted values under
// it). `out` is row-major (height, width). Sums are taken in float64 in a fixed order, so the same image
// gives the same bits on every machine. Throws InvalidInput for an empty input or output.
void resize_area(MatrixView image, std::size_t height, std::size_t width, float* out);

}  // namespace deepssim
