// Where registration starts: every flip and rotation of the fixed thumbnail at every shift and three zooms, by inner
// products.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "image/workspace.hpp"

namespace deepssim {

namespace {

constexpr int kAngles = 46;  // steps of 7.8 degrees; even, so that half a turn is one of them
constexpr int kFlips = 2;
constexpr int kTemplates = kAngles * kFlips;
constexpr int kReachColumns = (simd::kBankShifts - 1) / 2;
// Every second shift along the rows: refinement takes a pixel of the thumbnail without a loss.
constexpr int kRowStep = 2;
constexpr double kReachPart = 0.12;  // of the rows: shifts of 10 % with a little room

Pose turned(int index) {
    Transform transform;
    transform.is_mirrored = index >= kAngles;
    transform.angle_degrees = 360.0 / kAngles * (index % kAngles);
    return pose_of(transform);
}

// Local normalisation leaves few pixels beyond 4; half the steps for the image, whose sums have to fit.
constexpr float kClip = 4.0F;
constexpr int kTemplateMost = 127;
constexpr int kImageMost = 63;
constexpr int kImageZero = 64;

struct ByteSums {
    std::int32_t values = 0;
    std::int32_t squares = 0;
};

// Writes n whole numbers from -kMost to kMost, plus kZero; adds to the sums, which are of the whole numbers.
template <int kMost, int kZero, class Byte>
void quantise(const float* __restrict from, int n, Byte* __restrict out, ByteSums& sums) {
    // Conversion cuts off, which rounds what is above zero. No pixel is beyond 1 / the floor of local normalisation.
    constexpr int kAbove = 1024;
    std::int32_t sum = 0;
    std::int32_t squares = 0;
    for (int x = 0; x < n; ++x) {
        int value = static_cast<int>(from[x] * (kMost / kClip) + (kAbove + 0.5F)) - kAbove;
        value = value > kMost ? kMost : value;
        value = value < -kMost ? -kMost : value;
        out[x] = static_cast<Byte>(value + kZero);
        sum += value;
        squares += value * value;
    }
    sums.values += sum;
    sums.squares += squares;
}

double inverse_length(const ByteSums& sums) {
    return sums.squares > 0 ? 1.0 / std::sqrt(static_cast<double>(sums.squares)) : 0.0;
}

bool is_near(int a, int b) {
    if ((a >= kAngles) != (b >= kAngles)) return false;
    const int apart = std::abs(a - b);
    return std::min(apart, kAngles - apart) <= 1;
}

struct Place {
    int index;
    int shift;
    double score;
};

// How much larger the moving image may be shown; each covers 5 to 6 % either way.
constexpr double kZooms[] = {1.0, 1.0 / 1.1, 1.1};

}  // namespace

void Bank::build(const simd::AlignKernels& kernels, const Plane& thumbnail, double factor_rows, double factor_columns) {
    constexpr int kLanes = static_cast<int>(simd::kBankLanes);
    rows_ = thumbnail.rows;
    width_ = (thumbnail.cols + kLanes - 1) / kLanes * kLanes;
    reach_rows_ = kRowStep * std::clamp(static_cast<int>(std::lround(kReachPart / kRowStep * rows_)), 1, 8);
    const std::size_t size = static_cast<std::size_t>(rows_) * static_cast<std::size_t>(width_);
    templates_.assign(size * kTemplates, 0);
    sums_.assign(kTemplates, 0);
    inverse_lengths_.assign(kTemplates, 0.0);
    shown_.reset(thumbnail.rows, thumbnail.cols);
    pairs_.fill(thumbnail);
    const int cols = thumbnail.cols;
    const auto row_of = [&](int index, int y) {
        return templates_.data() + static_cast<std::size_t>(index) * size + static_cast<std::ptrdiff_t>(y) * width_;
    };
    constexpr int kHalf = kAngles / 2;
    for (int index = 0; index < kHalf; ++index) {
        // The pose goes from fixed to moving; a template shows the fixed image in the moving frame.
        const Pose back = pose_of(inverse(transform_of(turned(index))));
        simd::WarpJob job{};
        place_warp(back, pairs_, factor_rows, factor_columns, spans_, job);
        job.out = shown_.pixels.data();
        job.fixed = thumbnail.pixels.data();
        kernels.warp(job);
        ByteSums sums;
        for (int y = 0; y < rows_; ++y) quantise<kTemplateMost, 0>(shown_.row(y), cols, row_of(index, y), sums);
        // Half a turn reverses rows and columns, a mirror the columns.
        const int reversed[] = {index + kHalf, index + kAngles, index + kAngles + kHalf};
        for (int y = 0; y < rows_; ++y) {
            const std::int8_t* row = row_of(index, y);
            std::reverse_copy(row, row + cols, row_of(reversed[0], rows_ - 1 - y));
            std::reverse_copy(row, row + cols, row_of(reversed[1], y));
            std::copy_n(row, cols, row_of(reversed[2], rows_ - 1 - y));
        }
        for (const int other : {index, reversed[0], reversed[1], reversed[2]}) {
            sums_[static_cast<std::size_t>(other)] = sums.values;
            inverse_lengths_[static_cast<std::size_t>(other)] = inverse_length(sums);
        }
    }
}

void Bank::find(const simd::AlignKernels& kernels, const Plane& thumbnail, double factor_rows, double factor_columns,
                bool with_scale, std::size_t wanted, std::vector<Start>& starts) {
    starts.clear();
    pairs_.fill(thumbnail);
    for (const double zoom : kZooms) {
        if (zoom == 1.0) {
            shown_ = thumbnail;
        } else if (with_scale) {
            Transform transform;
            transform.scale = zoom;
            simd::WarpJob job{};
            place_warp(pose_of(transform), pairs_, factor_rows, factor_columns, spans_, job);
            job.out = shown_.pixels.data();
            job.fixed = thumbnail.pixels.data();
            kernels.warp(job);
        } else {
            continue;
        }
        look(kernels, zoom, factor_rows, factor_columns, wanted, starts);
    }
    sort_best_first(starts);
    if (starts.size() > wanted) starts.resize(wanted);
}

void Bank::look(const simd::AlignKernels& kernels, double zoom, double factor_rows, double factor_columns,
                std::size_t wanted, std::vector<Start>& starts) {
    const std::ptrdiff_t stride = width_ + static_cast<std::ptrdiff_t>(simd::kBankLanes);
    padded_.assign(static_cast<std::size_t>((rows_ + 2 * reach_rows_) * stride), kImageZero);
    ByteSums sums;
    for (int y = 0; y < rows_; ++y) {
        std::uint8_t* out = padded_.data() + (y + reach_rows_) * stride + kReachColumns;
        quantise<kImageMost, kImageZero>(shown_.row(y), shown_.cols, out, sums);
    }
    const double factor = inverse_length(sums);
    const int n_row_shifts = 2 * (reach_rows_ / kRowStep) + 1;
    const std::ptrdiff_t n_shifts = static_cast<std::ptrdiff_t>(n_row_shifts) * simd::kBankShifts;
    scores_.resize(static_cast<std::size_t>(kTemplates * n_shifts));
    kernels.bank(
        {templates_.data(), kTemplates, rows_, width_, padded_.data(), stride, n_row_shifts, kRowStep, scores_.data()});

    std::vector<Place> places;
    places.reserve(kTemplates);
    for (int index = 0; index < kTemplates; ++index) {
        const std::int32_t* scores = scores_.data() + index * n_shifts;
        const auto best = static_cast<int>(std::max_element(scores, scores + n_shifts) - scores);
        const auto at = static_cast<std::size_t>(index);
        const std::int32_t product = scores[best] - kImageZero * sums_[at];
        places.push_back({index, best, product * inverse_lengths_[at] * factor});
    }
    std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
        return a.score > b.score || (a.score == b.score && a.index < b.index);
    });
    std::vector<int> taken;
    for (const Place& place : places) {
        if (taken.size() == wanted) break;
        if (std::any_of(taken.begin(), taken.end(), [&](int other) { return is_near(place.index, other); })) continue;
        taken.push_back(place.index);
        const int row_shift = place.shift / simd::kBankShifts;
        Start start{turned(place.index), place.score};
        start.pose.offset[0] = static_cast<double>(row_shift * kRowStep - reach_rows_) * factor_rows;
        start.pose.offset[1] = (place.shift % simd::kBankShifts - kReachColumns) * factor_columns;
        for (double& value : start.pose.matrix) value /= zoom;
        for (double& value : start.pose.offset) value /= zoom;
        starts.push_back(start);
    }
}

}  // namespace deepssim
