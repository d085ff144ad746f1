// The two maps of an image that FSIM compares.
//
// Zhang, Zhang, Mou, Zhang, "FSIM: a feature similarity index for image quality assessment", IEEE TIP 20(8), 2011,
// joins phase congruency (from log-Gabor filters) with the gradient magnitude. What published work on copies of
// training images calls FSIM replaces phase congruency by the central-difference gradient magnitude over its maximum;
// that is what is computed here.
#pragma once

#include <cstddef>

#include "image/summary.hpp"

namespace deepssim {

// What float32 can square and multiply on the way.
inline constexpr double kMostFsimGrey = 1e6;

// edges: gradient magnitude (central differences, one-sided at the edges) over its maximum, zeros where that is 0;
// slopes: magnitude of the 3 x 3 Sobel filters, borders reflected about the outermost pixel. Both row-major without
// gaps, rounded to float32 in each step. At least 2 x 2 pixels.
void fsim_maps(const ImageStack& stack, std::size_t image, float* edges, float* slopes);

}  // namespace deepssim
