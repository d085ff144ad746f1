// The body of the registration kernels in the compiler's generic vectors: eight float32 lanes at every level.
//
// Numerics: float32, no fused operations; sums over pixels are float32 in each lane for eight rows and float64 from
// there on. Division and square root are correctly rounded, so every level gives the same bits.
#pragma once

#ifdef __AVX__
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>

#include "align.hpp"
#include "bank-inl.hpp"

namespace deepssim::simd {

namespace {

inline constexpr int kLanes = static_cast<int>(kAlignLanes);
using V = float __attribute__((vector_size(32)));
using I = std::int32_t __attribute__((vector_size(32)));

// For what keeps columns apart.
inline constexpr int kWide = static_cast<int>(kAlignPadding);
using W = float __attribute__((vector_size(64)));

template <class T = V>
inline T load(const float* from) {
    T out;
    std::memcpy(&out, from, sizeof(out));
    return out;
}
template <class T>
inline void store(float* to, const T& value) {
    std::memcpy(to, &value, sizeof(value));
}
inline V splat(float value) { return V{} + value; }
inline V root(V x) {
#ifdef __AVX__
    return _mm256_sqrt_ps(x);  // the generic loop is not made into one instruction
#else
    V out;
    for (int i = 0; i < kLanes; ++i) out[i] = __builtin_sqrtf(x[i]);
    return out;
#endif
}
inline V at_least(V x, float low) { return x > low ? x : splat(low); }
inline V at_most(V x, float high) { return x < high ? x : splat(high); }
inline V kept(V x, I mask) {
    I bits;
    std::memcpy(&bits, &x, sizeof(bits));
    bits &= mask;
    std::memcpy(&x, &bits, sizeof(bits));
    return x;
}

inline constexpr I kCount = {0, 1, 2, 3, 4, 5, 6, 7};

inline I inside(int x, int first, int last) {
    const I column = kCount + x;
    return (column >= first) & (column < last);
}

// Adds lanes to float64 sums, first lane first.
template <int N>
inline void flush(V (&lanes)[N], double* sums) {
    for (int k = 0; k < N; ++k) {
        for (int i = 0; i < kLanes; ++i) sums[k] += static_cast<double>(lanes[k][i]);
        lanes[k] = V{};
    }
}
inline constexpr int kFlushRows = 8;

using Quad = float __attribute__((vector_size(16)));

inline V load_quads(const float* one, const float* two) {
    Quad low;
    Quad high;
    std::memcpy(&low, one, sizeof(low));
    std::memcpy(&high, two, sizeof(high));
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
}

// For each lane four neighbours: the pixel, the one below, and the same to the right.
struct Neighbours {
    V left;
    V left_below;
    V right;
    V right_below;
};

inline Neighbours load_neighbours(const float* pairs, I place) {
    alignas(sizeof(I)) std::int32_t at[kLanes];
    std::memcpy(at, &place, sizeof(at));
    // Through memory: eight loads of an address are faster than eight extractions from a register.
    asm volatile("" : "+m"(at));
    const auto quads = [&](int lane) {
        return load_quads(pairs + std::ptrdiff_t{2} * at[lane], pairs + std::ptrdiff_t{2} * at[lane + 4]);
    };
    const V q[4] = {quads(0), quads(1), quads(2), quads(3)};
    const V left_low = __builtin_shufflevector(q[0], q[1], 0, 8, 1, 9, 4, 12, 5, 13);
    const V left_high = __builtin_shufflevector(q[2], q[3], 0, 8, 1, 9, 4, 12, 5, 13);
    const V right_low = __builtin_shufflevector(q[0], q[1], 2, 10, 3, 11, 6, 14, 7, 15);
    const V right_high = __builtin_shufflevector(q[2], q[3], 2, 10, 3, 11, 6, 14, 7, 15);
    return {__builtin_shufflevector(left_low, left_high, 0, 1, 8, 9, 4, 5, 12, 13),
            __builtin_shufflevector(left_low, left_high, 2, 3, 10, 11, 6, 7, 14, 15),
            __builtin_shufflevector(right_low, right_high, 0, 1, 8, 9, 4, 5, 12, 13),
            __builtin_shufflevector(right_low, right_high, 2, 3, 10, 11, 6, 7, 14, 15)};
}

inline PairSums warp_body(const WarpJob& job) {
    double sums[5] = {};
    V lanes[5] = {};
    const auto m_row = static_cast<float>(job.matrix[1]);
    const auto m_column = static_cast<float>(job.matrix[3]);
    const auto last_row = static_cast<float>(job.moving_rows - 1);
    const auto last_column = static_cast<float>(job.moving_cols - 1);
    const auto stride = static_cast<std::int32_t>(job.moving_stride);
    const V count = __builtin_convertvector(kCount, V);
    for (int y = 0; y < job.rows; ++y) {
        float* out = job.out + y * job.stride;
        const float* fixed = job.fixed + y * job.stride;
        const int first = job.spans.first[y];
        const int last = job.spans.last[y];
        const int begin = first < last ? first / kLanes * kLanes : 0;
        const int end = first < last ? last : 0;
        for (int x = 0; x < begin; x += kLanes) store(out + x, V{});
        const auto row = static_cast<float>(job.matrix[0] * y + job.offset[0]);
        const auto column = static_cast<float>(job.matrix[2] * y + job.offset[1]);
        int x = begin;
        for (; x < end; x += kLanes) {
            const V at = count + static_cast<float>(x);
            const V r = at_most(at_least(at * m_row + row, 0.0F), last_row);
            const V c = at_most(at_least(at * m_column + column, 0.0F), last_column);
            const I r0 = __builtin_convertvector(r, I);
            const I c0 = __builtin_convertvector(c, I);
            const V fr = r - __builtin_convertvector(r0, V);
            const V fc = c - __builtin_convertvector(c0, V);
            const Neighbours near = load_neighbours(job.moving, r0 * stride + c0);
            const V above = near.left + (near.right - near.left) * fc;
            const V below = near.left_below + (near.right_below - near.left_below) * fc;
            const I mask = inside(x, first, last);
            const V value = kept(above + (below - above) * fr, mask);
            store(out + x, value);
            const V other = kept(load(fixed + x), mask);
            lanes[0] += other;
            lanes[1] += value;
            lanes[2] += other * other;
            lanes[3] += value * value;
            lanes[4] += other * value;
        }
        for (; x < job.stride; x += kLanes) store(out + x, V{});
        if (y % kFlushRows == kFlushRows - 1) flush(lanes, sums);
    }
    flush(lanes, sums);
    return {sums[0], sums[1], sums[2], sums[3], sums[4]};
}

inline PairSums pair_body(const PairJob& job) {
    double sums[5] = {};
    V lanes[5] = {};
    for (int y = 0; y < job.rows; ++y) {
        const int first = job.spans.first[y];
        const int last = job.spans.last[y];
        for (int x = first / kLanes * kLanes; first < last && x < last; x += kLanes) {
            const I mask = inside(x, first, last);
            const V a = kept(load(job.a + y * job.stride + x), mask);
            const V b = kept(load(job.b + y * job.stride + x), mask);
            lanes[0] += a;
            lanes[1] += b;
            lanes[2] += a * a;
            lanes[3] += b * b;
            lanes[4] += a * b;
        }
        if (y % kFlushRows == kFlushRows - 1) flush(lanes, sums);
    }
    flush(lanes, sums);
    return {sums[0], sums[1], sums[2], sums[3], sums[4]};
}

inline void normal_body(const NormalJob& job, double* sums) {
    for (std::size_t k = 0; k < kNormalTerms; ++k) sums[k] = 0.0;
    V lanes[kNormalTerms] = {};
    // A quarter: half a central difference, averaged over the two images.
    const float scale_row = 0.25F / job.factor_rows;
    const float scale_column = 0.25F / job.factor_columns;
    const V count = __builtin_convertvector(kCount, V);
    const float gain = job.gain;
    for (int y = 1; y + 1 < job.rows; ++y) {
        const int first = job.spans.first[y];
        const int last = job.spans.last[y];
        const float row = (static_cast<float>(y) - job.centre_row) * job.factor_rows;
        for (int x = first / kLanes * kLanes; first < last && x < last; x += kLanes) {
            const float* a = job.fixed + y * job.stride + x;
            const float* b = job.warped + y * job.stride + x;
            const V error = load(a) - load(b) * gain - job.bias;
            const V weight = kept(1.0F / (error * error * job.inverse_square + 1.0F), inside(x, first, last));
            const V by_row =
                ((load(a + job.stride) - load(a - job.stride)) + (load(b + job.stride) - load(b - job.stride)) * gain) *
                scale_row;
            const V by_column = ((load(a + 1) - load(a - 1)) + (load(b + 1) - load(b - 1)) * gain) * scale_column;
            const V column = (count + (static_cast<float>(x) - job.centre_column)) * job.factor_columns;
            const V turn = by_row * column - by_column * row;
            const V zoom = by_row * row + by_column * column;
            const V w_turn = weight * turn;
            const V w_row = weight * by_row;
            const V w_column = weight * by_column;
            const V w_zoom = weight * zoom;
            lanes[0] += w_turn * turn;
            lanes[1] += w_turn * by_row;
            lanes[2] += w_turn * by_column;
            lanes[3] += w_turn * zoom;
            lanes[4] += w_row * by_row;
            lanes[5] += w_row * by_column;
            lanes[6] += w_row * zoom;
            lanes[7] += w_column * by_column;
            lanes[8] += w_column * zoom;
            lanes[9] += w_zoom * zoom;
            lanes[10] += w_turn * error;
            lanes[11] += w_row * error;
            lanes[12] += w_column * error;
            lanes[13] += w_zoom * error;
        }
        if (y % kFlushRows == kFlushRows - 1) flush(lanes, sums);
    }
    flush(lanes, sums);
}

// in and out have `margin` zero rows before and after. The sum runs down the rows.
inline void run_box(const float* in, int rows, const Box& box, float* out) {
    const std::ptrdiff_t r = box.radius;
    W sum{};
    for (std::ptrdiff_t y = -r - 1; y < r; ++y) sum += load<W>(in + y * kWide);
    for (std::ptrdiff_t y = 0; y < rows; ++y) {
        const W before = load<W>(in + (y - r - 1) * kWide);
        sum += load<W>(in + (y + r) * kWide) - before;
        const W after = load<W>(in + (y + r + 1) * kWide);
        store(out + y * kWide, (sum + (before + after) * box.edge) * box.scale);
    }
}

// Eight columns of a strip.
inline void store_transposed(const float* in, int rows, int columns, float* out, std::ptrdiff_t stride) {
    for (std::ptrdiff_t y = 0; y < rows; y += kLanes) {
        V t[kLanes];
        V s[kLanes];
        for (std::ptrdiff_t i = 0; i < kLanes; ++i) t[i] = load(in + (y + i) * kWide);
#pragma GCC unroll 4
        for (std::ptrdiff_t i = 0; i < 4; ++i) {
            s[2 * i] = __builtin_shufflevector(t[i], t[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
            s[2 * i + 1] = __builtin_shufflevector(t[i], t[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
        }
#pragma GCC unroll 4
        for (std::ptrdiff_t i = 0; i < 4; ++i) {
            t[2 * i] = __builtin_shufflevector(s[i], s[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
            t[2 * i + 1] = __builtin_shufflevector(s[i], s[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
        }
#pragma GCC unroll 4
        for (std::ptrdiff_t i = 0; i < 4; ++i) {
            s[2 * i] = __builtin_shufflevector(t[i], t[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
            s[2 * i + 1] = __builtin_shufflevector(t[i], t[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
        }
        for (std::ptrdiff_t i = 0; i < columns; ++i) store(out + i * stride + y, s[i]);
    }
}

inline void smooth_body(const SmoothJob& job) {
    std::ptrdiff_t margin = 1;
    for (int k = 0; k < job.n_boxes; ++k)
        margin = margin > job.boxes[k].radius ? margin : std::ptrdiff_t{job.boxes[k].radius} + 1;
    const int whole = (job.rows + kLanes - 1) / kLanes;
    const std::ptrdiff_t padded = std::ptrdiff_t{whole} * kLanes;
    const std::ptrdiff_t n_all = padded + 2 * margin;
    float* strips[2] = {job.scratch + margin * kWide, job.scratch + (n_all + margin) * kWide};
    std::memset(job.scratch, 0, static_cast<std::size_t>(2 * n_all * kWide) * sizeof(float));
    for (std::ptrdiff_t x = 0; x < job.cols; x += kWide) {
        for (std::ptrdiff_t y = 0; y < job.rows; ++y) {
            W value = load<W>(job.in + y * job.stride + x);
            if (job.times != nullptr) value *= load<W>(job.times + y * job.stride + x);
            store(strips[0] + y * kWide, value);
        }
        int now = 0;
        for (int k = 0; k < job.n_boxes; ++k, now = 1 - now)
            run_box(strips[now], job.rows, job.boxes[k], strips[1 - now]);
        for (std::ptrdiff_t at = x; at < x + kWide && at < job.cols; at += kLanes) {
            const auto columns = static_cast<int>(job.cols - at < kLanes ? job.cols - at : kLanes);
            store_transposed(strips[now] + (at - x), job.rows, columns, job.out + at * job.out_stride, job.out_stride);
        }
    }
}

inline void local_norm_body(const LocalNormJob& job) {
    for (std::size_t i = 0; i < job.n; i += kAlignLanes) {
        // Numerator and root times the weight: one division fewer.
        const V weight = at_least(load(job.weights + i), 1e-6F);
        const V sum = load(job.sums + i);
        const V square = at_least(load(job.squares + i) * weight - sum * sum, 0.0F);
        V value = (load(job.image + i) * weight - sum) / root(square + weight * weight * job.epsilon_square);
        if (job.mask != nullptr) value *= load(job.mask + i);
        store(job.out + i, value);
    }
}

inline void local_correlation_body(const LocalCorrelationJob& job) {
    for (std::size_t i = 0; i < job.n; i += kAlignLanes) {
        const V inverse = 1.0F / at_least(load(job.weights + i), 1e-6F);
        const V mean_a = load(job.a + i) * inverse;
        const V mean_b = load(job.b + i) * inverse;
        const V var_a = at_least(load(job.aa + i) * inverse - mean_a * mean_a, 0.0F);
        const V var_b = at_least(load(job.bb + i) * inverse - mean_b * mean_b, 0.0F);
        const V covariance = load(job.ab + i) * inverse - mean_a * mean_b;
        store(job.out + i, (covariance + job.constant) / (root(var_a * var_b) + job.constant));
    }
}

}  // namespace

}  // namespace deepssim::simd
