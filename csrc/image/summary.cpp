#include "image/summary.hpp"

#include <algorithm>
#include <cmath>

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

ImageSummary summarise(const ImageStack& stack, std::size_t image) {
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
