// Bodies of image similarity that every level compiles for itself. Everything here has internal linkage.
//
// A level works in vectors of its own width. Integers are exact, float operations act on each pixel alone, and sums
// run in kPixelLanes accumulators whatever the width: the same bits everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "similarity_kernels.hpp"

namespace deepssim::simd {

namespace {

#if defined(__AVX512F__)
inline constexpr std::size_t kWidth = 16;
#elif defined(__AVX2__)
inline constexpr std::size_t kWidth = 8;
#else
inline constexpr std::size_t kWidth = 4;
#endif
inline constexpr std::size_t kParts = kPixelLanes / kWidth;
// Quotients that are added in float32 before float64 takes them over.
inline constexpr std::size_t kShortSum = 4;

using Floats = float __attribute__((vector_size(kWidth * sizeof(float))));
using Doubles = double __attribute__((vector_size(kWidth * sizeof(double))));
using Ints = std::int32_t __attribute__((vector_size(kWidth * sizeof(std::int32_t))));

// By reference: returning such a vector would change the calling convention between levels.
template <class T, class Vector>
inline void load(const T* from, Vector& to) {
    std::memcpy(&to, from, sizeof(to));
}

// Sums in float32 for kShortSum turns, then in float64.
struct LaneSums {
    Floats near[kParts] = {};
    Doubles far[kParts] = {};

