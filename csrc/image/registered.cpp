#include "deepssim/registered.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "deepssim/exact.hpp"
#include "deepssim/isa.hpp"
#include "image/workspace.hpp"
#include "simd/registered_kernels.hpp"

namespace deepssim {

namespace {

constexpr double kLeastOverlap = 0.35;
constexpr double kUnknown = -1.0;
constexpr double kK1 = 0.01;
constexpr double kK2 = 0.03;
constexpr std::size_t kLeastSide = simd::kSsimTaps;
constexpr std::size_t kMostSide = 4096;

void check_image(MatrixView image, const char* name) {
    for (std::size_t y = 0; y < image.rows; ++y) {
        const float* row = image.row(y);
        int right = 1;
        // Without branches, for the sake of vectors; NaN is neither.
        for (std::size_t x = 0; x < image.cols; ++x) {
            right &= static_cast<int>(row[x] >= 0.0F) & static_cast<int>(row[x] <= 1.0F);
        }
        if (right == 1) continue;
        throw InvalidInput(std::string(name) +
                           " has grey values outside 0 to 1, or NaN; scale it first, for example with unit_grey");
    }
}

void check_sizes(MatrixView a, MatrixView b) {
    const auto text = [](MatrixView image) { return std::to_string(image.rows) + " x " + std::to_string(image.cols); };
    if (a.rows != b.rows || a.cols != b.cols) {
        throw InvalidInput("the images have " + text(a) + " and " + text(b) + " pixels; resize them to one size first");
    }
    if (a.rows < kLeastSide || a.cols < kLeastSide) {
        throw InvalidInput("images of " + text(a) + " pixels are too small; at least 7 x 7 are needed");
    }
    if (a.rows > kMostSide || a.cols > kMostSide) {
        throw InvalidInput("images over 4,096 pixels a side are refused; resize them");
    }
}

void copy_into(MatrixView image, Plane& out) {
    out.reset(static_cast<int>(image.rows), static_cast<int>(image.cols));
    for (int y = 0; y < out.rows; ++y) std::copy_n(image.row(static_cast<std::size_t>(y)), image.cols, out.row(y));
}

// The pixels whose square of neighbours up to `reach` away lies in `from`. What is beyond the frame is missing, or
// (with `beyond_frame`) does not matter. The overlap is convex: the outermost spans of its rows decide.
void shrink(const SpanList& from, int cols, int reach, bool beyond_frame, SpanList& out) {
    const int rows = static_cast<int>(from.first.size());
    out.first.assign(from.first.size(), 0);
    out.last.assign(from.first.size(), 0);
    out.count = 0;
    for (int y = 0; y < rows; ++y) {
        if (!beyond_frame && (y < reach || y + reach >= rows)) continue;
        int first = 0;
        int last = cols;
        for (int k = std::max(0, y - reach); k <= std::min(rows - 1, y + reach); ++k) {
            first = std::max(first, from.first[static_cast<std::size_t>(k)]);
            last = std::min(last, from.last[static_cast<std::size_t>(k)]);
        }
        if (first >= last) continue;
        if (first > 0 || !beyond_frame) first += reach;
        if (last < cols || !beyond_frame) last -= reach;
        if (first >= last) continue;
        out.first[static_cast<std::size_t>(y)] = first;
        out.last[static_cast<std::size_t>(y)] = last;
        out.count += static_cast<std::size_t>(last - first);
    }
}

}  // namespace

struct RegisteredWorkspace::Parts {
    explicit Parts(const std::string& level)
        : align(simd::align_kernels_for(level.c_str())), kernels(simd::registered_kernels_for(level.c_str())) {}

    const simd::AlignKernels& align;
    const simd::RegisteredKernels& kernels;
    Plane fixed;
    Plane moving;
    RowPairs pairs;
    Plane warped;
    SpanList overlap;
    SpanList windows;
    SpanList features;
    std::vector<double> lines;
    std::vector<float> maps;

