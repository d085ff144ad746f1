// Bodies that every level compiles for itself, in the compiler's own vectors of eight float64. Everything
// here has internal linkage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels.hpp"

namespace deepssim::simd {

namespace {

inline constexpr std::size_t kLanes = 8;
using Floats8 = float __attribute__((vector_size(32)));
using Doubles8 = double __attribute__((vector_size(64)));
using Ints8 = std::int32_t __attribute__((vector_size(32)));
using Shorts8 = std::int16_t __attribute__((vector_size(16)));

// By reference: returning such a vector would change the calling convention between levels.
inline void load8(const float* from, Doubles8& to) {
    Floats8 narrow;
    std::memcpy(&narrow, from, sizeof(narrow));
    to = __builtin_convertvector(narrow, Doubles8);
}

inline double total(const Doubles8& v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

inline double inner_body(const float* a, const float* b, std::size_t dim) {
    Doubles8 sums[2] = {};
    Doubles8 x;
    Doubles8 y;
    std::size_t i = 0;
    for (; i + 2 * kLanes <= dim; i += 2 * kLanes) {
        load8(a + i, x);
        load8(b + i, y);
        sums[0] += x * y;
        load8(a + i + kLanes, x);
        load8(b + i + kLanes, y);
        sums[1] += x * y;
    }
    double rest = 0.0;
    for (; i < dim; ++i) rest += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    sums[0] += sums[1];
    return total(sums[0]) + rest;
}

inline double largest_body(const float* row, const float* centre, std::size_t n) {
    Doubles8 most = {};
    Doubles8 x;
    Doubles8 c;
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        load8(row + i, x);
        load8(centre + i, c);
        x -= c;
        x = x < 0.0 ? -x : x;
        most = x > most ? x : most;
    }
    double found = 0.0;
    for (std::size_t lane = 0; lane < kLanes; ++lane) found = most[lane] > found ? most[lane] : found;
    for (; i < n; ++i) {
        const double z = static_cast<double>(row[i]) - static_cast<double>(centre[i]);
        const double size = z < 0.0 ? -z : z;
        found = size > found ? size : found;
    }
    return found;
}

inline void quantise_body(const float* row, const float* centre, std::size_t n, double scale, double inverse_scale,
                          double limit, std::int16_t* codes, double* squares, double* lost_squares,
                          double* code_squares) {
    constexpr double kRound = 0x1.8p52;  // adding and subtracting it rounds to an integer
    Doubles8 sum = {};
    Doubles8 lost = {};
    Doubles8 coded = {};
    Doubles8 x;
    Doubles8 c;
    for (std::size_t i = 0; i < n; i += kLanes) {
        const std::size_t count = n - i < kLanes ? n - i : kLanes;
        if (count == kLanes) {
            load8(row + i, x);
            load8(centre + i, c);
        } else {
            float padded[2][kLanes] = {};
            std::memcpy(padded[0], row + i, count * sizeof(float));
            std::memcpy(padded[1], centre + i, count * sizeof(float));
            load8(padded[0], x);
            load8(padded[1], c);
        }
        x -= c;
        Doubles8 code = (x * inverse_scale + kRound) - kRound;
        code = code > limit ? limit + Doubles8{} : code;
        code = code < -limit ? -limit + Doubles8{} : code;
        const Doubles8 error = x - code * scale;
        sum += x * x;
        lost += error * error;
        coded += code * code;
        const Shorts8 narrow = __builtin_convertvector(__builtin_convertvector(code, Ints8), Shorts8);
        std::memcpy(codes + i, &narrow, count * sizeof(std::int16_t));
    }
    *squares += total(sum);
    *lost_squares += total(lost);
    *code_squares += total(coded);  // exact: less than 2^53
}

// The integer from which on a pair of each query of a tile with a group is kept.
[[maybe_unused]] inline void fill_thresholds(const double* query, const double* group, std::size_t tile,
                                             std::int32_t* out) {
    constexpr double kLow = -2147483648.0;
    constexpr double kHigh = 2147483647.0;
    const auto term = [&](std::size_t t, std::size_t i) { return query[t * tile + i]; };
    for (std::size_t i = 0; i < tile; ++i) {
        const double reverse = (group[kRowCut] - term(kReverseOffset, i)) * term(kReverseFactor, i);
        const double cut = reverse < term(kCut, i) ? reverse : term(kCut, i);
        double limit = cut * group[kInverseScale];
        for (std::size_t t = 0; t < kSlacks; ++t) limit -= term(kSlack + t, i) * group[kBound + t];
        limit = limit < kLow ? kLow : limit > kHigh ? kHigh : limit;
        auto whole = static_cast<std::int32_t>(limit);  // towards zero
        if (static_cast<double>(whole) > limit) --whole;
        out[i] = whole;
    }
}

// Writes a hit if any of a query's 64 sums reaches the threshold; returns whether.
[[maybe_unused]] inline std::size_t keep_hit(const std::int32_t* all, std::int32_t threshold, std::size_t query,
                                             Hit* hit, std::int32_t* sums) {
    std::uint64_t rows = 0;
    for (std::size_t row = 0; row < kGroupRows; ++row) {
        rows |= static_cast<std::uint64_t>(all[row] >= threshold) << row;
    }
    if (rows == 0) return 0;
    std::memcpy(sums, all, kGroupRows * sizeof(std::int32_t));
    *hit = {rows, static_cast<std::uint32_t>(query)};
    return 1;
}

}  // namespace

}  // namespace deepssim::simd
