#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "deepssim/isa.hpp"
#include "deepssim/registration.hpp"
#include "simd/align.hpp"

namespace deepssim {

namespace {

// Blobs of several sizes, without any symmetry.
std::vector<float> make_scene(std::size_t rows, std::size_t cols) {
    std::vector<float> out(rows * cols);
    const double blobs[][4] = {
        {.3, .3, .1, .9}, {.7, .4, .05, .6}, {.5, .7, .15, .5}, {.2, .75, .04, .8}, {.8, .8, .08, .4}};
    for (std::size_t y = 0; y < rows; ++y) {
        for (std::size_t x = 0; x < cols; ++x) {
            double sum = 0.0;
            for (const auto& [row, column, width, height] : blobs) {
                const double dy = static_cast<double>(y) / static_cast<double>(rows) - row;
                const double dx = static_cast<double>(x) / static_cast<double>(cols) - column;
                sum += height * std::exp(-0.5 * (dy * dy + dx * dx) / (width * width));
            }
            out[y * cols + x] = static_cast<float>(std::min(1.0, sum));
        }
    }
    return out;
}

MatrixView view_of(const std::vector<float>& pixels, std::size_t rows, std::size_t cols) {
    return {pixels.data(), rows, cols, static_cast<std::ptrdiff_t>(cols)};
}

}  // namespace

TEST_SUITE_BEGIN("registration");

TEST_CASE("a warped scene is laid back onto itself") {
    const std::vector<float> scene = make_scene(136, 112);
    const RegistrationImage moving(view_of(scene, 136, 112));
    for (const Transform& truth :
         {Transform{}, Transform{true, 12.0, 3.0, -5.0, 1.0}, Transform{false, -160.0, -6.5, 2.0, 1.0}}) {
        std::vector<float> shown(scene.size());
        warp_image(view_of(scene, 136, 112), truth, shown.data());
        const RegistrationImage fixed(view_of(shown, 136, 112));
        Aligner aligner;
        aligner.fix(fixed);
        const Transform found = aligner.align(moving, false).transform;
        CHECK(found.is_mirrored == truth.is_mirrored);
        // 0.3 px at the rim, 68 px from the centre.
        CHECK(std::abs(found.angle_degrees - truth.angle_degrees) < 0.25);
        CHECK(std::abs(found.shift_rows - truth.shift_rows) < 0.3);
        CHECK(std::abs(found.shift_columns - truth.shift_columns) < 0.3);
    }
}

TEST_CASE("every level gives the same bits, for widths round the lanes") {
    for (const std::size_t cols : {1U, 7U, 8U, 9U, 15U, 16U, 17U, 33U, 65U}) {
        const std::vector<float> scene = make_scene(23, cols);
        std::vector<double> expected;
        for (const std::string& isa : supported_isa_levels()) {
            const RegistrationImage image(view_of(scene, 23, cols), isa);
            Aligner aligner(isa);
            aligner.fix(image);
            const Registration found = aligner.align(image, true);
            const Evidence evidence = aligner.evidence(image, found.transform);
            const std::vector<double> numbers{found.fit,
                                              found.transform.angle_degrees,
                                              found.transform.shift_rows,
                                              found.transform.scale,
                                              evidence.s1,
                                              evidence.s2,
                                              evidence.ncc};
            if (expected.empty()) expected = numbers;
            CHECK(numbers == expected);
        }
    }
}

TEST_CASE("threads may share images") {
    const std::vector<float> scene = make_scene(64, 48);
    const RegistrationImage image(view_of(scene, 64, 48));
    std::vector<double> fits(4);
    std::vector<std::thread> threads;
    threads.reserve(fits.size());
    for (double& fit : fits) {
        threads.emplace_back([&image, &fit] {
            Aligner aligner;
            aligner.fix(image);
            fit = aligner.align(image, true).fit;
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const double fit : fits) CHECK(fit == fits.front());
}

TEST_CASE("smoothing with one box is a mean, at every length, transposed") {
    const simd::AlignKernels& kernels = simd::align_kernels_for("portable");
    for (const int rows : {1, 3, 8, 13}) {
        std::vector<float> in((static_cast<std::size_t>(rows) + 1) * 16);
        for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i % 7);
        for (std::size_t y = 0; y < static_cast<std::size_t>(rows); ++y) {
            for (std::size_t x = 11; x < 16; ++x) in[y * 16 + x] = 0.0F;
        }
        std::vector<float> out(std::size_t{11} * 16, -1.0F);
        std::vector<float> scratch(std::size_t{44} * simd::kAlignPadding);  // two strips of 16 rows and their margins
        const simd::Box box{2, 0.0F, 0.2F};
        kernels.smooth({in.data(), nullptr, 16, rows, 11, &box, 1, out.data(), 16, scratch.data()});
        for (int x = 0; x < 11; ++x) {
            for (int y = 0; y < rows; ++y) {
                float sum = 0.0F;
                for (int k = std::max(0, y - 2); k <= std::min(rows - 1, y + 2); ++k) {
                    sum += in[static_cast<std::size_t>(k) * 16 + static_cast<std::size_t>(x)];
                }
                CHECK(out[static_cast<std::size_t>(x) * 16 + static_cast<std::size_t>(y)] ==
                      doctest::Approx(sum * 0.2F));
            }
        }
    }
}

TEST_CASE("inner products of the bank are exact at every level, extremes included") {
    constexpr int kRows = 5;
    constexpr int kWidth = 64;
    constexpr int kTemplates = 4;
    constexpr int kStride = kWidth + 32;
    constexpr int kRowShifts = 3;
    std::vector<std::int8_t> templates(std::size_t{kTemplates} * kRows * kWidth);
    std::vector<std::uint8_t> image(std::size_t{kStride} * (kRows + 2 * kRowShifts));
    for (std::size_t i = 0; i < templates.size(); ++i) {
        const auto value = static_cast<int>(i * 7919 % 255) - 127;
        templates[i] = static_cast<std::int8_t>(i < 256 ? 127 : i < 512 ? -127 : value);
    }
    for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<std::uint8_t>(i < 500 ? 127 : i * 31 % 128);
    std::vector<std::int32_t> expected;
    constexpr std::size_t kSize = std::size_t{kRows} * kWidth;
    for (std::size_t t = 0; t < kTemplates; ++t) {
        for (std::size_t dy = 0; dy < kRowShifts; ++dy) {
            for (std::size_t dx = 0; dx < simd::kBankShifts; ++dx) {
                std::int32_t sum = 0;
                for (std::size_t i = 0; i < kSize; ++i) {
                    const std::size_t at = (i / kWidth + 2 * dy) * kStride + i % kWidth + dx;
                    sum += templates[t * kSize + i] * image[at];
                }
                expected.push_back(sum);
            }
        }
    }
    for (const std::string& isa : supported_isa_levels()) {
        std::vector<std::int32_t> found(expected.size());
        simd::align_kernels_for(isa.c_str())
            .bank({templates.data(), kTemplates, kRows, kWidth, image.data(), kStride, kRowShifts, 2, found.data()});
        CHECK(found == expected);
    }
}

TEST_CASE("what cannot be registered is refused") {
    std::vector<float> pixels(64, 0.5F);
    const RegistrationImage image(view_of(pixels, 8, 8));
    const RegistrationImage other(view_of(pixels, 4, 16));
    Aligner aligner;
    CHECK_THROWS_AS(aligner.align(image, true), InvalidInput);
    aligner.fix(image);
    CHECK_THROWS_AS(aligner.align(other, true), InvalidInput);
    pixels[3] = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS_AS(RegistrationImage(view_of(pixels, 8, 8)), InvalidInput);
    CHECK_THROWS_AS(RegistrationImage(MatrixView{}), InvalidInput);
}

TEST_SUITE_END();

}  // namespace deepssim
