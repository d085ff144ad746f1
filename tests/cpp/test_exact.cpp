#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cfenv>
#include <cmath>
#include <limits>
#include <vector>

#include "deepssim/exact.hpp"
#include "oracle.hpp"

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace deepssim {

namespace {

using testing::below;
using testing::Rng;
using testing::uniform;

constexpr float kSmallest = std::numeric_limits<float>::denorm_min();
constexpr float kLargest = std::numeric_limits<float>::max();

struct Pair {
    float a;
    float b;
};

double core_sum(const std::vector<Pair>& pairs) {
    ExactSum sum;
    for (const Pair& pair : pairs) sum.add_product(pair.a, pair.b);
    return sum.rounded();
}

// Shewchuk's adaptive summation, rounded half to even as math.fsum does it: another method than fixed point.
double shewchuk_sum(const std::vector<Pair>& pairs) {
    std::vector<double> partials;  // not overlapping, increasing magnitude
    for (const Pair& pair : pairs) {
        double x = static_cast<double>(pair.a) * static_cast<double>(pair.b);
        std::size_t kept = 0;
        for (double y : partials) {
            if (std::fabs(x) < std::fabs(y)) std::swap(x, y);
            const double high = x + y;
            const double low = y - (high - x);
            if (low != 0.0) partials[kept++] = low;
            x = high;
        }
        partials.resize(kept);
        partials.push_back(x);
    }
    double high = 0.0;
    double low = 0.0;
    std::size_t n = partials.size();
    if (n > 0) high = partials[--n];
    while (n > 0) {
        const double x = high;
        const double y = partials[--n];
        high = x + y;
        low = y - (high - x);
        if (low != 0.0) break;
    }
    // Half-way cases: the partials below decide.
    if (n > 0 && ((low < 0.0 && partials[n - 1] < 0.0) || (low > 0.0 && partials[n - 1] > 0.0))) {
        const double twice = low * 2.0;
        const double x = high + twice;
        if (twice == x - high) high = x;
    }
    return high;
}

bool same_bits(double a, double b) { return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b); }
bool same_bits(float a, float b) { return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b); }

float any_float(Rng& rng, int lowest, int highest) {
    const auto span = static_cast<std::size_t>(highest - lowest) + 1;
    const int exponent = lowest + static_cast<int>(below(rng, span));
    return static_cast<float>(std::ldexp(uniform(rng), exponent));
}

}  // namespace

TEST_SUITE_BEGIN("exact");

TEST_CASE("an empty sum and an exact cancellation are +0") {
    CHECK(same_bits(core_sum({}), 0.0));
    CHECK(same_bits(core_sum({{0.0F, -5.0F}, {-0.0F, 3.0F}}), 0.0));
    CHECK(same_bits(core_sum({{3.0F, 7.0F}, {-7.0F, 3.0F}}), 0.0));
    CHECK(same_bits(
        core_sum({{kLargest, kLargest}, {kSmallest, kSmallest}, {-kLargest, kLargest}, {-kSmallest, kSmallest}}), 0.0));
}

TEST_CASE("single products at the ends of the range are exact") {
    CHECK(core_sum({{kSmallest, kSmallest}}) == 0x1p-298);
    CHECK(core_sum({{-kSmallest, kSmallest}}) == -0x1p-298);
    CHECK(core_sum({{kLargest, kLargest}}) == static_cast<double>(kLargest) * static_cast<double>(kLargest));
    CHECK(core_sum({{-kLargest, kLargest}}) == -static_cast<double>(kLargest) * static_cast<double>(kLargest));
    CHECK(core_sum({{0x1p127F, 0x1p127F}, {0x1p127F, 0x1p127F}}) == 0x1p255);
    CHECK(core_sum({{-0x1p127F, 0x1p127F}, {-0x1p127F, 0x1p127F}}) == -0x1p255);
    CHECK(core_sum({{0x1p-126F, 0x1p-126F}}) == 0x1p-252);
}

TEST_CASE("what a float64 sum would lose survives cancellation") {
    CHECK(core_sum({{0x1p127F, 0x1p127F}, {kSmallest, kSmallest}, {-0x1p127F, 0x1p127F}}) == 0x1p-298);
    CHECK(core_sum({{0x1p100F, 1.0F}, {1.0F, 1.0F}, {0x1p100F, -1.0F}, {-0x1p-40F, 1.0F}}) == 1.0 - 0x1p-40);
}

