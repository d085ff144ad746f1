// One comparison, resolved: the terms that it keeps of an image and the number that it makes of two.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "image/byte_records.hpp"
#include "image/summary.hpp"
#include "simd/kernels.hpp"
#include "simd/similarity_kernels.hpp"

namespace deepssim {

// What a comparison keeps of an image. The memory is the caller's; which pointers are set depends on the comparison.
struct ImageTerms {
    ImageSummary summary;
    const std::int32_t* records = nullptr;
    simd::WideTerms wide{};
    const float* edges = nullptr;
    const float* slopes = nullptr;
    const float* unit = nullptr;  // less the mean, over the norm
};

class Comparison {
   public:
    // Throws InvalidInput for images or options that cannot be compared.
    Comparison(const ImageStack& first, const ImageStack& second, const SimilarityOptions& options);

    // Looks at the summaries of all images: refuses what has no answer, and settles which terms are kept.
    void accept(const ImageStack& first, const std::vector<ImageSummary>& of_first, const ImageStack& second,
                const std::vector<ImageSummary>& of_second);

    std::size_t term_bytes() const;
    // Images of each side that compare_block() takes at most.
    std::size_t block_images() const;
    std::size_t scratch_bytes() const;

    // The side is that on which compare() and compare_block() get them; `memory` has term_bytes(), aligned to cache
    // lines.
    ImageTerms terms(const ImageStack& stack, std::size_t image, const ImageSummary& summary, Side side,
                     std::byte* memory) const;

    // `scratch` has scratch_bytes(), aligned to cache lines.
    double compare(const ImageTerms& a, const ImageTerms& b, std::byte* scratch) const;
    // out[i * columns.size() + j] of rows[i] and columns[j]. The same numbers as compare().
    void compare_block(std::span<const ImageTerms> rows, std::span<const ImageTerms> columns, std::byte* scratch,
                       double* out) const;

    // SSIM in float64 at each window.
    void map(const ImageTerms& a, const ImageTerms& b, std::byte* scratch, double* out) const;
    // From here on all terms are kept in float64 too.
    void want_wide() { with_wide_ = true; }

   private:
    bool is_ssim() const;
    double scale_of(const ImageSummary& summary) const;
    double range_of(const ImageSummary& first) const;
    bool takes_bytes(const ImageSummary& a, const ImageSummary& b) const;
    void fill_bytes(const ImageStack& stack, std::size_t image, Side side, ImageTerms& terms, std::byte*& free) const;
    void fill_wide(const ImageStack& stack, std::size_t image, ImageTerms& terms, std::byte*& free) const;
    void fill_unit(const ImageStack& stack, std::size_t image, ImageTerms& terms, std::byte*& free) const;
    std::size_t byte_state_bytes() const;
    simd::ByteJob byte_job(const ImageTerms& a, const ImageTerms& b, std::byte* state) const;
    double compare_other(const ImageTerms& a, const ImageTerms& b, std::byte* scratch) const;
    double compare_wide(const ImageTerms& a, const ImageTerms& b, std::byte* scratch, double* map) const;

    SimilarityOptions options_;
    const simd::Kernels* kernels_ = nullptr;
    const simd::SimilarityKernels* similarity_ = nullptr;
    std::size_t height_ = 0;
    std::size_t width_ = 0;
    std::size_t stride_ = 0;
    std::size_t taps_ = 0;
    std::array<double, simd::kMaxTaps> weights_{};
    double covariance_norm_ = 1.0;
    ByteLayout layout_;
    bool with_bytes_ = false;
    bool with_wide_ = false;
};

}  // namespace deepssim
