#include "image/fsim.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace deepssim {

namespace {

// The difference along an axis at `i` of `n` places `step` apart.
float difference(const float* at, std::size_t i, std::size_t n, std::ptrdiff_t step) {
    if (i == 0) return at[step] - at[0];
    if (i + 1 == n) return at[0] - at[-step];
    return (at[step] - at[-step]) / 2.0F;
}

std::size_t before(std::size_t i) { return i == 0 ? 1 : i - 1; }
std::size_t after(std::size_t i, std::size_t n) { return i + 1 == n ? n - 2 : i + 1; }

float magnitude(float dx, float dy) { return std::sqrt(dx * dx + dy * dy); }

}  // namespace

void fsim_maps(const ImageStack& stack, std::size_t image, float* edges, float* slopes) {
    const std::size_t height = stack.height;
    const std::size_t width = stack.width;
    std::vector<float> pixels(height * width);
    std::vector<double> row(width);
    for (std::size_t y = 0; y < height; ++y) {
        read_row(stack, image, y, row.data());
        std::transform(row.begin(), row.end(), pixels.begin() + static_cast<std::ptrdiff_t>(y * width),
                       [](double value) { return static_cast<float>(value); });
    }
    float most = 0.0F;
    for (std::size_t y = 0; y < height; ++y) {
        const float* above = pixels.data() + before(y) * width;
        const float* here = pixels.data() + y * width;
        const float* below = pixels.data() + after(y, height) * width;
        for (std::size_t x = 0; x < width; ++x) {
            const std::size_t i = y * width + x;
            edges[i] = magnitude(difference(here + x, y, height, static_cast<std::ptrdiff_t>(width)),
                                 difference(here + x, x, width, 1));
            most = std::max(most, edges[i]);
            const std::size_t left = before(x);
            const std::size_t right = after(x, width);
            const float across =
                (above[left] - above[right]) + 2.0F * (here[left] - here[right]) + (below[left] - below[right]);
            const float down =
                (above[left] - below[left]) + 2.0F * (above[x] - below[x]) + (above[right] - below[right]);
            slopes[i] = magnitude(across, down);
        }
    }
    if (most == 0.0F) return;
    for (std::size_t i = 0; i < height * width; ++i) edges[i] /= most;
}

}  // namespace deepssim
