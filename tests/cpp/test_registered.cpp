#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "deepssim/isa.hpp"
#include "deepssim/registered.hpp"
#include "deepssim/similarity.hpp"

namespace deepssim {

namespace {

constexpr std::size_t kRows = 61;
constexpr std::size_t kCols = 47;

// Smooth structure with a little of what a hash gives.
std::vector<float> make_image(std::size_t rows, std::size_t cols, unsigned seed) {
    std::vector<float> out(rows * cols);
    for (std::size_t i = 0; i < out.size(); ++i) {
        const std::size_t row = i / cols;
        const auto y = static_cast<double>(row);
        const auto x = static_cast<double>(i % cols);
        const double wave = std::sin(0.3 * y + seed) * std::cos(0.21 * x) + std::sin(0.05 * x * y / 7.0);
        const auto noise = static_cast<double>((i * 2654435761UL + seed * 40503UL) % 1024UL) / 1024.0;
        out[i] = static_cast<float>(0.5 + 0.2 * wave + 0.1 * (noise - 0.5));
    }
    return out;
}

MatrixView view_of(const std::vector<float>& pixels, std::size_t rows, std::size_t cols) {
    return {pixels.data(), rows, cols, static_cast<std::ptrdiff_t>(cols)};
}

double whole(Similarity kind, std::vector<float> a, std::vector<float> b) {
    if (kind == Similarity::kFsim) {
        for (float& value : a) value *= 255.0F;
        for (float& value : b) value *= 255.0F;
    }
    const auto stack = [](const std::vector<float>& pixels) {
        ImageStack out;
        out.data = pixels.data();
        out.n = 1;
        out.height = kRows;
        out.width = kCols;
        out.image_stride = static_cast<std::ptrdiff_t>(pixels.size() * sizeof(float));
        out.row_stride = static_cast<std::ptrdiff_t>(kCols * sizeof(float));
        return out;
    };
    SimilarityOptions options;
    options.kind = kind;
    options.with_z_score = true;
    double value = 0.0;
    SimilarityOutput out;
    out.doubles = &value;
    out.row_stride = 1;
    similarity_matrix(stack(a), stack(b), options, out, nullptr, {});
    return value;
}

bool same_bits(const RegisteredSimilarity& a, const RegisteredSimilarity& b) {
    return a.ssim == b.ssim && a.contrast_structure == b.contrast_structure && a.fsim == b.fsim && a.ncc == b.ncc &&
           a.overlap == b.overlap;
}

}  // namespace

TEST_SUITE_BEGIN("registered");

TEST_CASE("under the identity the statistics are those of whole images") {
    const std::vector<float> a = make_image(kRows, kCols, 1);
    const std::vector<float> b = make_image(kRows, kCols, 2);
    RegisteredWorkspace workspace;
    const RegisteredSimilarity found =
        compare_registered(view_of(a, kRows, kCols), view_of(b, kRows, kCols), {}, workspace);
    CHECK(std::abs(found.ssim - whole(Similarity::kSsim, a, b)) < 1e-6);
    CHECK(std::abs(found.contrast_structure - whole(Similarity::kContrastStructure, a, b)) < 1e-6);
    CHECK(std::abs(found.fsim - whole(Similarity::kFsim, a, b)) < 1e-6);
    CHECK(std::abs(found.ncc - whole(Similarity::kNcc, a, b)) < 1e-6);
    CHECK(found.overlap == 1.0);
}

TEST_CASE("every level gives the same bits, with sizes round the vectors") {
    for (const std::size_t cols : {7U, 8U, 9U, 15U, 16U, 17U, 31U, 33U, 64U, 65U}) {
        const std::vector<float> a = make_image(kRows, cols, 3);
        const std::vector<float> b = make_image(kRows, cols, 4);
        for (const Transform& t : {Transform{}, Transform{true, 4.0, 1.5, -1.0, 1.03}}) {
            RegisteredWorkspace portable("portable");
            std::vector<float> map(a.size());
            const auto first = compare_registered(view_of(a, kRows, cols), view_of(b, kRows, cols), t, portable,
                                                  {map.data(), nullptr});
            for (const auto& level : supported_isa_levels()) {
                RegisteredWorkspace workspace(level);
                std::vector<float> other(a.size());
                CHECK(same_bits(first, compare_registered(view_of(a, kRows, cols), view_of(b, kRows, cols), t,
                                                          workspace, {other.data(), nullptr})));
                CHECK(std::memcmp(map.data(), other.data(), map.size() * sizeof(float)) == 0);
            }
        }
    }
}

TEST_CASE("a workspace remembers nothing of earlier pairs") {
    const std::vector<float> a = make_image(kRows, kCols, 5);
    const std::vector<float> b = make_image(kRows, kCols, 6);
    const std::vector<float> other = make_image(90, 33, 7);
    RegisteredWorkspace used;
    const Transform turn{false, 20.0, 2.0, 1.0, 0.95};
    compare_registered(view_of(other, 90, 33), view_of(other, 90, 33), turn, used);
    compare_registered(view_of(b, kRows, kCols), view_of(a, kRows, kCols), {}, used);
    RegisteredWorkspace fresh;
    CHECK(same_bits(compare_registered(view_of(a, kRows, kCols), view_of(b, kRows, kCols), turn, used),
                    compare_registered(view_of(a, kRows, kCols), view_of(b, kRows, kCols), turn, fresh)));
}

TEST_CASE("little overlap tells nothing, and images that cannot be compared are refused") {
    std::vector<float> a = make_image(kRows, kCols, 1);
    RegisteredWorkspace workspace;
    const RegisteredSimilarity found =
        compare_registered(view_of(a, kRows, kCols), view_of(a, kRows, kCols), {false, 0.0, 45.0, 0.0, 1.0}, workspace);
    CHECK(found.ssim == -1.0);
    CHECK(found.fsim == -1.0);
    CHECK(found.ncc == -1.0);
    CHECK(std::abs(found.overlap - 16.0 / 61.0) < 1e-9);
    CHECK_THROWS_AS(compare_registered(view_of(a, kRows, kCols), view_of(a, kRows - 1, kCols), {}, workspace),
                    InvalidInput);
    CHECK_THROWS_AS(compare_registered(view_of(a, 6, kCols), view_of(a, 6, kCols), {}, workspace), InvalidInput);
    a[100] = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS_AS(compare_registered(view_of(a, kRows, kCols), view_of(a, kRows, kCols), {}, workspace),
                    InvalidInput);
}

TEST_SUITE_END();

}  // namespace deepssim
