// The definition of a score, and the arithmetic that decides it.
//
// score(a, b) = float32(float64(sum of a[i] * b[i])), the sum taken over the reals.
// The product of two float32 is exact in float64; only the additions round. A float64 sum in any order
// therefore carries an error of at most gamma(n) * |a| * |b| (Higham, Accuracy and Stability of Numerical
// Algorithms, 2nd ed., section 3.1, with Cauchy-Schwarz for the sum of magnitudes). Rounding is
// monotone, so when both ends of that interval round to the same float32, that is the score; otherwise
// the sum is taken exactly in fixed point.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace deepssim {

// An exact accumulator of products of two float32, in fixed point.
//
// Every such product is an integer multiple of 2^-298 below 2^256, so 65,536 of them fit in 640 bits.
// Limbs hold 32 bits each in a 64-bit integer; carries wait until the end: an addition puts less than
// 2^32 into a limb, so 2^31 additions cannot overflow one.
class ExactSum {
   public:
    void add_product(float a, float b);

    // The sum rounded once to float64, ties to even; an exact zero is +0, as math.fsum returns it.
    double rounded() const;

   private:
    static constexpr int kLowestExponent = -298;
    static constexpr std::size_t kLimbs = 20;
    std::array<std::int64_t, kLimbs> limbs_{};
};

// The score by the definition, whatever it costs. `stride` is the distance of b's elements.
float exact_score(const float* a, const float* b, std::size_t b_stride, std::size_t dim);

// The Euclidean norm of a row, rounded up; not finite if an element is not.
double norm_upper_bound(const float* row, std::size_t dim);

// Bounds on |computed - true| for one inner product of n elements, per unit of |a| * |b|:
// float64 accumulation of exact products, any order of additions.
double float64_error_factor(std::size_t dim);
// float32 products and additions (fused or not), any order; and the absolute part that underflow adds.
double float32_error_factor(std::size_t dim);
double float32_error_absolute(std::size_t dim);

// The score if float64 `sum` with |sum - true| <= `error` already decides it.
std::optional<float> score_if_decided(double sum, double error);

// The largest float32 cut such that an approximate score below it, wrong by at most `slack`, proves
// that the score is below `threshold`.
float discard_below(float threshold, double slack);

// Restores round-to-nearest with denormals for a scope: other libraries in the process may have set
// flush-to-zero, under which no bound of this file holds.
class FloatEnvironment {
   public:
    FloatEnvironment();
    ~FloatEnvironment();
    FloatEnvironment(const FloatEnvironment&) = delete;
    FloatEnvironment& operator=(const FloatEnvironment&) = delete;

   private:
    alignas(16) std::array<unsigned char, 64> saved_{};
};

}  // namespace deepssim
