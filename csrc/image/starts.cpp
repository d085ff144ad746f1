// Where registration starts: every flip and rotation of the fixed thumbnail at every shift, by inner products.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "image/workspace.hpp"

namespace deepssim {

namespace {

constexpr int kAngles = 46;  // steps of 7.8 degrees; even, so that templates make pairs
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

void scale_to_unit(float* pixels, std::size_t n, double squares) {
    if (squares <= 0.0) return;
    const auto factor = static_cast<float>(1.0 / std::sqrt(squares));
    for (std::size_t i = 0; i < n; ++i) pixels[i] *= factor;
}

bool is_near(int a, int b) {
    if ((a >= kAngles) != (b >= kAngles)) return false;
    const int apart = std::abs(a - b);
    return std::min(apart, kAngles - apart) <= 1;
}

struct Place {
    int index;
    int shift;
    float score;
};

}  // namespace

void Bank::build(const simd::AlignKernels& kernels, const Plane& thumbnail, double factor_rows, double factor_columns) {
    rows_ = thumbnail.rows;
    width_ = static_cast<int>(thumbnail.stride);
    reach_rows_ = kRowStep * std::clamp(static_cast<int>(std::lround(kReachPart / kRowStep * rows_)), 1, 8);
    const std::size_t size = thumbnail.padded_size();
    templates_.resize(size * kTemplates);
    turned_.reset(thumbnail.rows, thumbnail.cols);
    pairs_.fill(thumbnail);
    for (int index = 0; index < kTemplates; ++index) {
        // The pose goes from fixed to moving; a template shows the fixed image in the moving frame.
        const Pose back = pose_of(inverse(transform_of(turned(index))));
        simd::WarpJob job{};
        place_warp(back, pairs_, factor_rows, factor_columns, spans_, job);
        job.out = templates_.data() + static_cast<std::size_t>(index) * size;
        job.fixed = thumbnail.pixels.data();
        scale_to_unit(job.out, size, kernels.warp(job).bb);
    }
}

void Bank::find(const simd::AlignKernels& kernels, const Plane& thumbnail, double factor_rows, double factor_columns,
                std::size_t wanted, std::vector<Start>& starts) {
    const int stride = width_ + static_cast<int>(simd::kAlignPadding);
    const std::ptrdiff_t stride_of_rows = stride;
    padded_.assign(static_cast<std::size_t>((rows_ + 2 * reach_rows_) * stride_of_rows), 0.0F);
    for (int y = 0; y < rows_; ++y) {
        std::copy_n(thumbnail.row(y), thumbnail.cols,
                    padded_.data() + (y + reach_rows_) * stride_of_rows + kReachColumns);
    }
    const int n_row_shifts = 2 * (reach_rows_ / kRowStep) + 1;
    const std::ptrdiff_t n_shifts = static_cast<std::ptrdiff_t>(n_row_shifts) * simd::kBankShifts;
    scores_.resize(static_cast<std::size_t>(kTemplates * n_shifts));
    kernels.bank(
        {templates_.data(), kTemplates, rows_, width_, padded_.data(), stride, n_row_shifts, kRowStep, scores_.data()});

    std::vector<Place> places;
    places.reserve(kTemplates);
    for (int index = 0; index < kTemplates; ++index) {
        const float* scores = scores_.data() + index * n_shifts;
        const auto best = static_cast<int>(std::max_element(scores, scores + n_shifts) - scores);
        places.push_back({index, best, scores[best]});
    }
    std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
        return a.score > b.score || (a.score == b.score && a.index < b.index);
    });
    starts.clear();
    std::vector<int> taken;
    for (const Place& place : places) {
        if (starts.size() == wanted) break;
        if (std::any_of(taken.begin(), taken.end(), [&](int other) { return is_near(place.index, other); })) continue;
        taken.push_back(place.index);
        const int row_shift = place.shift / simd::kBankShifts;
        Start start{turned(place.index), place.score};
        start.pose.offset[0] = static_cast<double>(row_shift * kRowStep - reach_rows_) * factor_rows;
        start.pose.offset[1] = (place.shift % simd::kBankShifts - kReachColumns) * factor_columns;
        starts.push_back(start);
    }
}

}  // namespace deepssim
