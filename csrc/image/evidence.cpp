// What a registered pair says about being a copy: S1 and S2 over the pixels that both images show.
#include <algorithm>
#include <cmath>
#include <limits>

#include "deepssim/exact.hpp"
#include "image/workspace.hpp"

namespace deepssim {

namespace {

constexpr double kLeastOverlap = 0.35;
constexpr double kNoEvidence = -1.0;
// Lengths in pixels at the reference width.
constexpr double kNormSigma = 4.0;
constexpr double kNormFloor = 0.02;
constexpr double kWindowRadius = 3.0;
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
    // Counting by value first leaves few to sort.
    constexpr int kBins = 512;
    constexpr float kHalf = 256.0F;  // bins for each unit of correlation
    const auto bin_of = [](float value) { return std::clamp(static_cast<int>((value + 1.0F) * kHalf), 0, kBins - 1); };
    int counts[kBins] = {};
    for (int y = 0; y < values.rows; ++y) {
        const float* row = values.row(y);
        const auto at = static_cast<std::size_t>(y);
        for (int x = spans.first[at]; x < spans.last[at]; ++x) ++counts[bin_of(row[x])];
    }
    int highest = 0;
    for (std::size_t seen = 0; highest < kBins; ++highest) {
        seen += static_cast<std::size_t>(counts[highest]);
        if (seen >= wanted) break;
    }
    buffer.clear();
    for (int y = 0; y < values.rows; ++y) {
        const float* row = values.row(y);
        const auto at = static_cast<std::size_t>(y);
        for (int x = spans.first[at]; x < spans.last[at]; ++x) {
            if (bin_of(row[x]) <= highest) buffer.push_back(row[x]);
        }
    }
    std::sort(buffer.begin(), buffer.end());
    double sum = 0.0;
    for (std::size_t i = 0; i < wanted; ++i) sum += static_cast<double>(buffer[i]);
    return sum / static_cast<double>(wanted);
}

// Copies values * others (others may be null) inside the spans, NaN outside.
void write_map(const Plane& values, const Plane* others, const SpanList& spans, float* out) {
    std::fill_n(out, static_cast<std::size_t>(values.rows) * static_cast<std::size_t>(values.cols),
                std::numeric_limits<float>::quiet_NaN());
    for (int y = 0; y < values.rows; ++y) {
        const auto at = static_cast<std::size_t>(y);
        for (int x = spans.first[at]; x < spans.last[at]; ++x) {
            out[y * values.cols + x] = values.row(y)[x] * (others == nullptr ? 1.0F : others->row(y)[x]);
        }
    }
}

// Masked local normalisation of both images and their local correlation, in the fixed frame.
void correlate_locally(Aligner::Workspace& work, const Plane& fixed) {
    const int cols = fixed.cols;
    const std::vector<simd::Box> gaussian = gaussian_boxes(kNormSigma * cols / kReferenceWidth);
    const simd::Box window[] = {window_box(scaled(kWindowRadius, cols))};
    const Plane* images[2] = {&fixed, &work.warped};
    Plane* const sums = work.sums;
    work.smoother.run(work.mask, nullptr, gaussian, sums[0]);
    for (int i = 0; i < 2; ++i) {
        // The fixed image has to be cut to the overlap; the warped one is zero outside anyway.
        Plane& local = work.locals[i];
        local.reset(fixed.rows, fixed.cols);
        for (std::size_t k = 0; k < fixed.padded_size(); ++k) {
            local.pixels[k] = images[i]->pixels[k] * work.mask.pixels[k];
        }
        work.smoother.run(local, nullptr, gaussian, sums[1]);
        work.smoother.run(local, &local, gaussian, sums[2]);
        work.kernels.local_norm({local.pixels.data(), sums[1].pixels.data(), sums[2].pixels.data(),
                                 sums[0].pixels.data(), work.mask.pixels.data(),
                                 static_cast<float>(kNormFloor * kNormFloor), fixed.padded_size(),
                                 local.pixels.data()});
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

// Warps one plane of the moving image; the spans and the warped plane stay in the workspace.
double warp_and_correlate(Aligner::Workspace& work, const Pose& pose, const Plane& fixed, const Plane& moving,
                          double factor_rows = 1.0, double factor_columns = 1.0) {
    simd::WarpJob job{};
    work.warped.reset(fixed.rows, fixed.cols);
    place_warp(pose, moving, factor_rows, factor_columns, work.spans, job);
    job.fixed = fixed.pixels.data();
    job.out = work.warped.pixels.data();
    const simd::PairSums sums = work.kernels.warp(job);
    return correlation_of(sums, static_cast<double>(work.spans.count));
}

// The level next to the reference width: at finer ones noise outweighs structure where the image is smooth.
std::size_t reference_level(const RegistrationImage::Parts& parts) {
    std::size_t best = 0;
    const auto apart = [&](std::size_t level) {
        return std::abs(std::log2(parts.levels[level].normalised.cols / kReferenceWidth));
    };
    for (std::size_t level = 1; level < parts.levels.size(); ++level) {
        if (apart(level) < apart(best)) best = level;
    }
    return best;
}

void fill_mask(Aligner::Workspace& work, const Plane& like) {
    work.mask.reset(like.rows, like.cols);
    std::fill(work.mask.pixels.begin(), work.mask.pixels.end(), 0.0F);
    for (int y = 0; y < like.rows; ++y) {
        const auto at = static_cast<std::size_t>(y);
        const int first = work.spans.first[at];
        std::fill_n(work.mask.row(y) + first, std::max(0, work.spans.last[at] - first), 1.0F);
    }
}

}  // namespace

Evidence Aligner::evidence(const RegistrationImage& moving, const Transform& transform, const EvidenceMaps& maps) {
    Workspace& work = *workspace_;
    check_pair(work, moving);
    const FloatEnvironment environment;
    const Pose pose = pose_of(transform);
    const RegistrationImage::Parts& fixed = work.fixed->parts();
    const Plane& sharp = fixed.levels.front().normalised;
    Evidence out;
    const std::size_t level = reference_level(fixed);
    const Level& a = fixed.levels[level];
    out.s1 = warp_and_correlate(work, pose, a.normalised, moving.parts().levels[level].normalised, a.factor_rows,
                                a.factor_columns);
    if (maps.agreement != nullptr) {
        warp_and_correlate(work, pose, sharp, moving.parts().levels.front().normalised);
        write_map(work.warped, &sharp, work.spans, maps.agreement);
    }
    out.ncc = warp_and_correlate(work, pose, fixed.blurred, moving.parts().blurred);
    out.overlap = overlap_of(pose, work.spans.count, sharp.rows, sharp.cols);
    fill_mask(work, sharp);
    correlate_locally(work, fixed.blurred);
    const int erosion = scaled(kErosion, sharp.cols);
    work.inner.erode(work.spans, sharp.cols, erosion);
    if (maps.local_correlation != nullptr) {
        write_map(work.correlation, nullptr, work.inner, maps.local_correlation);
    }
    out.s2 = mean_of_lowest(work.correlation, work.inner, kLowestPart, work.lowest);
    if (out.overlap < kLeastOverlap) out.s1 = out.s2 = out.ncc = kNoEvidence;
    return out;
}

void warp_image(MatrixView image, const Transform& transform, float* out) {
    Plane source(static_cast<int>(image.rows), static_cast<int>(image.cols));
    for (int y = 0; y < source.rows; ++y) {
        std::copy_n(image.row(static_cast<std::size_t>(y)), image.cols, source.row(y));
    }
    Plane target(source.rows, source.cols);
    SpanList spans;
    simd::WarpJob job{};
    place_warp(pose_of(transform), source, 1.0, 1.0, spans, job);
    job.fixed = source.pixels.data();
    job.out = target.pixels.data();
    simd::align_kernels_for("portable").warp(job);
    for (int y = 0; y < source.rows; ++y) {
        std::copy_n(target.row(y), image.cols, out + y * static_cast<std::ptrdiff_t>(image.cols));
    }
}

}  // namespace deepssim
