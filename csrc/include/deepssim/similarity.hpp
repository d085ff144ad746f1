// Similarity of grey images of one size, pixel against pixel: SSIM, a gradient FSIM and the correlation of pixels.
//
// SSIM: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
// similarity", IEEE TIP 13(4), 2004, equation 13, K1 = .01, K2 = .03; the mean over the places at which the window
// lies inside the image. The uniform window is 7 x 7 with the sample covariance (over 48), the Gaussian one has
// sigma 1.5 and 11 x 11 weights and the population covariance (section III-B there).
//
// Numerics. Where both images hold whole numbers from 0 to 255, window sums are 32-bit integers and exact, and so is
// 98 sum(xy) - 2 sum(x) sum(y); only what comes after rounds to float32, and sums of at most four windows: within 1e-7
// of the mean over the reals, or 2e-7 where all windows are alike and round the same way. Anything else, and ranges
// from which float32 would over- or underflow, is computed in float64 throughout, covariances about the image's mean.
// Which of the two is decided by the two images and the range alone. Every ISA level gives the same bits, and so does
// any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "deepssim/cancel.hpp"
#include "deepssim/types.hpp"

namespace deepssim {

enum class PixelType : std::uint8_t { kUint8, kFloat32 };

// Borrowed images of one size; pixels of a row are contiguous, strides may be negative.
struct ImageStack {
    const void* data = nullptr;
    PixelType type = PixelType::kFloat32;
    std::size_t n = 0;
    std::size_t height = 0;
    std::size_t width = 0;
    std::ptrdiff_t image_stride = 0;  // bytes
    std::ptrdiff_t row_stride = 0;    // bytes
    std::string name;                 // what messages call it

    const void* row(std::size_t image, std::size_t y) const {
        return static_cast<const char*>(data) + static_cast<std::ptrdiff_t>(image) * image_stride +
               static_cast<std::ptrdiff_t>(y) * row_stride;
    }
};

enum class Similarity : std::uint8_t {
    kSsim,
    kContrastStructure,  // SSIM without the luminance term: (2 cov + C2) / (var + var + C2), eq. 9 and 10 joined
    kFsim,               // see fsim.hpp
    kNcc,                // Pearson correlation of the pixels; 0 where an image is constant
};

enum class SsimWindow : std::uint8_t { kUniform, kGaussian };

struct SimilarityOptions {
    Similarity kind = Similarity::kSsim;
    SsimWindow window = SsimWindow::kUniform;
    // Images are first taken to zero mean and unit population variance; a constant one becomes zero.
    bool with_z_score = false;
    // The range of pixel values that C1 and C2 are made from; 0: largest less smallest of the first image of a pair
    // (after the z-score), which must then not be constant.
    double data_range = 0.0;
    std::size_t threads = 0;  // 0: all usable processors
    std::string isa;          // as resolve_isa() takes it
};

// Where a matrix of results goes: one of the two.
struct SimilarityOutput {
    double* doubles = nullptr;
    float* floats = nullptr;
    std::size_t row_stride = 0;  // elements

    void store(std::size_t i, std::size_t j, double value) const {
        if (doubles != nullptr) {
            doubles[i * row_stride + j] = value;
        } else {
            floats[i * row_stride + j] = static_cast<float>(value);
        }
    }
};

struct ImagePair {
    std::int64_t first;
    std::int64_t second;
};

// Every image of `first` with every one of `second`. Working memory is bounded: terms of at most about 64 MiB of
// images (or two images) at a time. `poll` (may be empty) is called about every 20 ms.
// Throws InvalidInput for sizes that differ or are too small and for pixels that are not finite, before any work.
void similarity_matrix(const ImageStack& first, const ImageStack& second, const SimilarityOptions& options,
                       const SimilarityOutput& out, const CancelToken* cancel, const std::function<void()>& poll);

// The pairs given by index, in their order: out[p]. The same numbers as the matrix.
void similarity_pairs(const ImageStack& first, const ImageStack& second, std::span<const ImagePair> pairs,
                      const SimilarityOptions& options, double* out, const CancelToken* cancel,
                      const std::function<void()>& poll);

// Pixels that the window reaches to each side: what a map is smaller by at each edge.
std::size_t ssim_radius(SsimWindow window);

// SSIM (or the contrast-structure term) at each place where the window lies inside the two images, in float64:
// (height - 2 radius, width - 2 radius), row-major. Both stacks hold one image.
void ssim_map(const ImageStack& first, const ImageStack& second, const SimilarityOptions& options, double* out);

}  // namespace deepssim
