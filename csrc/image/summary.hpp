// What one pass over an image tells: whether it can be compared, and the affine map of its z-score.
#pragma once

#include <cstddef>
#include <vector>

#include "deepssim/similarity.hpp"

namespace deepssim {

struct ImageSummary {
    bool is_finite = true;
    bool is_bytes = true;  // whole numbers from 0 to 255
    double least = 0.0;
    double most = 0.0;
    double mean = 0.0;
    double deviation = 0.0;  // of the population; exactly 0 for a constant image
};

// Row `y` of an image in float64.
void read_row(const ImageStack& stack, std::size_t image, std::size_t y, double* out);

ImageSummary summarise(const ImageStack& stack, std::size_t image);

}  // namespace deepssim
