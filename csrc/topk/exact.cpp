#include "deepssim/exact.hpp"

#include <bit>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <limits>

namespace deepssim {

namespace {

// A finite float32 as sign * mantissa * 2^exponent with an integer mantissa below 2^24.
struct Decomposed {
    std::uint32_t mantissa;
    int exponent;
    bool negative;
};

Decomposed decompose(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t field = (bits >> 23) & 0xffU;
    const std::uint32_t fraction = bits & 0x7fffffU;
    const bool negative = (bits >> 31) != 0;
    if (field == 0) return {fraction, -149, negative};
    return {fraction | 0x800000U, static_cast<int>(field) - 150, negative};
}

constexpr std::int64_t kLimbMask = 0xffffffffLL;

}  // namespace

void ExactSum::add_product(float a, float b) {
    const Decomposed x = decompose(a);
    const Decomposed y = decompose(b);
    const std::uint64_t product = static_cast<std::uint64_t>(x.mantissa) * y.mantissa;  // < 2^48
    if (product == 0) return;
    const auto position = static_cast<unsigned>(x.exponent + y.exponent - kLowestExponent);
    const std::size_t limb = position / 32;
    const unsigned shift = position % 32;
    // product << shift needs up to 79 bits: three limbs, cut so that each part stays below 2^32.
    const std::uint64_t low = (product & 0xffffffffULL) << shift;
    const std::uint64_t high = (product >> 32) << shift;
    const std::int64_t sign = x.negative != y.negative ? -1 : 1;
    limbs_[limb] += sign * static_cast<std::int64_t>(low & 0xffffffffULL);
    limbs_[limb + 1] += sign * static_cast<std::int64_t>((low >> 32) + (high & 0xffffffffULL));
    limbs_[limb + 2] += sign * static_cast<std::int64_t>(high >> 32);
}

double ExactSum::rounded() const {
    // Carry to digits of 32 bits; the top limb keeps the sign.
    std::array<std::int64_t, kLimbs> digits = limbs_;
    for (std::size_t i = 0; i + 1 < kLimbs; ++i) {
        const std::int64_t carry = digits[i] >> 32;  // arithmetic shift: floor
        digits[i] &= kLimbMask;
        digits[i + 1] += carry;
    }
    const bool negative = digits[kLimbs - 1] < 0;
    if (negative) {  // negate: invert and add one, digit by digit
        std::int64_t carry = 1;
        for (std::size_t i = 0; i + 1 < kLimbs; ++i) {
            const std::int64_t value = (digits[i] ^ kLimbMask) + carry;
            digits[i] = value & kLimbMask;
            carry = value >> 32;
        }
        digits[kLimbs - 1] = ~digits[kLimbs - 1] + carry;
    }
    int top = static_cast<int>(kLimbs) - 1;
    while (top >= 0 && digits[static_cast<std::size_t>(top)] == 0) --top;
    if (top < 0) return 0.0;

    const auto digit = [&](int i) {
        return i >= 0 ? static_cast<std::uint64_t>(digits[static_cast<std::size_t>(i)]) : 0ULL;
    };
    // The highest 64 bits, normalised, and whether anything below them is set.
    const int lead = std::countl_zero(static_cast<std::uint32_t>(digit(top)));
    std::uint64_t bits = (digit(top) << 32) | digit(top - 1);
    std::uint64_t rest = digit(top - 2);
    if (lead > 0) {
        bits = (bits << lead) | (rest >> (32 - lead));
        rest = (rest << lead) & static_cast<std::uint64_t>(kLimbMask);
    }
    bool sticky = rest != 0;
    for (int i = top - 3; i >= 0 && !sticky; --i) sticky = digit(i) != 0;

    // 64 bits to 53, ties to even. The smallest product is 2^-298: no float64 here is denormal.
    constexpr std::uint64_t kHalf = 1ULL << 10;
    const std::uint64_t tail = bits & 0x7ffULL;
    std::uint64_t mantissa = bits >> 11;
    if (tail > kHalf || (tail == kHalf && (sticky || (mantissa & 1ULL) != 0))) ++mantissa;
    const int exponent = 32 * (top - 1) - lead + 11 + kLowestExponent;
    const double magnitude = std::ldexp(static_cast<double>(mantissa), exponent);
    return negative ? -magnitude : magnitude;
}

float exact_score(const float* a, const float* b, std::size_t b_stride, std::size_t dim) {
    ExactSum sum;
    for (std::size_t i = 0; i < dim; ++i) sum.add_product(a[i], b[i * b_stride]);
    return static_cast<float>(sum.rounded());
}

double norm_upper_bound(const float* row, std::size_t dim) {
    // Four sums, so that additions need not wait for one another.
    double squares[4] = {};
    std::size_t i = 0;
    for (; i + 4 <= dim; i += 4) {
        for (std::size_t j = 0; j < 4; ++j) {
            squares[j] += static_cast<double>(row[i + j]) * static_cast<double>(row[i + j]);
        }
    }
    for (; i < dim; ++i) squares[0] += static_cast<double>(row[i]) * static_cast<double>(row[i]);
    // All terms are positive and exact, so the relative error is below (n + 2) * 2^-53 after the root.
    const double inflate = 1.0 + static_cast<double>(dim + 4) * 0x1p-52;
    return std::sqrt((squares[0] + squares[1]) + (squares[2] + squares[3])) * inflate;
}

double float64_error_factor(std::size_t dim) {
    const double nu = static_cast<double>(dim) * 0x1p-53;
    return nu / (1.0 - nu) * (1.0 + 0x1p-40);
}

double float32_error_factor(std::size_t dim) {
    // One rounding more than fused arithmetic has, for kernels that multiply and add apart.
    const double nu = static_cast<double>(dim + 2) * 0x1p-24;
    return nu / (1.0 - nu) * (1.0 + 0x1p-40);
}

double float32_error_absolute(std::size_t dim) { return static_cast<double>(dim + 2) * 0x1p-149; }

std::optional<float> score_if_decided(double sum, double error) {
    // Rounding is monotone: the true value lies in [sum - error, sum + error], so its float64 lies
    // between the two computed ends, and its float32 between theirs.
    const auto low = static_cast<float>(sum - error);
    const auto high = static_cast<float>(sum + error);
    if (std::bit_cast<std::uint32_t>(low) != std::bit_cast<std::uint32_t>(high)) return std::nullopt;
    return low;
}

float discard_below(float threshold, double slack) {
    constexpr float kLowest = -std::numeric_limits<float>::infinity();
    if (threshold == kLowest) return kLowest;
    // approximate < cut <= pred(threshold) - slack  =>  true < pred(threshold)  =>  score < threshold.
    const double below = static_cast<double>(std::nextafter(threshold, kLowest));
    const double limit = std::nextafter(below - slack, -std::numeric_limits<double>::infinity());
    auto cut = static_cast<float>(limit);
    if (static_cast<double>(cut) > limit) cut = std::nextafter(cut, kLowest);
    return cut;
}

FloatEnvironment::FloatEnvironment() {
    static_assert(sizeof(std::fenv_t) <= sizeof(saved_));
    std::fenv_t environment;
    std::fegetenv(&environment);
    std::memcpy(saved_.data(), &environment, sizeof(environment));
    std::fesetenv(FE_DFL_ENV);
}

FloatEnvironment::~FloatEnvironment() {
    std::fenv_t environment;
    std::memcpy(&environment, saved_.data(), sizeof(environment));
    std::fesetenv(&environment);
}

}  // namespace deepssim
