// What a registered pair says about being a copy: S1 and S2 over the pixels that both images show.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "deepssim/exact.hpp"
#include "image/workspace.hpp"

namespace deepssim {

namespace {

constexpr double kLeastOverlap = 0.35;
constexpr double kNoEvidence = -1.0;
// Lengths in pixels at the reference width.
constexpr double kBlurSigma = 1.0;
constexpr double kNormSigma = 3.0;
constexpr double kWindowRadius = 3.0;
constexpr double kEdge = 1.0;
constexpr double kErosion = 2.0;
constexpr float kConstant = 0.3F;
constexpr double kLowestPart = 0.01;

int scaled(double length, int cols) {
    return std::max(1, static_cast<int>(std::lround(length * cols / kReferenceWidth)));
}

// The mean of the lowest `part` of the values of a plane over the spans, at least one value.
double mean_of_lowest(const Plane& values, const SpanList& spans, double part, std::vector<float>& buffer) {
    if (spans.count == 0) return kNoEvidence;
    const auto wanted = static_cast<std::size_t>(std::ceil(part * static_cast<double>(spans.count)));
    const auto collect = [&](float highest, int step) {
        buffer.clear();
        for (int y = 0; y < values.rows; y += step) {
            const float* row = values.row(y);
            const auto at = static_cast<std::size_t>(y);
            for (int x = spans.first[at]; x < spans.last[at]; ++x) {
                if (row[x] <= highest) buffer.push_back(row[x]);
            }
        }
    };
    // Some of the rows say below which value three times as many lie as are wanted; few are left to sort.
    constexpr int kStep = 8;
    constexpr std::size_t kSpare = 3;
    constexpr float kAll = std::numeric_limits<float>::infinity();
    collect(kAll, kStep);
    const auto likely = std::min(buffer.size(), kSpare * wanted / kStep + 1);
    float highest = kAll;
    if (likely > 0) {
        std::nth_element(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(likely) - 1, buffer.end());
        highest = buffer[likely - 1];
    }
    collect(highest, 1);
    if (buffer.size() < wanted) collect(kAll, 1);
    const auto end = buffer.begin() + static_cast<std::ptrdiff_t>(wanted);
    std::nth_element(buffer.begin(), end - 1, buffer.end());
    std::sort(buffer.begin(), end);
    double sum = 0.0;
    for (std::size_t i = 0; i < wanted; ++i) sum += static_cast<double>(buffer[i]);
    return sum / static_cast<double>(wanted);
}

// Copies values * others (others may be null) of a level inside its spans to the pixels of an image, NaN outside.
void write_map(const Plane& values, const Plane* others, const SpanList& spans, const Plane& image, float* out) {
    for (int y = 0; y < image.rows; ++y) {
        const int row = static_cast<int>((2 * std::int64_t{y} + 1) * values.rows / (2 * std::int64_t{image.rows}));
        const auto at = static_cast<std::size_t>(row);
        for (int x = 0; x < image.cols; ++x, ++out) {
            const int col = static_cast<int>((2 * std::int64_t{x} + 1) * values.cols / (2 * std::int64_t{image.cols}));
            const bool is_inside = col >= spans.first[at] && col < spans.last[at];
            *out = !is_inside          ? std::numeric_limits<float>::quiet_NaN()
                   : others == nullptr ? values.row(row)[col]
                                       : values.row(row)[col] * others->row(row)[col];
        }
    }
}

void fill_mask(const SpanList& spans, const Plane& like, Plane& mask) {
    mask.reset(like.rows, like.cols);
    std::fill(mask.pixels.begin(), mask.pixels.end(), 0.0F);
    for (int y = 0; y < like.rows; ++y) {
        const auto at = static_cast<std::size_t>(y);
        std::fill_n(mask.row(y) + spans.first[at], std::max(0, spans.last[at] - spans.first[at]), 1.0F);
    }
}

// The Gaussian mean of what lies in the mask, zero elsewhere.
void blur_inside(Aligner::Workspace& work, const Plane& fixed) {
    const std::vector<simd::Box> boxes = gaussian_boxes(kBlurSigma * fixed.cols / kReferenceWidth);
    const std::size_t n = fixed.padded_size();
    work.smoother.run(work.mask, nullptr, boxes, work.inverse);
    float* inverse = work.inverse.pixels.data();
    const float* mask = work.mask.pixels.data();
    for (std::size_t k = 0; k < n; ++k) inverse[k] = mask[k] / std::max(inverse[k], 1e-6F);
    const Plane* images[2] = {&fixed, &work.warped};
    for (int i = 0; i < 2; ++i) {
        work.smoother.run(*images[i], &work.mask, boxes, work.blurred[i]);
        float* out = work.blurred[i].pixels.data();
        for (std::size_t k = 0; k < n; ++k) out[k] *= inverse[k];
    }
}

// Masked local normalisation of both blurred images and their local correlation, in the fixed frame.
void correlate_locally(Aligner::Workspace& work, const Plane& fixed) {
    const int cols = fixed.cols;
    const std::vector<simd::Box> gaussian = gaussian_boxes(kNormSigma * cols / kReferenceWidth);
    const simd::Box window[] = {window_box(scaled(kWindowRadius, cols))};
    Plane* const sums = work.sums;
    work.smoother.run(work.mask, nullptr, gaussian, sums[0]);
    for (int i = 0; i < 2; ++i) {
        const Plane& image = work.blurred[i];
        work.smoother.run(image, nullptr, gaussian, sums[1]);
        work.smoother.run(image, &image, gaussian, sums[2]);
        work.locals[i].reset(fixed.rows, cols);
        work.kernels.local_norm({image.pixels.data(), sums[1].pixels.data(), sums[2].pixels.data(),
                                 sums[0].pixels.data(), work.mask.pixels.data(),
                                 static_cast<float>(kLocalFloor * kLocalFloor), fixed.padded_size(),
                                 work.locals[i].pixels.data()});
    }
    const Plane& a = work.locals[0];
    const Plane& b = work.locals[1];
    work.smoother.run(work.mask, nullptr, window, sums[0]);
    work.smoother.run(a, nullptr, window, sums[1]);
    work.smoother.run(b, nullptr, window, sums[2]);
    work.smoother.run(a, &a, window, sums[3]);
    work.smoother.run(b, &b, window, sums[4]);
    work.smoother.run(a, &b, window, sums[5]);
    work.correlation.reset(fixed.rows, fixed.cols);
    work.kernels.local_correlation({sums[0].pixels.data(), sums[1].pixels.data(), sums[2].pixels.data(),
                                    sums[3].pixels.data(), sums[4].pixels.data(), sums[5].pixels.data(), kConstant,
                                    fixed.padded_size(), work.correlation.pixels.data()});
}

double correlate(const Aligner::Workspace& work, const Plane (&planes)[2], const SpanList& spans) {
    const simd::PairSums sums = work.kernels.pair(
        {planes[0].pixels.data(), planes[1].pixels.data(), planes[0].stride, spans.view(), planes[0].rows});
    return correlation_of(sums, static_cast<double>(spans.count));
}

double mean_of(const Aligner::Workspace& work, const Plane& values, const SpanList& spans) {
    if (spans.count == 0) return kNoEvidence;
    const float* pixels = values.pixels.data();
    return work.kernels.pair({pixels, pixels, values.stride, spans.view(), values.rows}).a /
           static_cast<double>(spans.count);
}

}  // namespace

// Whatever smooths is applied after warping and within the overlap: what lies beyond, be it fill or more of the
// image, is in one of the two images only, and would differ along the whole seam.
Evidence Aligner::evidence(const RegistrationImage& moving, const Transform& transform, const EvidenceMaps& maps) {
    Workspace& work = *workspace_;
    check_pair(work, moving);
    const FloatEnvironment environment;
    const Pose pose = pose_of(transform);
    const RegistrationImage::Parts& fixed = work.fixed->parts();
    const Plane& sharp = fixed.levels.front().normalised;
    const Plane& grey = fixed.grey;
    const Level& level = fixed.levels[fixed.evidence_level];
    simd::WarpJob job{};
    place_spans(pose, sharp.rows, sharp.cols, 1.0, 1.0, work.full, job);
    work.moving.fill(moving.parts().grey);
    place_warp(pose, work.moving, level.factor_rows, level.factor_columns, work.spans, job);
    work.warped.reset(grey.rows, grey.cols);
    job.fixed = grey.pixels.data();
    job.out = work.warped.pixels.data();
    work.kernels.warp(job);
    work.edge.erode(work.spans, grey.cols, scaled(kEdge, grey.cols));
    work.inner.erode(work.spans, grey.cols, scaled(kErosion, grey.cols));
    fill_mask(work.edge, grey, work.mask);
    blur_inside(work, grey);
    correlate_locally(work, grey);
    Evidence out;
    out.overlap = overlap_of(pose, work.full.count, sharp.rows, sharp.cols);
    out.s1 = correlate(work, work.locals, work.edge);
    out.ncc = correlate(work, work.blurred, work.edge);
    out.s2 = mean_of_lowest(work.correlation, work.inner, kLowestPart, work.lowest);
    out.local_mean = mean_of(work, work.correlation, work.inner);
    if (out.overlap < kLeastOverlap) out.s1 = out.s2 = out.local_mean = out.ncc = kNoEvidence;
    if (maps.agreement != nullptr) write_map(work.locals[0], &work.locals[1], work.edge, sharp, maps.agreement);
    if (maps.local_correlation != nullptr) {
        write_map(work.correlation, nullptr, work.inner, sharp, maps.local_correlation);
    }
    return out;
}

void warp_image(MatrixView image, const Transform& transform, float* out) {
    Plane source(static_cast<int>(image.rows), static_cast<int>(image.cols));
    for (int y = 0; y < source.rows; ++y) {
        std::copy_n(image.row(static_cast<std::size_t>(y)), image.cols, source.row(y));
    }
    Plane target(source.rows, source.cols);
    SpanList spans;
    RowPairs pairs;
    pairs.fill(source);
    simd::WarpJob job{};
    place_warp(pose_of(transform), pairs, 1.0, 1.0, spans, job);
    job.fixed = source.pixels.data();
    job.out = target.pixels.data();
    simd::align_kernels_for("portable").warp(job);
    for (int y = 0; y < source.rows; ++y) {
        std::copy_n(target.row(y), image.cols, out + y * static_cast<std::ptrdiff_t>(image.cols));
    }
}

}  // namespace deepssim