TEST_CASE("ties round to even, and anything below breaks them") {
    const Pair one{1.0F, 1.0F};
    const Pair half{0x1p-26F, 0x1p-27F};  // half of the last place of 1
    const Pair last{0x1p-26F, 0x1p-26F};  // the last place
    const Pair dust{kSmallest, kSmallest};
    CHECK(core_sum({one, half}) == 1.0);
    CHECK(core_sum({one, half, dust}) == 1.0 + 0x1p-52);
    CHECK(core_sum({one, half, {-kSmallest, kSmallest}}) == 1.0);
    CHECK(core_sum({one, last, half}) == 1.0 + 0x1p-51);
    CHECK(core_sum({one, last, half, {-kSmallest, kSmallest}}) == 1.0 + 0x1p-52);
    CHECK(core_sum({{-1.0F, 1.0F}, {-0x1p-26F, 0x1p-27F}}) == -1.0);
    CHECK(core_sum({{-1.0F, 1.0F}, {-0x1p-26F, 0x1p-27F}, {-kSmallest, kSmallest}}) == -1.0 - 0x1p-52);
    // Rounding up carries through a mantissa of ones.
    CHECK(core_sum({{2.0F, 1.0F}, {-0x1p-26F, 0x1p-28F}}) == 2.0);
}

TEST_CASE("65,536 products of the largest size fit") {
    ExactSum sum;
    for (int i = 0; i < 65536; ++i) sum.add_product(kLargest, -kLargest);
    CHECK(sum.rounded() == -static_cast<double>(kLargest) * static_cast<double>(kLargest) * 65536.0);
    for (int i = 0; i < 65536; ++i) sum.add_product(kLargest, kLargest);
    CHECK(same_bits(sum.rounded(), 0.0));
}

TEST_CASE("random sums equal those of another exact method in every bit, in any order") {
    Rng rng(1);
    int wrong = 0;
    for (int round = 0; round < 3000; ++round) {
        const int radius = static_cast<int>(below(rng, 4)) * 20;
        const int centre = static_cast<int>(below(rng, 60)) - 30;
        std::vector<Pair> pairs;
        const std::size_t n = 1 + below(rng, 60);
        for (std::size_t i = 0; i < n; ++i) {
            const Pair pair{any_float(rng, -149, 127), any_float(rng, centre - radius, centre + radius)};
            pairs.push_back(round % 2 == 0 ? Pair{any_float(rng, -4, 4), pair.b} : pair);
            // Half of them are taken back, exactly or all but the last place.
            if (below(rng, 2) == 0) pairs.push_back({-pairs.back().a, std::nextafter(pairs.back().b, 0.0F)});
        }
        const double expected = shewchuk_sum(pairs);
        const double forward = core_sum(pairs);
        std::shuffle(pairs.begin(), pairs.end(), rng);
        wrong += same_bits(forward, expected) && same_bits(core_sum(pairs), expected) ? 0 : 1;
    }
    CHECK(wrong == 0);
}

TEST_CASE("a score is rounded to float64, then to float32") {
    // 1 + 2^-24 + 2^-60: float64 makes it the half-way case 1 + 2^-24, which float32 rounds to even. One
    // rounding from the real number would give 1 + 2^-23.
    const std::vector<float> a{1.0F, 0x1p-24F, 0x1p-30F};
    const std::vector<float> b{1.0F, 1.0F, 0x1p-30F};
    CHECK(exact_score(a.data(), b.data(), 1, 3) == 1.0F);
    const std::vector<float> negative{-0x1p-100F};
    const std::vector<float> positive{0x1p-100F};
    CHECK(same_bits(exact_score(negative.data(), positive.data(), 1, 1), -0.0F));
}

TEST_CASE("a score reads b with its stride") {
    const std::vector<float> a{1.0F, 10.0F, 100.0F};
    const std::vector<float> b{1.0F, 9.0F, 2.0F, 9.0F, 3.0F};
    CHECK(exact_score(a.data(), b.data(), 2, 3) == 321.0F);
}

