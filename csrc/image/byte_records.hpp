// 8-bit images as the kernels of SSIM read them: see ByteJob.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "image/summary.hpp"
#include "simd/similarity_kernels.hpp"

namespace deepssim {

// How the windows of an image are cut into a part for each lane: `bands` of rows times `strips` of columns.
class ByteLayout {
   public:
    ByteLayout() = default;
    ByteLayout(std::size_t height, std::size_t width);

    std::size_t rows() const { return rows_; }    // of windows, of the highest band
    std::size_t steps() const { return steps_; }  // windows in a row of the widest strip
    std::size_t records() const { return rows_ + simd::kUniformTaps - 1; }
    std::size_t record_bytes() const { return simd::byte_record(steps_) * sizeof(std::int32_t); }
    std::size_t column_bytes() const {
        return (steps_ + simd::kUniformTaps - 1) * simd::kPixelLanes * sizeof(std::int32_t);
    }
    // As ByteJob has them.
    const std::int32_t* masks() const { return masks_.data(); }

    // Where the lane's part begins and how many windows it is high and wide.
    struct Part {
        std::size_t y;
        std::size_t x;
        std::size_t rows;
        std::size_t steps;
    };
    Part part(std::size_t lane) const;

   private:
    std::size_t height_ = 0;  // of all windows
    std::size_t width_ = 0;
    std::size_t bands_ = 1;
    std::size_t strips_ = 1;
    std::size_t rows_ = 0;
    std::size_t steps_ = 0;
    std::array<std::int32_t, 4 * simd::kPixelLanes> masks_{};
};

enum class Side : std::uint8_t { kFirst, kSecond };

// What a record's means and variances are: (sum - 49 * shift) * mean_scale, and (49 sum(aa) - sum(a)^2) * (high + low).
struct ByteUnits {
    double shift;
    double mean_scale;
    float high;
    float low;
};

// `out` has layout.records() records.
void fill_byte_records(const ImageStack& stack, std::size_t image, const ByteLayout& layout, Side side,
                       const ByteUnits& units, std::byte* out);

}  // namespace deepssim
