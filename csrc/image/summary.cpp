#include "image/summary.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

namespace deepssim {

void read_row(const ImageStack& stack, std::size_t image, std::size_t y, double* out) {
    const void* row = stack.row(image, y);
    if (stack.type == PixelType::kUint8) {
        const auto* pixels = static_cast<const std::uint8_t*>(row);
        std::copy(pixels, pixels + stack.width, out);
    } else {
        const auto* pixels = static_cast<const float*>(row);
        std::copy(pixels, pixels + stack.width, out);
    }
}

namespace {

using Histogram = std::array<std::uint64_t, 256>;

template <class Pixel>
Histogram histogram_of(const ImageStack& stack, std::size_t image) {
    // Two, by turns: equal neighbours would wait for one another's count.
    std::array<Histogram, 2> counts{};
    for (std::size_t y = 0; y < stack.height; ++y) {
        const auto* row = static_cast<const Pixel*>(stack.row(image, y));
        for (std::size_t x = 0; x < stack.width; ++x) ++counts[x % 2][static_cast<std::uint8_t>(row[x])];
    }
    for (std::size_t grey = 0; grey < counts[0].size(); ++grey) counts[0][grey] += counts[1][grey];
    return counts[0];
}

ImageSummary summary_of(const Histogram& counts) {
    ImageSummary summary;
    double n = 0.0;
    double sum = 0.0;
    double grey = 0.0;
    for (const std::uint64_t count : counts) {
        if (count > 0) {
            if (n == 0.0) summary.least = grey;
            summary.most = grey;
        }
        n += static_cast<double>(count);
        sum += static_cast<double>(count) * grey++;
    }
    summary.mean = sum / n;
    double squares = 0.0;
    grey = 0.0;
    for (const std::uint64_t count : counts) {
        squares += static_cast<double>(count) * (grey - summary.mean) * (grey - summary.mean);
        ++grey;
    }
    summary.deviation = std::sqrt(squares / n);
    return summary;
}

}  // namespace

ImageSummary summarise(const ImageStack& stack, std::size_t image) {
    // Both types of pixels by their counts, so that the same grey values have the same summary.
    if (stack.type == PixelType::kUint8 && stack.height * stack.width > 0) {
        return summary_of(histogram_of<std::uint8_t>(stack, image));
    }
    ImageSummary summary;
    std::vector<double> row(stack.width);
    const double n = static_cast<double>(stack.height) * static_cast<double>(stack.width);
    double sum = 0.0;
    for (std::size_t y = 0; y < stack.height; ++y) {
        read_row(stack, image, y, row.data());
        if (y == 0) summary.least = summary.most = row[0];
        for (const double value : row) {
            if (!std::isfinite(value)) {
                summary.is_finite = false;
                return summary;
            }
            summary.least = std::min(summary.least, value);
            summary.most = std::max(summary.most, value);
            if (std::floor(value) != value) summary.is_bytes = false;
            sum += value;
        }
    }
    if (summary.least < 0.0 || summary.most > 255.0) summary.is_bytes = false;
    if (summary.is_bytes && n > 0.0) return summary_of(histogram_of<float>(stack, image));
    if (summary.least == summary.most) {  // sums round: a constant must not seem to vary
        summary.mean = summary.least;
        return summary;
    }
    summary.mean = sum / n;
    double squares = 0.0;
    for (std::size_t y = 0; y < stack.height; ++y) {
        read_row(stack, image, y, row.data());
        for (const double value : row) squares += (value - summary.mean) * (value - summary.mean);
    }
    summary.deviation = std::sqrt(squares / n);
    return summary;
}

}  // namespace deepssim