TEST_CASE("an undecided interval is never taken for an answer") {
    CHECK(score_if_decided(1.0, 0x1p-40) == 1.0F);
    CHECK_FALSE(score_if_decided(1.0 + 0x1p-24, 0x1p-50).has_value());
    CHECK_FALSE(score_if_decided(0.0, 0x1p-300).has_value());  // -0 or +0
    const auto zero = score_if_decided(-0x1p-200, 0x1p-300);
    REQUIRE(zero.has_value());
    CHECK(same_bits(zero.value_or(1.0F), -0.0F));
}

TEST_CASE("a decided score is the exact score") {
    Rng rng(2);
    for (const std::size_t dim : {1U, 3U, 17U, 256U}) {
        for (int round = 0; round < 200; ++round) {
            std::vector<float> a(dim);
            std::vector<float> b(dim);
            double sum = 0.0;
            for (std::size_t i = 0; i < dim; ++i) {
                a[i] = any_float(rng, -3, 3);
                b[i] = any_float(rng, -3, 3);
                sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
            }
            const double error =
                float64_error_factor(dim) * norm_upper_bound(a.data(), dim) * norm_upper_bound(b.data(), dim);
            const float exact = exact_score(a.data(), b.data(), 1, dim);
            CHECK(same_bits(score_if_decided(sum, error).value_or(exact), exact));
        }
    }
}

TEST_CASE("a norm is not below the true one and barely above it") {
    Rng rng(3);
    for (const std::size_t dim : {1U, 2U, 100U, 65536U}) {
        std::vector<float> row(dim);
        for (float& value : row) value = any_float(rng, -20, 20);
        ExactSum squares;
        for (const float value : row) squares.add_product(value, value);
        const double norm = norm_upper_bound(row.data(), dim);
        CHECK(norm * norm >= squares.rounded());
        CHECK(norm * norm <= squares.rounded() * (1.0 + 1e-9));
    }
    const std::vector<float> with_nan{1.0F, std::numeric_limits<float>::quiet_NaN()};
    const std::vector<float> with_infinity{-std::numeric_limits<float>::infinity(), 1.0F};
    CHECK_FALSE(std::isfinite(norm_upper_bound(with_nan.data(), 2)));
    CHECK_FALSE(std::isfinite(norm_upper_bound(with_infinity.data(), 2)));
    CHECK(norm_upper_bound(&kSmallest, 1) >= static_cast<double>(kSmallest));
}

TEST_CASE("nothing that reaches the threshold lies below the discard cut") {
    Rng rng(4);
    int wrong = 0;
    for (int round = 0; round < 20000; ++round) {
        const float threshold = any_float(rng, -149, 20);
        const double slack = std::ldexp(std::fabs(uniform(rng)), static_cast<int>(below(rng, 160)) - 150);
        const float cut = discard_below(threshold, slack);
        // The largest value that is discarded: even at the end of its interval it rounds below the threshold.
        const float discarded = std::nextafter(cut, -std::numeric_limits<float>::infinity());
        wrong += static_cast<float>(static_cast<double>(discarded) + slack) < threshold ? 0 : 1;
    }
    CHECK(wrong == 0);
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    CHECK(discard_below(-kInfinity, 1.0) == -kInfinity);
    CHECK(discard_below(kInfinity, 1.0) > 0x1p126F);  // no score reaches it
    CHECK(discard_below(0.0F, 0.0) < 0.0F);
}

#if defined(__SSE2__)
TEST_CASE("flush-to-zero and the rounding mode of the caller are put aside and put back") {
    const unsigned before = _mm_getcsr();
    constexpr unsigned kFlush = 0x8040;  // flush results to zero, read denormals as zero
    _mm_setcsr(before | kFlush);
    std::fesetround(FE_UPWARD);
    const unsigned changed = _mm_getcsr();
    volatile float tiny = kSmallest;
    bool is_flushed = tiny * 2.0F == 0.0F;
    bool is_kept = false;
    {
        const FloatEnvironment environment;
        is_kept = tiny * 2.0F > 0.0F && std::fegetround() == FE_TONEAREST;
    }
    const unsigned after = _mm_getcsr();
    _mm_setcsr(before);
    std::fesetround(FE_TONEAREST);
    CHECK(is_flushed);
    CHECK(is_kept);
    CHECK((after & 0xffc0U) == (changed & 0xffc0U));
}
#endif

TEST_SUITE_END();

}  // namespace deepssim