    void flush() {
        for (std::size_t p = 0; p < kParts; ++p) {
            far[p] += __builtin_convertvector(near[p], Doubles);
            near[p] = Floats{};
        }
    }
    double total() {
        flush();
        double lanes[kPixelLanes];
        std::memcpy(lanes, far, sizeof(lanes));
        for (std::size_t n = kPixelLanes / 2; n > 0; n /= 2) {
            for (std::size_t i = 0; i < n; ++i) lanes[i] += lanes[i + n];
        }
        return lanes[0];
    }
};

// sum += a * b over the two 16-bit numbers of each element.
inline void add_products(const Ints& a, const Ints& b, Ints& sum) {
#if defined(__AVX512F__)
    sum = reinterpret_cast<Ints>(_mm512_dpwssd_epi32(reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(a),
                                                     reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__)
    sum += reinterpret_cast<Ints>(_mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(__SSE2__)
    sum += reinterpret_cast<Ints>(_mm_madd_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
    sum += ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

// One lane's walk along a row: what SSIM lacks of one at window after window.
template <bool kWithLuminance, bool kIsSplit>
class ByteRow {
   public:
    ByteRow(const ByteJob& job, std::size_t record, std::size_t part)
        : pairs_a_(job.a + record * byte_record(job.steps) + part * kWidth),
          pairs_b_(job.b + record * byte_record(job.steps) + part * kWidth),
          columns_(job.columns + part * kWidth),
          sums_((job.steps + kUniformTaps - 1) * kPixelLanes),
          plane_(job.steps * kPixelLanes),
          high_(Floats{} + job.high),
          low_(Floats{} + job.low),
          c1_(Floats{} + job.c1),
          c2_(Floats{} + job.c2) {}

    // Lets the rows of record r enter and leave one column; adds it to the window.
    void slide(std::size_t column) {
        Ints a;
        Ints b;
        Ints sum;
        load(pairs_a_ + column * kPixelLanes, a);
        load(pairs_b_ + column * kPixelLanes, b);
        load(columns_ + column * kPixelLanes, sum);
        add_products(a, b, sum);
        std::memcpy(columns_ + column * kPixelLanes, &sum, sizeof(sum));
        window_ += sum;
    }

    // The window at `step`: steps come in ascending order, columns 0 to 5 before. Lanes outside `mask` give 0.
    void lack(std::size_t step, const Ints& mask, Floats& quotient) {
        slide(step + kUniformTaps - 1);
        const std::size_t at = step * kPixelLanes;
        Ints sum_a;
        Ints sum_b;
        load(pairs_a_ + sums_ + at, sum_a);
        load(pairs_b_ + sums_ + at, sum_b);
        Ints whole = window_;
        add_products(sum_a, sum_b, whole);
        Floats variance_a;
        Floats variance_b;
        load(pairs_a_ + sums_ + 2 * plane_ + at, variance_a);
        load(pairs_b_ + sums_ + 2 * plane_ + at, variance_b);
        const Floats exact = __builtin_convertvector(whole, Floats);
        Floats twice = exact * high_;
        if constexpr (kIsSplit) twice += exact * low_;
        // What SSIM lacks of one: where images are alike and flat its float32 would be wrong in the same direction at
        // every window, what it lacks is small there.
        const Floats variances = variance_a + variance_b;
        const Floats under = variances + c2_;
        const Floats over = variances - twice;
        if constexpr (kWithLuminance) {
            Floats mean_a;
            Floats mean_b;
            load(pairs_a_ + sums_ + plane_ + at, mean_a);
            load(pairs_b_ + sums_ + plane_ + at, mean_b);
            // 1 - (1 - p / u) (1 - q / v) = (q u + p (v - q)) / (u v); what u rounds cancels but in the second term.
            const Floats apart = (mean_a - mean_b) * (mean_a - mean_b);
            const Floats luminance = (mean_a * mean_a + mean_b * mean_b) + c1_;
            quotient = masked(over * luminance + apart * (under - over), mask) / (under * luminance);
        } else {
            quotient = masked(over, mask) / under;
        }
        Ints leaves;
        load(columns_ + at, leaves);
        window_ -= leaves;
    }

   private:
    static Floats masked(const Floats& v, const Ints& mask) {
        return reinterpret_cast<Floats>(reinterpret_cast<Ints>(v) & mask);
    }

    const std::int32_t* pairs_a_;
    const std::int32_t* pairs_b_;
    std::int32_t* columns_;
    std::size_t sums_;
    std::size_t plane_;
    Ints window_ = {};
    Floats high_;
    Floats low_;
    Floats c1_;
    Floats c2_;
};

template <bool kWithLuminance, bool kIsSplit>
inline void byte_part(const ByteJob& job, std::size_t record, std::size_t part) {
    ByteRow<kWithLuminance, kIsSplit> row(job, record, part);
    if (record + 1 < kUniformTaps) {
        for (std::size_t c = 0; c < job.steps + kUniformTaps - 1; ++c) row.slide(c);
        return;
    }
    for (std::size_t c = 0; c + 1 < kUniformTaps; ++c) row.slide(c);
    const std::int32_t* masks =
        job.masks + (record + 2 == job.rows + kUniformTaps ? 2 * kPixelLanes : 0) + part * kWidth;
    Ints mask;
    load(masks, mask);
    Doubles lacks;
    load(job.lacks + part * kWidth, lacks);
    std::size_t t = 0;
    Floats q[kShortSum];
    for (; t + kShortSum < job.steps; t += kShortSum) {
        for (std::size_t k = 0; k < kShortSum; ++k) row.lack(t + k, mask, q[k]);
        // By twos, so that equal ones add up exactly.
        lacks += __builtin_convertvector((q[0] + q[1]) + (q[2] + q[3]), Doubles);
    }
    Floats rest = {};
    for (; t < job.steps; ++t) {
        if (t + 1 == job.steps) load(masks + kPixelLanes, mask);
        row.lack(t, mask, q[0]);
        rest += q[0];
    }
    lacks += __builtin_convertvector(rest, Doubles);
    std::memcpy(job.lacks + part * kWidth, &lacks, sizeof(lacks));
}

template <bool kWithLuminance, bool kIsSplit>
void byte_body(const ByteJob& job, std::size_t first, std::size_t last) {
    for (std::size_t record = first; record < last; ++record) {
        for (std::size_t part = 0; part < kParts; ++part) byte_part<kWithLuminance, kIsSplit>(job, record, part);
    }
}

// The rest are plain loops over rows, which compilers turn into vectors: each pixel by itself.
inline void smooth_row(const double* a, const double* b, std::size_t width, std::size_t stride, std::size_t taps,
                       const double* weights, double* line, double* out) {
    for (std::size_t k = 0; k < taps; ++k) {
        const double* row = a + k * stride;
        const double* other = b == nullptr ? nullptr : b + k * stride;
        const double weight = weights[k];
        if (k == 0) {
            for (std::size_t x = 0; x < width; ++x) line[x] = 0.0;
        }
        if (other == nullptr) {
            for (std::size_t x = 0; x < width; ++x) line[x] += weight * row[x];
        } else {
            for (std::size_t x = 0; x < width; ++x) line[x] += weight * (row[x] * other[x]);
        }
    }
    const std::size_t n = width - taps + 1;
    for (std::size_t x = 0; x < n; ++x) out[x] = weights[0] * line[x];
    for (std::size_t k = 1; k < taps; ++k) {
        const double weight = weights[k];
        for (std::size_t x = 0; x < n; ++x) out[x] += weight * line[x + k];
    }
}

inline void smooth_body(const double* a, const double* b, std::size_t height, std::size_t width, std::size_t stride,
                        std::size_t taps, const double* weights, double* line, double* out) {
    for (std::size_t y = 0; y + taps <= height; ++y) {
        const std::size_t row = y * stride;
        smooth_row(a + row, b == nullptr ? nullptr : b + row, width, stride, taps, weights, line, out + row);
    }
}

template <bool kWithLuminance>
double wide_body(const WideJob& job) {
    const std::size_t n = job.width - job.taps + 1;
    double* line = job.scratch;
    double* products = job.scratch + job.stride;
    double* values = job.scratch + 2 * job.stride;
    double lanes[kPixelLanes] = {};
    for (std::size_t y = 0; y + job.taps <= job.height; ++y) {
        const std::size_t row = y * job.stride;
        smooth_row(job.a.pixels + row, job.b.pixels + row, job.width, job.stride, job.taps, job.weights, line,
                   products);
        const double* mean_a = job.a.means + row;
        const double* mean_b = job.b.means + row;
        const double* centred_a = job.a.centred_means + row;
        const double* centred_b = job.b.centred_means + row;
        const double* variance_a = job.a.variances + row;
        const double* variance_b = job.b.variances + row;
        for (std::size_t x = 0; x < n; ++x) {
            const double covariance = job.covariance_norm * (products[x] - centred_a[x] * centred_b[x]);
            double value = (2.0 * covariance + job.c2) / ((variance_a[x] + variance_b[x]) + job.c2);
            if constexpr (kWithLuminance) {
                value *= (2.0 * (mean_a[x] * mean_b[x]) + job.c1) /
                         ((mean_a[x] * mean_a[x] + mean_b[x] * mean_b[x]) + job.c1);
            }
            values[x] = value;
        }
        if (job.map != nullptr) std::memcpy(job.map + y * n, values, n * sizeof(double));
        std::size_t x = 0;
        for (; x + kPixelLanes <= n; x += kPixelLanes) {
            for (std::size_t i = 0; i < kPixelLanes; ++i) lanes[i] += values[x + i];
        }
        for (std::size_t i = 0; x + i < n; ++i) lanes[i] += values[x + i];
    }
    for (std::size_t half = kPixelLanes / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    }
    return lanes[0];
}

// T1 and T2 of Zhang 2011, section III, as the reference sets them.
inline constexpr float kEdgeConstant = 0.85F;
inline constexpr float kSlopeConstant = 160.0F;

inline void fsim_body(const float* edges_a, const float* slopes_a, const float* edges_b, const float* slopes_b,
                      std::size_t n, double* numerator, double* denominator) {
    LaneSums over_sums;
    LaneSums under_sums;
    std::size_t turns = 0;
    for (std::size_t i = 0; i < n; i += kPixelLanes) {
        for (std::size_t p = 0; p < kParts; ++p) {
            const std::size_t x = i + p * kWidth;
            Floats edge_a;
            Floats edge_b;
            Floats slope_a;
            Floats slope_b;
            load(edges_a + x, edge_a);
            load(edges_b + x, edge_b);
            load(slopes_a + x, slope_a);
            load(slopes_b + x, slope_b);
            const Floats edges = edge_a * edge_b;
            const Floats slopes = slope_a * slope_b;
            const Floats weight = edge_a > edge_b ? edge_a : edge_b;
            const Floats over = ((edges + edges) + kEdgeConstant) * ((slopes + slopes) + kSlopeConstant);
            const Floats under = ((edge_a * edge_a + edge_b * edge_b) + kEdgeConstant) *
                                 ((slope_a * slope_a + slope_b * slope_b) + kSlopeConstant);
            over_sums.near[p] += weight * over / under;
            under_sums.near[p] += weight;
        }
        if (++turns % kShortSum == 0) {
            over_sums.flush();
            under_sums.flush();
        }
    }
    *numerator = over_sums.total();
    *denominator = under_sums.total();
}

}  // namespace

}  // namespace deepssim::simd
