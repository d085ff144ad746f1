// A small image seen in many ways: mirrored, turned, zoomed and moved, each a row to be searched for.
#pragma once

#include <cstddef>
#include <span>

#include "deepssim/types.hpp"

namespace deepssim {

struct ViewGrid {
    std::size_t n_angles = 1;         // evenly over a full turn, the first is none
    std::span<const double> zooms{};  // factors; over 1 enlarges
    std::size_t shift = 0;            // pixels each way, every one of them
    double least_overlap = 0.35;      // of the pixels, that a view must show of the image
    bool with_mirror = true;
    double aspect = 1.0;  // height of a pixel over its width, where an image was brought to another shape
};

// Views of a grid: mirrored or not, angles, zooms, shifts of rows, shifts of columns, the last the fastest.
std::size_t count_views(const ViewGrid& grid);

// Writes every view as a row of height * width values: bilinear, about the centre, turned as the
// image would be with square pixels, less the mean of the pixels that
// lie inside the image, zero outside, of unit norm. A row is all zeros where less of the image is seen than asked, or
// what is seen is constant. Throws InvalidInput for an image without pixels, of over 2^24 of them or with NaN or
// infinity, for more than 2^24 views, and for zooms or an aspect that are not positive and finite.
void make_views(MatrixView image, const ViewGrid& grid, float* out);

}  // namespace deepssim
