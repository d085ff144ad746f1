#include "image/byte_records.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace deepssim {

namespace {

constexpr std::size_t kTaps = simd::kUniformTaps;
constexpr std::size_t kLanes = simd::kPixelLanes;
constexpr int kWindowPixels = static_cast<int>(kTaps * kTaps);

std::size_t divided_up(std::size_t n, std::size_t parts) { return (n + parts - 1) / parts; }

// What the records hold, row-major; rows are one longer than the image's or its windows', since a strip that is one
// window narrower than the widest is read as wide.
struct Planes {
    std::size_t pixel_stride;
    std::size_t window_stride;
    std::vector<std::int32_t> pixels;  // as ByteJob has them
    std::vector<std::int32_t> sums;
    std::vector<float> means;
    std::vector<float> variances;
};

void read_pixels(const ImageStack& stack, std::size_t image, std::vector<std::int32_t>& pixels, std::size_t stride) {
    for (std::size_t y = 0; y < stack.height; ++y) {
        std::int32_t* line = pixels.data() + y * stride;
        if (stack.type == PixelType::kUint8) {
            const auto* row = static_cast<const std::uint8_t*>(stack.row(image, y));
            std::copy(row, row + stack.width, line);
        } else {
            const auto* row = static_cast<const float*>(stack.row(image, y));
            std::transform(row, row + stack.width, line, [](float v) { return static_cast<std::int32_t>(v); });
        }
    }
}

std::int32_t sum_of_taps(const std::int32_t* line) {
    std::int32_t sum = 0;
    for (std::size_t k = 0; k < kTaps; ++k) sum += line[k];
    return sum;
}

// Two 16-bit numbers in one element, the first in the lower half.
std::int32_t pair_of(std::int32_t low, std::int32_t high) {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(high) << 16U |
                                     (static_cast<std::uint32_t>(low) & 0xFFFFU));
}

Planes planes_of(const ImageStack& stack, std::size_t image, Side side, const ByteUnits& units) {
    const std::size_t width = stack.width;
    const std::size_t stride = width + 1;
    const std::size_t n = width - kTaps + 1;
    const std::size_t windows = (stack.height - kTaps + 1) * (n + 1);
    Planes made{stride, n + 1, {}, {}, {}, {}};
    std::vector<std::int32_t> grey(stack.height * stride);
    read_pixels(stack, image, grey, stride);
    made.pixels.resize(grey.size());
    made.sums.resize(windows);
    made.means.resize(windows);
    made.variances.resize(windows);
    const std::int32_t enters = side == Side::kFirst ? 1 : 2 * kWindowPixels;
    const std::int32_t leaves = side == Side::kFirst ? 1 : -2 * kWindowPixels;
    const std::int32_t of_sum = side == Side::kFirst ? 1 : -2;
    const std::vector<std::int32_t> none(width);
    std::vector<std::int32_t> columns(width);
    std::vector<std::int32_t> squares(width);
    for (std::size_t y = 0; y < stack.height; ++y) {
        const std::int32_t* in = grey.data() + y * stride;
        const std::int32_t* out = y < kTaps ? none.data() : in - kTaps * stride;
        std::int32_t* pairs = made.pixels.data() + y * stride;
        for (std::size_t x = 0; x < width; ++x) {
            pairs[x] = pair_of(enters * in[x], leaves * out[x]);
            columns[x] += in[x] - out[x];
            squares[x] += in[x] * in[x] - out[x] * out[x];
        }
        if (y + 1 < kTaps) continue;
        const std::size_t row = (y + 1 - kTaps) * (n + 1);
        for (std::size_t x = 0; x < n; ++x) {
            const std::int32_t sum = sum_of_taps(columns.data() + x);
            const auto whole = static_cast<float>(kWindowPixels * sum_of_taps(squares.data() + x) - sum * sum);
            made.sums[row + x] = pair_of(of_sum * sum, 0);
            made.means[row + x] = static_cast<float>((sum - kWindowPixels * units.shift) * units.mean_scale);
            made.variances[row + x] = whole * units.high + whole * units.low;
        }
    }
    return made;
}

// out[i][lane] = lines[lane][i] for i < n.
template <class T>
std::byte* interleave(const std::array<const T*, kLanes>& lines, std::size_t n, std::byte* out) {
    for (std::size_t i = 0; i < n; ++i) {
        std::array<T, kLanes> across{};
        for (std::size_t lane = 0; lane < kLanes; ++lane) across[lane] = lines[lane][i];
        std::memcpy(out, across.data(), sizeof(across));
        out += sizeof(across);
    }
    return out;
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
                       const ByteUnits& units, std::byte* out) {
    const Planes planes = planes_of(stack, image, side, units);
    const std::size_t columns = layout.steps() + kTaps - 1;
    const std::vector<std::int32_t> none(columns);
    const std::vector<float> no_floats(columns);
    std::array<ByteLayout::Part, kLanes> parts{};
    for (std::size_t lane = 0; lane < kLanes; ++lane) parts[lane] = layout.part(lane);
    std::array<std::vector<std::int32_t>, kLanes> starts;  // rows of a part's first window, where nothing leaves
    std::array<const std::int32_t*, kLanes> pixels{};
    std::array<const std::int32_t*, kLanes> sums{};
    std::array<const float*, kLanes> means{};
    std::array<const float*, kLanes> variances{};
    for (std::size_t r = 0; r < layout.records(); ++r) {
        for (std::size_t lane = 0; lane < kLanes; ++lane) {
            const ByteLayout::Part& part = parts[lane];
            const bool is_in = part.steps > 0 && part.rows > 0 && r < part.rows + kTaps - 1;
            const std::size_t at = (part.y + r) * planes.pixel_stride + part.x;
            pixels[lane] = is_in ? planes.pixels.data() + at : none.data();
            if (is_in && r < kTaps && part.y > 0) {
                starts[lane].assign(pixels[lane], pixels[lane] + std::min(columns, part.steps + kTaps));
                for (std::int32_t& pair : starts[lane]) pair &= 0xFFFF;
                pixels[lane] = starts[lane].data();
            }
            const bool is_window = is_in && r + 1 >= kTaps;
            const std::size_t window = is_window ? (part.y + r + 1 - kTaps) * planes.window_stride + part.x : 0;
            sums[lane] = is_window ? planes.sums.data() + window : none.data();
            means[lane] = is_window ? planes.means.data() + window : no_floats.data();
            variances[lane] = is_window ? planes.variances.data() + window : no_floats.data();
        }
        out = interleave(pixels, columns, out);
        out = interleave(sums, layout.steps(), out);
        out = interleave(means, layout.steps(), out);
        out = interleave(variances, layout.steps(), out);
    }
}

}  // namespace deepssim
