// What registration keeps of an image, and the smoothing that makes it.
#pragma once

#include <span>
#include <vector>

#include "deepssim/registration.hpp"
#include "plane.hpp"

namespace deepssim {

// The lengths of the method are in pixels at this image width.
inline constexpr double kReferenceWidth = 112.0;
inline constexpr double kLocalFloor = 0.04;  // added to the local standard deviation, in squares

struct Level {
    Plane normalised;
    double factor_rows = 1.0;  // full-resolution pixels in one of this level
    double factor_columns = 1.0;
};

struct RegistrationImage::Parts {
    std::vector<Level> levels;  // full resolution first; the last is the thumbnail
    std::size_t evidence_level = 0;
    Plane grey;  // of the evidence level
};

// Boxes that together have this standard deviation in pixels: extended box filters, three passes (Gwosdek et al.,
// Theoretical foundations of Gaussian convolution by extended box filtering, SSVM 2011, equation 3).
std::vector<simd::Box> gaussian_boxes(double sigma);
simd::Box window_box(int radius);

// Smooths planes, zeros outside, with buffers of its own.
class Smoother {
   public:
    explicit Smoother(const simd::AlignKernels& kernels) : kernels_(kernels) {}
    // out = boxes along columns, then along rows, of in * times (times may be null).
    void run(const Plane& in, const Plane* times, std::span<const simd::Box> boxes, Plane& out);

   private:
    const simd::AlignKernels& kernels_;
    Plane turned_;
    AlignedFloats scratch_;
};

}  // namespace deepssim
