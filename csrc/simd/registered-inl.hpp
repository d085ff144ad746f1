// Bodies of the statistics of a registered pair that every level compiles for itself; internal linkage throughout.
//
// Numerics: moments, window sums and whatever is added over pixels in float64; quotients and gradients in float32.
// Each pixel is computed by itself in plain loops, which compilers turn into vectors, and sums run in
// kRegisteredLanes accumulators whatever the width: the same bits everywhere.
#pragma once

#include <cstddef>
#include <cstring>

#include "registered_kernels.hpp"

namespace deepssim::simd {

// Loops over the pixels of a row stand in functions of their own that are never inlined: only for parameters does
// __restrict tell compilers that lines do not overlap.
#define DEEPSSIM_ROW [[gnu::noinline]] inline

namespace {

inline constexpr int kLanes = kRegisteredLanes;
// A level adds in vectors of its own width of float64, several to the lanes.
#if defined(__AVX512F__)
inline constexpr int kWidth = 8;
#else
inline constexpr int kWidth = 4;
#endif
inline constexpr int kParts = kLanes / kWidth;

using Floats = float __attribute__((vector_size(kWidth * sizeof(float))));
using Doubles = double __attribute__((vector_size(kWidth * sizeof(double))));

// By reference: returning such a vector would change the calling convention between levels.
inline void load(const float* from, Floats& to) { std::memcpy(&to, from, sizeof(to)); }

struct LaneSum {
    double lanes[kLanes] = {};

    double total() {
        for (int half = kLanes / 2; half > 0; half /= 2) {
            for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
        }
        return lanes[0];
    }
};

DEEPSSIM_ROW void add_row(const float* values, int n, LaneSum& to) {
    Doubles sums[kParts];
    std::memcpy(sums, to.lanes, sizeof(sums));
    int x = 0;
    for (; x + kLanes <= n; x += kLanes) {
        for (std::ptrdiff_t p = 0; p < kParts; ++p) {
            Floats part;
            load(values + x + p * kWidth, part);
            sums[p] += __builtin_convertvector(part, Doubles);
        }
    }
    std::memcpy(to.lanes, sums, sizeof(sums));
    for (int i = 0; x + i < n; ++i) to.lanes[i] += static_cast<double>(values[x + i]);
}

DEEPSSIM_ROW void add_products(const float* a, const float* b, int n, double mean_a, double mean_b, LaneSum& to) {
    Doubles sums[kParts];
    std::memcpy(sums, to.lanes, sizeof(sums));
    int x = 0;
    for (; x + kLanes <= n; x += kLanes) {
        for (std::ptrdiff_t p = 0; p < kParts; ++p) {
            Floats part_a;
            Floats part_b;
            load(a + x + p * kWidth, part_a);
            load(b + x + p * kWidth, part_b);
            sums[p] += (__builtin_convertvector(part_a, Doubles) - mean_a) *
                       (__builtin_convertvector(part_b, Doubles) - mean_b);
        }
    }
    std::memcpy(to.lanes, sums, sizeof(sums));
    for (int i = 0; x + i < n; ++i) to.lanes[i] += (a[x + i] - mean_a) * (b[x + i] - mean_b);
}

struct LaneRange {
    float low[kLanes] = {};
    float high[kLanes] = {};