    simd::PairView pair() const {
        return {fixed.pixels.data(), warped.pixels.data(), fixed.stride, fixed.rows, fixed.cols};
    }
    double lay_on(const Transform& transform);
    void structure(const simd::Moments& moments, const RegisteredMaps& targets, RegisteredSimilarity& out);
    double similar_features();
};

// Warps the moving image; returns the overlap.
double RegisteredWorkspace::Parts::lay_on(const Transform& transform) {
    const Pose pose = pose_of(transform);
    warped.reset(fixed.rows, fixed.cols);
    simd::WarpJob job{};
    place_warp(pose, pairs, 1.0, 1.0, overlap, job);
    job.fixed = fixed.pixels.data();
    job.out = warped.pixels.data();
    align.warp(job);
    return overlap_of(pose, overlap.count, fixed.rows, fixed.cols);
}

void RegisteredWorkspace::Parts::structure(const simd::Moments& moments, const RegisteredMaps& targets,
                                           RegisteredSimilarity& out) {
    out.ssim = out.contrast_structure = kUnknown;
    shrink(overlap, fixed.cols, simd::kSsimReach, false, windows);
    if (windows.count == 0) return;
    simd::StructureJob job{};
    job.pair = pair();
    job.overlap = overlap.view();
    job.windows = windows.view();
    for (int k = 0; k < 2; ++k) {
        const bool is_constant = moments.least[k] == moments.most[k];
        job.mean[k] = moments.mean[k];
        job.scale[k] = is_constant ? 0.0 : 1.0 / std::sqrt(moments.squares[k] / static_cast<double>(overlap.count));
    }
    const double range = (static_cast<double>(moments.most[0]) - static_cast<double>(moments.least[0])) * job.scale[0];
    if (range == 0.0) {
        // Without a range SSIM has no constants. Two flat overlaps are alike, a flat one has none of the other's.
        const double value = job.scale[1] == 0.0 ? 1.0 : 0.0;
        out.ssim = out.contrast_structure = value;
        for (float* map : {targets.ssim, targets.contrast_structure}) {
            for (int y = 0; map != nullptr && y < fixed.rows; ++y) {
                const auto at = static_cast<std::size_t>(y);
                const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(y) * fixed.cols;
                std::fill(map + row + windows.first[at], map + row + windows.last[at], static_cast<float>(value));
            }
        }
        return;
    }
    job.c1 = kK1 * range * kK1 * range;
    job.c2 = kK2 * range * kK2 * range;
    lines.resize(static_cast<std::size_t>(simd::kStructureLines * fixed.stride));
    job.scratch = lines.data();
    job.ssim = targets.ssim;
    job.structure = targets.contrast_structure;
    const simd::StructureSums sums = kernels.structure(job);
    out.ssim = sums.ssim / static_cast<double>(windows.count);
    out.contrast_structure = sums.structure / static_cast<double>(windows.count);
}

double RegisteredWorkspace::Parts::similar_features() {
    shrink(overlap, fixed.cols, 1, true, features);
    maps.resize(4 * fixed.padded_size() + 2 * static_cast<std::size_t>(fixed.stride));
    const simd::FeatureSums sums = kernels.features({pair(), features.view(), maps.data()});
    return sums.under == 0.0 ? 0.0 : sums.over / sums.under;
}

RegisteredWorkspace::RegisteredWorkspace(std::string_view isa) : parts_(std::make_unique<Parts>(resolve_isa(isa))) {}
RegisteredWorkspace::~RegisteredWorkspace() = default;

RegisteredSimilarity compare_registered(MatrixView a, MatrixView b, const Transform& transform,
                                        RegisteredWorkspace& workspace, const RegisteredMaps& maps) {
    check_sizes(a, b);
    check_image(a, "the first image");
    check_image(b, "the second image");
    const FloatEnvironment environment;
    RegisteredWorkspace::Parts& parts = workspace.parts();
    for (float* map : {maps.ssim, maps.contrast_structure}) {
        if (map != nullptr) std::fill_n(map, a.rows * a.cols, std::numeric_limits<float>::quiet_NaN());
    }
    copy_into(a, parts.fixed);
    copy_into(b, parts.moving);
    parts.pairs.fill(parts.moving);
    RegisteredSimilarity out{kUnknown, kUnknown, kUnknown, kUnknown, parts.lay_on(transform)};
    if (out.overlap < kLeastOverlap) return out;
    simd::Moments moments{};
    parts.kernels.moments(parts.pair(), parts.overlap.view(), static_cast<double>(parts.overlap.count), moments);
    const bool is_flat = moments.least[0] == moments.most[0] || moments.least[1] == moments.most[1];
    const double norm = std::sqrt(moments.squares[0]) * std::sqrt(moments.squares[1]);
    out.ncc = is_flat || norm == 0.0 ? 0.0 : std::clamp(moments.products / norm, -1.0, 1.0);
    parts.structure(moments, maps, out);
    out.fsim = parts.similar_features();
    return out;
}

}  // namespace deepssim
