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

// An 8-bit image as records of 32-bit elements. The windows are cut into kPixelLanes parts, each `rows` x `steps`
// windows or one less, and each lane goes over a part of its own: neighbours in a row follow each other in one lane, so
// that sums slide without shuffles. Record r holds, kPixelLanes elements at a time,
//   [steps + 6] pixels of row r and the same column's of row r - 7 (0 where there is none), two 16-bit numbers;
//   [steps] sums of the windows that end at row r (from r = 6 on), [steps] means and [steps] variances in float32.
// The second image of a pair has -98 times the pixel that leaves, 98 times the one that enters, and -2 times the sum.
// Sums of products are then 98 sum(ab) - 2 sum(a) sum(b), at most 312,375,000 on the way: exact in 32 bits.
struct ByteJob {
    const std::int32_t* a;
    const std::int32_t* b;
    std::size_t rows;
    std::size_t steps;
    // That number times (high + low) is twice the covariance in the unit of the variances. Where images are scaled each
    // by its own deviation one float32 would be wrong in the same direction at every window; else low is 0.
    float high;
    float low;
    float c1;
    float c2;
    const std::int32_t* masks;  // [2][2][kPixelLanes]: of the last row or not, of the last step or not
    std::int32_t* columns;      // [steps + 6][kPixelLanes], state: sums over the seven rows that end here; 0 at first
    double* lacks;              // [kPixelLanes], state: what SSIM lacks of one, added up; 0 at first
};

constexpr std::size_t byte_record(std::size_t steps) { return (4 * steps + kUniformTaps - 1) * kPixelLanes; }

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
    // `structure` leaves the luminance term out. Those of bytes go over records [first, last) and add to the state;
    // the second of each two takes job.low into account. Those of float64 return sums over all windows.
    void (*byte_ssim[2])(const ByteJob& job, std::size_t first, std::size_t last);
    void (*byte_structure[2])(const ByteJob& job, std::size_t first, std::size_t last);
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
