// Bodies of image similarity that every level compiles for itself. Everything here has internal linkage.
//
// A level works in vectors of its own width. Integers are exact, float operations act on each pixel alone, and sums
// run in kPixelLanes accumulators whatever the width: the same bits everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

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

// next = columns + a * b - old_a * old_b: the row that enters the windows and the one that leaves them.
inline void slide_columns(const std::int16_t* a, const std::int16_t* b, const std::int16_t* old_a,
                          const std::int16_t* old_b, std::size_t n, const std::int32_t* columns,
                          std::int32_t* __restrict next) {
    // A plain loop: compilers widen 16 bits better than vectors of one width can be made to.
    for (std::size_t x = 0; x < n; ++x) {
        next[x] = columns[x] + static_cast<std::int16_t>(a[x] * b[x] - old_a[x] * old_b[x]);
    }
}

inline void first_columns(const ByteJob& job) {
    std::memset(job.columns, 0, 2 * (job.stride + kRowMultiple) * sizeof(std::int32_t));
    for (std::size_t y = 0; y < kUniformTaps; ++y) {
        const std::int16_t* a = job.a.pixels + y * job.stride;
        const std::int16_t* b = job.b.pixels + y * job.stride;
        for (std::size_t x = 0; x < job.stride; ++x) job.columns[x] += a[x] * b[x];
    }
}

// Numerators and denominators of what SSIM lacks of one at kWidth windows from `x` on of the row that starts at `row`.
template <bool kWithLuminance>
inline void byte_quotient(const ByteJob& job, const std::int32_t* row_columns, std::size_t row, std::size_t x,
                          Floats& over, Floats& under) {
    const std::int32_t* columns = row_columns + x;
    Ints sum;
    Ints next;
    load(columns, sum);
#pragma GCC unroll 6
    for (std::size_t k = 1; k < kUniformTaps; ++k) {
        load(columns + k, next);
        sum += next;
    }
    Ints sums_a;
    Ints sums_b;
    load(job.a.sums + row + x, sums_a);
    load(job.b.sums + row + x, sums_b);
    const Ints whole = ((sum << 5) + (sum << 4) + sum) - sums_a * sums_b;
    Floats variance_a;
    Floats variance_b;
    load(job.a.variances + row + x, variance_a);
    load(job.b.variances + row + x, variance_b);
    const Floats rounded = __builtin_convertvector(whole, Floats);
    // What SSIM lacks of one: where images are alike and flat its float32 would be wrong in the same direction at
    // every window, what it lacks is small there.
    over = (variance_a + variance_b) - (rounded * job.twice_high + rounded * job.twice_low);
    under = (variance_a + variance_b) + job.c2;
    if constexpr (kWithLuminance) {
        Floats mean_a;
        Floats mean_b;
        load(job.a.means + row + x, mean_a);
        load(job.b.means + row + x, mean_b);
        // 1 - (1 - p / u) (1 - q / v) = (p v + q u - p q) / (u v)
        const Floats apart = (mean_a - mean_b) * (mean_a - mean_b);
        const Floats luminance = (mean_a * mean_a + mean_b * mean_b) + job.c1;
        over = apart * under + over * (luminance - apart);
        under *= luminance;
    }
}

// Which lanes of a row's last 2 * kPixelLanes are windows.
struct Tail {
    std::int32_t bits[2 * kPixelLanes] = {};

    explicit Tail(std::size_t n) {
        const std::size_t last = (n - 1) / (2 * kPixelLanes) * (2 * kPixelLanes);
        for (std::size_t i = 0; i < 2 * kPixelLanes; ++i) bits[i] = last + i < n ? -1 : 0;
    }
    void keep(std::size_t lane, Floats& v) const {
        Ints mask;
        Ints kept;
        load(bits + lane, mask);
        std::memcpy(&kept, &v, sizeof(kept));
        kept &= mask;
        std::memcpy(&v, &kept, sizeof(v));
    }
};

template <bool kWithLuminance>
inline void add_byte_row(const ByteJob& job, const std::int32_t* columns, std::size_t row, std::size_t n,
                         const Tail& tail, LaneSums& sums) {
    constexpr std::size_t kTwo = 2 * kPixelLanes;
    std::size_t turns = 0;
    std::size_t x = 0;
    Floats over;
    Floats under;
    Floats over_next;
    Floats under_next;
    for (; x + kPixelLanes < n; x += kTwo) {
        const bool is_last = x + kTwo > n;
        for (std::size_t p = 0; p < kParts; ++p) {
            byte_quotient<kWithLuminance>(job, columns, row, x + p * kWidth, over, under);
            byte_quotient<kWithLuminance>(job, columns, row, x + kPixelLanes + p * kWidth, over_next, under_next);
            if (is_last) tail.keep(kPixelLanes + p * kWidth, over_next);
            // a / b + c / d = (a d + b c) / (b d): divisions cost more than the rest together.
            sums.near[p] += (over * under_next + over_next * under) / (under * under_next);
        }
        if (++turns % kShortSum == 0) sums.flush();
    }
    for (; x < n; x += kPixelLanes) {
        for (std::size_t p = 0; p < kParts; ++p) {
            byte_quotient<kWithLuminance>(job, columns, row, x + p * kWidth, over, under);
            tail.keep(p * kWidth, over);
            sums.near[p] += over / under;
        }
    }
    sums.flush();
}

template <bool kWithLuminance>
double byte_body(const ByteJob& job) {
    const std::size_t rows = job.height - kUniformTaps + 1;
    const std::size_t n = job.width - kUniformTaps + 1;
    const Tail tail(n);
    LaneSums sums;
    first_columns(job);
    // Two lines by turns: windows straddle the vectors that the line is stored in, and a load that straddles a store
    // waits until that has left the processor.
    std::int32_t* columns = job.columns;
    std::int32_t* next = job.columns + job.stride + kRowMultiple;
    for (std::size_t y = 0; y < rows; ++y) {
        if (y + 1 < rows) {
            const std::size_t out = y * job.stride;
            const std::size_t in = (y + kUniformTaps) * job.stride;
            slide_columns(job.a.pixels + in, job.b.pixels + in, job.a.pixels + out, job.b.pixels + out, job.stride,
                          columns, next);
        }
        add_byte_row<kWithLuminance>(job, columns, y * job.stride, n, tail, sums);
        std::int32_t* const done = columns;
        columns = next;
        next = done;
    }
    return static_cast<double>(rows * n) - sums.total();
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
