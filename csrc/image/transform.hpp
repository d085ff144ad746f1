// Similarities in centred coordinates, and which pixels of two images they let overlap.
#pragma once

#include <vector>

#include "deepssim/registration.hpp"
#include "plane.hpp"

namespace deepssim {

// The point p of the fixed image, from its centre, shows matrix * p + offset of the moving one; full-resolution pixels.
struct Pose {
    double matrix[4] = {1.0, 0.0, 0.0, 1.0};
    double offset[2] = {0.0, 0.0};
};

Pose pose_of(const Transform& transform);
Transform transform_of(const Pose& pose);
double scale_of(const Pose& pose);  // how much larger the moving image has to be shown

// p -> zoom * turn * p + shift before the pose.
struct Step {
    double angle = 0.0;
    double row = 0.0;
    double column = 0.0;
    double log_scale = 0.0;
};
Pose composed(const Pose& pose, const Step& step);

struct SpanList {
    std::vector<int> first;
    std::vector<int> last;
    std::size_t count = 0;

    simd::Spans view() const { return {first.data(), last.data()}; }
    // `amount` pixels less on all sides of `from`.
    void erode(const SpanList& from, int cols, int amount);
};

// The spans of fixed pixels that fall inside the moving image of the same size, at a pyramid level whose pixels are
// `factor` full-resolution pixels apart, and in the job the way from the ones to the other.
void place_spans(const Pose& pose, int rows, int cols, double factor_rows, double factor_columns, SpanList& spans,
                 simd::WarpJob& job);
// The same, and what to read.
void place_warp(const Pose& pose, const RowPairs& moving, double factor_rows, double factor_columns, SpanList& spans,
                simd::WarpJob& job);

}  // namespace deepssim
