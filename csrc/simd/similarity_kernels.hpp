// The kernel table of image similarity. Declarations and plain data only, as in kernels.hpp and for its reason.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deepssim::simd {

// Accumulators have this many lanes at every level, so that all round alike.
inline constexpr std::size_t kPixelLanes = 16;
// Rows of images start at multiples of this many pixels; what fills them up is zero.
inline constexpr std::size_t kRowMultiple = 16;

inline constexpr std::size_t kUniformTaps = 7;
inline constexpr std::size_t kMaxTaps = 11;

// An 8-bit image and what its 7 x 7 windows hold. Rows of all arrays are `stride` apart; those of windows are at
// the window's upper left pixel.
struct ByteTerms {
    const std::int16_t* pixels;  // grey less 128: a product of two fits 16 bits, and so does a difference of products
    const std::int32_t* sums;    // of the window's pixels
    const float* means;          // affine map applied
    const float* variances;
};

struct ByteJob {
    ByteTerms a;
    ByteTerms b;
    std::size_t height;
    std::size_t width;
    std::size_t stride;
    // Twice the covariance of a window is (high + low) * (49 sum(ab) - sum(a) sum(b)): one float32 would be wrong in
    // the same direction at every window.
    float twice_high;
    float twice_low;
    float c1;
    float c2;
    std::int32_t* columns;  // [2][stride + kRowMultiple], scratch
};

// An image in float64 less its mean, and the means and variances of its windows.
struct WideTerms {
    const double* pixels;
    const double* centred_means;  // of pixels
    const double* means;          // of the image
    const double* variances;
};

struct WideJob {
    WideTerms a;
    WideTerms b;
    std::size_t height;
    std::size_t width;
    std::size_t stride;
    std::size_t taps;
    const double* weights;   // [taps], of rows and of columns
    double covariance_norm;  // sample or population
    double c1;
    double c2;
    double* scratch;  // [3 * stride]
    double* map;      // may be null; [height - taps + 1][width - taps + 1]
};

struct SimilarityKernels {
    // Sums over all windows. `structure` leaves the luminance term out.
    double (*byte_ssim)(const ByteJob& job);
    double (*byte_structure)(const ByteJob& job);
    double (*wide_ssim)(const WideJob& job);
    double (*wide_structure)(const WideJob& job);

    // The separable weighted mean over windows of a * b, or of a where b is null; out has rows of `stride`.
    void (*smooth)(const double* a, const double* b, std::size_t height, std::size_t width, std::size_t stride,
                   std::size_t taps, const double* weights, double* line, double* out);

    // Numerator and denominator of FSIM over n pixels, a multiple of kRowMultiple: edges are normalised to at most 1.
    void (*fsim_sums)(const float* edges_a, const float* slopes_a, const float* edges_b, const float* slopes_b,
                      std::size_t n, double* numerator, double* denominator);
};

extern const SimilarityKernels kSimilarityPortable;
extern const SimilarityKernels kSimilarityAvx2;
extern const SimilarityKernels kSimilarityAvx512;

// The table of a level named by resolve_isa().
const SimilarityKernels& similarity_kernels_for(const char* level);

}  // namespace deepssim::simd