    LaneRange() {
        for (int i = 0; i < kLanes; ++i) {
            low[i] = __builtin_inff();
            high[i] = -__builtin_inff();
        }
    }
    float least() const {
        float out = low[0];
        for (int i = 1; i < kLanes; ++i) out = low[i] < out ? low[i] : out;
        return out;
    }
    float most() const {
        float out = high[0];
        for (int i = 1; i < kLanes; ++i) out = high[i] > out ? high[i] : out;
        return out;
    }
};

DEEPSSIM_ROW void widen(const float* values, int n, LaneRange& range) {
    Floats low[kParts];
    Floats high[kParts];
    std::memcpy(low, range.low, sizeof(low));
    std::memcpy(high, range.high, sizeof(high));
    int x = 0;
    for (; x + kLanes <= n; x += kLanes) {
        for (std::ptrdiff_t p = 0; p < kParts; ++p) {
            Floats part;
            load(values + x + p * kWidth, part);
            low[p] = part < low[p] ? part : low[p];
            high[p] = part > high[p] ? part : high[p];
        }
    }
    std::memcpy(range.low, low, sizeof(low));
    std::memcpy(range.high, high, sizeof(high));
    for (int i = 0; x + i < n; ++i) {
        range.low[i] = values[x + i] < range.low[i] ? values[x + i] : range.low[i];
        range.high[i] = values[x + i] > range.high[i] ? values[x + i] : range.high[i];
    }
}

inline void moments_body(const PairView& pair, const Spans& spans, double n, Moments& out) {
    const float* images[2] = {pair.a, pair.b};
    for (int k = 0; k < 2; ++k) {
        LaneSum sum;
        LaneRange range;
        for (int y = 0; y < pair.rows; ++y) {
            const int count = spans.last[y] - spans.first[y];
            const float* row = images[k] + y * pair.stride + spans.first[y];
            add_row(row, count, sum);
            widen(row, count, range);
        }
        out.mean[k] = sum.total() / n;
        out.least[k] = range.least();
        out.most[k] = range.most();
    }
    LaneSum products[3];
    for (int y = 0; y < pair.rows; ++y) {
        const int count = spans.last[y] - spans.first[y];
        const float* a = pair.a + y * pair.stride + spans.first[y];
        const float* b = pair.b + y * pair.stride + spans.first[y];
        add_products(a, a, count, out.mean[0], out.mean[0], products[0]);
        add_products(b, b, count, out.mean[1], out.mean[1], products[1]);
        add_products(a, b, count, out.mean[0], out.mean[1], products[2]);
    }
    out.squares[0] = products[0].total();
    out.squares[1] = products[1].total();
    out.products = products[2].total();
}

DEEPSSIM_ROW void score_row(const float* pixels, int n, double mean, double scale, double* __restrict out) {
    for (int x = 0; x < n; ++x) out[x] = (pixels[x] - mean) * scale;
}

// Sums over the columns of the last seven rows: of both images, of their squares added to each other (SSIM needs the
// two variances no other way) and of their products. One row enters the windows, one leaves them.
DEEPSSIM_ROW void slide(const double* a, const double* b, const double* old_a, const double* old_b, std::ptrdiff_t n,
                        double* __restrict sums_a, double* __restrict sums_b, double* __restrict squares,
                        double* __restrict products) {
    for (std::ptrdiff_t x = 0; x < n; ++x) {
        sums_a[x] += a[x] - old_a[x];
        sums_b[x] += b[x] - old_b[x];
        squares[x] += (a[x] * a[x] + b[x] * b[x]) - (old_a[x] * old_a[x] + old_b[x] * old_b[x]);
        products[x] += a[x] * b[x] - old_a[x] * old_b[x];
    }
}

inline double seven(const double* at) { return ((at[0] + at[1]) + (at[2] + at[3])) + ((at[4] + at[5]) + at[6]); }

// The two indices at the n windows that start at the columns given.
DEEPSSIM_ROW void index_row(const double* columns_a, const double* columns_b, const double* columns_squares,
                            const double* columns_products, int n, double c1, double c2, float* __restrict ssim,
                            float* __restrict structure) {
    constexpr double kPixels = kSsimTaps * kSsimTaps;
    constexpr double kMean = 1.0 / kPixels;
    constexpr double kSample = 1.0 / (kPixels - 1.0);
    for (int x = 0; x < n; ++x) {
        const double a = seven(columns_a + x);
        const double b = seven(columns_b + x);
        const double sum = a * a + b * b;
        const double product = 2.0 * (a * b);
        const double variances = (seven(columns_squares + x) - sum * kMean) * kSample;
        const double covariances = (2.0 * seven(columns_products + x) - product * kMean) * kSample;
        const float likeness = static_cast<float>(covariances + c2) / static_cast<float>(variances + c2);
        structure[x] = likeness;
        ssim[x] = likeness *
                  (static_cast<float>(product * (kMean * kMean) + c1) / static_cast<float>(sum * (kMean * kMean) + c1));
    }
}

// One row's z-scores, zeros outside the overlap: what lies there could be far larger and would drown the rest.
inline void score_overlap(const StructureJob& job, const float* image, int k, int y, double* out) {
    std::memset(out, 0, static_cast<std::size_t>(job.pair.stride) * sizeof(double));
    const int first = job.overlap.first[y];
    score_row(image + y * job.pair.stride + first, job.overlap.last[y] - first, job.mean[k], job.scale[k], out + first);
}

inline StructureSums structure_body(const StructureJob& job) {
    const std::ptrdiff_t stride = job.pair.stride;
    const std::size_t line = static_cast<std::size_t>(stride) * sizeof(double);
    std::memset(job.scratch, 0, kStructureLines * line);
    double* const ring_a = job.scratch;
    double* const ring_b = ring_a + kSsimTaps * stride;
    double* const sums = ring_b + kSsimTaps * stride;
    double* const next_a = sums + 4 * stride;
    double* const next_b = sums + 5 * stride;
    LaneSum ssim_sum;
    LaneSum structure_sum;
    for (int y = 0; y < job.pair.rows; ++y) {
        double* const old_a = ring_a + (y % kSsimTaps) * stride;
        double* const old_b = ring_b + (y % kSsimTaps) * stride;
        score_overlap(job, job.pair.a, 0, y, next_a);
        score_overlap(job, job.pair.b, 1, y, next_b);
        slide(next_a, next_b, old_a, old_b, stride, sums, sums + stride, sums + 2 * stride, sums + 3 * stride);
        std::memcpy(old_a, next_a, line);
        std::memcpy(old_b, next_b, line);
        const int centre = y - kSsimReach;
        if (centre < kSsimReach || job.windows.first[centre] >= job.windows.last[centre]) continue;
        const int first = job.windows.first[centre];
        const int n = job.windows.last[centre] - first;
        // The lines of the row that has just been copied into the ring are free until the next one.
        auto* const ssim = reinterpret_cast<float*>(next_a);
        auto* const structure = reinterpret_cast<float*>(next_b);
        const double* const left = sums + first - kSsimReach;
        index_row(left, left + stride, left + 2 * stride, left + 3 * stride, n, job.c1, job.c2, ssim, structure);
        add_row(ssim, n, ssim_sum);
        add_row(structure, n, structure_sum);
        const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(float);
        const std::ptrdiff_t place = static_cast<std::ptrdiff_t>(centre) * job.pair.cols + first;
        if (job.ssim != nullptr) std::memcpy(job.ssim + place, ssim, bytes);
        if (job.structure != nullptr) std::memcpy(job.structure + place, structure, bytes);
    }
    return {ssim_sum.total(), structure_sum.total()};
}

// Rows round one, as fsim.hpp has them: Sobel's reflected at the frame's edges, differences one-sided there.
struct Neighbours {
    const float* above;
    const float* here;
    const float* below;
    const float* from;
    const float* to;
    float factor;
};

inline Neighbours neighbours(const float* image, std::ptrdiff_t stride, int rows, int y) {
    const float* here = image + y * stride;
    const bool is_first = y == 0;
    const bool is_last = y + 1 == rows;
    return {is_first ? here + stride : here - stride, here,
            is_last ? here - stride : here + stride,  is_first ? here : here - stride,
            is_last ? here : here + stride,           is_first || is_last ? 1.0F : 0.5F};
}

// Grey values to 255 in squared gradients.
inline constexpr float kGreySquare = 255.0F * 255.0F;

// Squared gradient magnitudes, of differences and of Sobel's filters, at n columns that have neighbours on both sides.
DEEPSSIM_ROW void gradient_row(const float* above, const float* here, const float* below, const float* from,
                               const float* to, float factor, int n, float* __restrict edges,
                               float* __restrict slopes) {
    for (int x = 0; x < n; ++x) {
        const float along = (to[x] - from[x]) * factor;
        const float across = (here[x + 1] - here[x - 1]) * 0.5F;
        edges[x] = along * along + across * across;
        const float columns =
            (above[x - 1] - above[x + 1]) + 2.0F * (here[x - 1] - here[x + 1]) + (below[x - 1] - below[x + 1]);
        const float lines =
            (above[x - 1] - below[x - 1]) + 2.0F * (above[x] - below[x]) + (above[x + 1] - below[x + 1]);
        slopes[x] = (columns * columns + lines * lines) * kGreySquare;
    }
}

// The same in the frame's first or last column, whose only neighbour is `inner`: reflected, columns do not differ.
inline void gradient_at_edge(const Neighbours& n, int x, int inner, float& edge, float& slope) {
    const float along = (n.to[x] - n.from[x]) * n.factor;
    const float across = n.here[x] - n.here[inner];
    edge = along * along + across * across;
    const float lines =
        (n.above[inner] - n.below[inner]) + 2.0F * (n.above[x] - n.below[x]) + (n.above[inner] - n.below[inner]);
    slope = lines * lines * kGreySquare;
}

// Fills edges and slopes of one image over the spans; returns the largest edge.
inline float gradient_maps(const float* image, const FeatureJob& job, float* edges, float* slopes) {
    LaneRange range;
    const int cols = job.pair.cols;
    for (int y = 0; y < job.pair.rows; ++y) {
        const int first = job.features.first[y];
        const int last = job.features.last[y];
        if (first >= last) continue;
        const Neighbours rows = neighbours(image, job.pair.stride, job.pair.rows, y);
        float* const edge = edges + y * job.pair.stride;
        float* const slope = slopes + y * job.pair.stride;
        const int begin = first == 0 ? 1 : first;
        const int end = last == cols ? cols - 1 : last;
        gradient_row(rows.above + begin, rows.here + begin, rows.below + begin, rows.from + begin, rows.to + begin,
                     rows.factor, end - begin, edge + begin, slope + begin);
        if (first == 0) gradient_at_edge(rows, 0, 1, edge[0], slope[0]);
        if (last == cols) gradient_at_edge(rows, cols - 1, cols - 2, edge[cols - 1], slope[cols - 1]);
        widen(edge + first, last - first, range);
    }
    return range.most() > 0.0F ? range.most() : 0.0F;
}

// T1 and T2 as similarity-inl.hpp has them.
inline constexpr float kEdgeConstant = 0.85F;
inline constexpr float kSlopeConstant = 160.0F;

// What n pixels weigh, and their weighed likeness. Squares come in: two roots less than from magnitudes.
DEEPSSIM_ROW void feature_row(const float* edges_a, const float* slopes_a, const float* edges_b, const float* slopes_b,
                              int n, float norm_a, float norm_b, float* __restrict weights, float* __restrict weighed) {
    for (int x = 0; x < n; ++x) {
        const float a = edges_a[x] * norm_a;
        const float b = edges_b[x] * norm_b;
        const float weight = __builtin_sqrtf(a > b ? a : b);
        const float edges = __builtin_sqrtf(a * b);
        const float slopes = __builtin_sqrtf(slopes_a[x] * slopes_b[x]);
        const float top = ((edges + edges) + kEdgeConstant) * ((slopes + slopes) + kSlopeConstant);
        const float bottom = ((a + b) + kEdgeConstant) * ((slopes_a[x] + slopes_b[x]) + kSlopeConstant);
        weights[x] = weight;
        weighed[x] = weight * (top / bottom);
    }
}

inline FeatureSums features_body(const FeatureJob& job) {
    const std::ptrdiff_t size = job.pair.rows * job.pair.stride;
    float* const maps[4] = {job.scratch, job.scratch + size, job.scratch + 2 * size, job.scratch + 3 * size};
    float* const weights = job.scratch + 4 * size;
    float* const weighed = weights + job.pair.stride;
    const float most_a = gradient_maps(job.pair.a, job, maps[0], maps[1]);
    const float most_b = gradient_maps(job.pair.b, job, maps[2], maps[3]);
    const float norm_a = most_a > 0.0F ? 1.0F / most_a : 0.0F;
    const float norm_b = most_b > 0.0F ? 1.0F / most_b : 0.0F;
    LaneSum over;
    LaneSum under;
    for (int y = 0; y < job.pair.rows; ++y) {
        const std::ptrdiff_t at = y * job.pair.stride + job.features.first[y];
        const int n = job.features.last[y] - job.features.first[y];
        feature_row(maps[0] + at, maps[1] + at, maps[2] + at, maps[3] + at, n, norm_a, norm_b, weights, weighed);
        add_row(weighed, n, over);
        add_row(weights, n, under);
    }
    return {over.total(), under.total()};
}

}  // namespace

#undef DEEPSSIM_ROW

}  // namespace deepssim::simd
