#include "image/byte_records.hpp"

#include <algorithm>
#include <vector>

namespace deepssim {

namespace {

constexpr std::size_t kTaps = simd::kUniformTaps;
constexpr std::size_t kLanes = simd::kPixelLanes;
constexpr int kWindowPixels = static_cast<int>(kTaps * kTaps);

std::size_t divided_up(std::size_t n, std::size_t parts) { return (n + parts - 1) / parts; }

// Two 16-bit numbers in one element, the first in the lower half.
std::int32_t pair_of(int low, int high) {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(high) << 16U |
                                     (static_cast<std::uint32_t>(low) & 0xFFFFU));
}

// Sums over windows of a row: sums[x] of line[x] to line[x + 6].
void sum_windows(const std::vector<int>& line, std::vector<int>& sums) {
    int sum = 0;
    for (std::size_t x = 0; x < line.size(); ++x) {
        sum += line[x];
        if (x + 1 < kTaps) continue;
        sums[x + 1 - kTaps] = sum;
        sum -= line[x + 1 - kTaps];
    }
}

// What the windows of an image hold, row-major.
struct Windows {
    std::vector<int> sums;
    std::vector<int> variances;  // 49 sum(aa) - sum(a)^2
};

Windows windows_of(const std::vector<int>& pixels, std::size_t height, std::size_t width) {
    const std::size_t n = width - kTaps + 1;
    Windows found;
    found.sums.resize((height - kTaps + 1) * n);
    found.variances.resize(found.sums.size());
    std::vector<int> columns(width);
    std::vector<int> squares(width);
    std::vector<int> sums(n);
    std::vector<int> square_sums(n);
    for (std::size_t y = 0; y < height; ++y) {
        const int* in = pixels.data() + y * width;
        if (y < kTaps) {
            for (std::size_t x = 0; x < width; ++x) {
                columns[x] += in[x];
                squares[x] += in[x] * in[x];
            }
        } else {
            const int* out = in - kTaps * width;
            for (std::size_t x = 0; x < width; ++x) {
                columns[x] += in[x] - out[x];
                squares[x] += in[x] * in[x] - out[x] * out[x];
            }
        }
        if (y + 1 < kTaps) continue;
        sum_windows(columns, sums);
        sum_windows(squares, square_sums);
        const std::size_t row = (y + 1 - kTaps) * n;
        for (std::size_t x = 0; x < n; ++x) {
            found.sums[row + x] = sums[x];
            found.variances[row + x] = kWindowPixels * square_sums[x] - sums[x] * sums[x];
        }
    }
    return found;
}

}  // namespace

ByteLayout::ByteLayout(std::size_t height, std::size_t width) : height_(height - kTaps + 1), width_(width - kTaps + 1) {
    // In cycles: a column of a record costs about a fifth of what a window does, a row about as much as a window.
    std::size_t least = 0;
    for (std::size_t bands = 1; bands <= kLanes; bands *= 2) {
        const std::size_t rows = divided_up(height_, bands);
        const std::size_t steps = divided_up(width_, kLanes / bands);
        const std::size_t cost = (rows + kTaps - 1) * (steps + kTaps - 1) + 5 * rows * (steps + 1);
        if (bands > 1 && cost >= least) continue;
        least = cost;
        bands_ = bands;
        strips_ = kLanes / bands;
        rows_ = rows;
        steps_ = steps;
    }
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
        const Part of = part(lane);
        for (std::size_t kind = 0; kind < 4; ++kind) {
            const bool is_in = of.rows + (kind < 2 ? 1 : 0) >= rows_ && of.steps + (kind % 2 == 0 ? 1 : 0) >= steps_;
            masks_[kind * kLanes + lane] = is_in && of.rows > 0 && of.steps > 0 ? -1 : 0;
        }
    }
}

ByteLayout::Part ByteLayout::part(std::size_t lane) const {
    const std::size_t band = lane / strips_;
    const std::size_t strip = lane % strips_;
    const std::size_t y = band * height_ / bands_;
    const std::size_t x = strip * width_ / strips_;
    return {y, x, (band + 1) * height_ / bands_ - y, (strip + 1) * width_ / strips_ - x};
}

void fill_byte_records(const ImageStack& stack, std::size_t image, const ByteLayout& layout, Side side,
                       const ByteUnits& units, std::int32_t* out) {
    std::vector<int> pixels(stack.height * stack.width);
    std::vector<double> line(stack.width);
    for (std::size_t y = 0; y < stack.height; ++y) {
        read_row(stack, image, y, line.data());
        std::transform(line.begin(), line.end(), pixels.begin() + static_cast<std::ptrdiff_t>(y * stack.width),
                       [](double value) { return static_cast<int>(value); });
    }
    const Windows windows = windows_of(pixels, stack.height, stack.width);
    const std::size_t n = stack.width - kTaps + 1;
    const std::size_t plane = layout.steps() * kLanes;
    const std::size_t first_sum = (layout.steps() + kTaps - 1) * kLanes;
    const int enters = side == Side::kFirst ? 1 : 2 * kWindowPixels;
    const int leaves = side == Side::kFirst ? 1 : -2 * kWindowPixels;
    const int of_sum = side == Side::kFirst ? 1 : -2;
    auto* floats = reinterpret_cast<float*>(out);
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
        const ByteLayout::Part part = layout.part(lane);
        if (part.rows == 0 || part.steps == 0) continue;
        for (std::size_t r = 0; r < part.rows + kTaps - 1; ++r) {
            const std::size_t record = r * simd::byte_record(layout.steps());
            const int* row = pixels.data() + (part.y + r) * stack.width + part.x;
            for (std::size_t c = 0; c < part.steps + kTaps - 1; ++c) {
                const int old = r < kTaps ? 0 : *(row + c - kTaps * stack.width);
                out[record + c * kLanes + lane] = pair_of(enters * row[c], leaves * old);
            }
            if (r + 1 < kTaps) continue;
            const std::size_t window = (part.y + r + 1 - kTaps) * n + part.x;
            for (std::size_t t = 0; t < part.steps; ++t) {
                const std::size_t at = record + first_sum + t * kLanes + lane;
                const int sum = windows.sums[window + t];
                const auto whole = static_cast<float>(windows.variances[window + t]);
                out[at] = pair_of(of_sum * sum, 0);
                floats[at + plane] = static_cast<float>((sum - kWindowPixels * units.shift) * units.mean_scale);
                floats[at + 2 * plane] = whole * units.high + whole * units.low;
            }
        }
    }
}

}  // namespace deepssim
