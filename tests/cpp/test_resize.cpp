#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "deepssim/exact.hpp"
#include "deepssim/resize.hpp"
#include "oracle.hpp"

namespace deepssim {

namespace {

using testing::Rows;

std::vector<float> resized(const Rows& image, std::size_t height, std::size_t width) {
    std::vector<float> out(height * width, std::numeric_limits<float>::quiet_NaN());
    resize_area(image.view(), height, width, out.data());
    return out;
}

Rows make_image(std::size_t rows, std::size_t cols) {
    return testing::make_rows(testing::Kind::kUnit, rows, cols, rows * 1000 + cols);
}

// The overlap of [a, a + 1) pixels of the input with [b, b + 1) of the output, in input pixels.
double overlap(std::size_t in, std::size_t n_in, std::size_t out, std::size_t n_out) {
    const double ratio = static_cast<double>(n_in) / static_cast<double>(n_out);
    const double begin = std::max(static_cast<double>(in), static_cast<double>(out) * ratio);
    const double end = std::min(static_cast<double>(in) + 1.0, (static_cast<double>(out) + 1.0) * ratio);
    return std::max(0.0, end - begin);
}

double mean_of(const std::vector<float>& pixels) {
    double sum = 0.0;
    for (const float pixel : pixels) sum += static_cast<double>(pixel);
    return sum / static_cast<double>(pixels.size());
}

constexpr std::size_t kSizes[] = {1, 2, 3, 5, 8, 13, 32};

}  // namespace

TEST_SUITE_BEGIN("resize");

TEST_CASE("each pixel is the mean over the area it covers, up and down") {
    for (const std::size_t rows : kSizes) {
        const Rows image = make_image(rows, 11);
        for (const std::size_t height : kSizes) {
            for (const std::size_t width : {1U, 4U, 11U, 17U}) {
                const std::vector<float> out = resized(image, height, width);
                double worst = 0.0;
                for (std::size_t y = 0; y < height; ++y) {
                    for (std::size_t x = 0; x < width; ++x) {
                        double sum = 0.0;
                        double area = 0.0;
                        for (std::size_t i = 0; i < rows; ++i) {
                            for (std::size_t j = 0; j < 11; ++j) {
                                const double weight = overlap(i, rows, y, height) * overlap(j, 11, x, width);
                                sum += weight * static_cast<double>(image.row(i)[j]);
                                area += weight;
                            }
                        }
                        worst = std::max(worst, std::fabs(sum / area - static_cast<double>(out[y * width + x])));
                    }
                }
                CAPTURE(rows);
                CAPTURE(height);
                CAPTURE(width);
                CHECK(worst < 1e-7);
            }
        }
    }
}

TEST_CASE("the same size gives the same pixels") {
    const Rows image = make_image(9, 14);
    CHECK(resized(image, 9, 14) == image.data);
}

TEST_CASE("blocks of integers give their mean, rounded once") {
    Rows image{4, 6, {}};
    for (int i = 0; i < 24; ++i) image.data.push_back(static_cast<float>(i));
    CHECK(resized(image, 2, 2) == std::vector<float>{4.0F, 7.0F, 16.0F, 19.0F});
    CHECK(resized(image, 1, 1) == std::vector<float>{11.5F});
    CHECK(resized({1, 3, {1.0F, 0.0F, 0.0F}}, 1, 1) == std::vector<float>{static_cast<float>(1.0 / 3.0)});
}

TEST_CASE("constants stay what they are in every bit") {
    for (const float value : {0.1F, -3.3F, 1e-40F, 1e30F}) {
        for (const std::size_t size : kSizes) {
            const Rows image{7, 10, std::vector<float>(70, value)};
            const std::vector<float> out = resized(image, size, size + 1);
            CHECK(std::all_of(out.begin(), out.end(), [value](float pixel) { return pixel == value; }));
        }
    }
}

TEST_CASE("the mean of the image is kept") {
    const Rows image = make_image(13, 29);
    for (const std::size_t size : kSizes) {
        CHECK(mean_of(resized(image, size, 2 * size + 1)) == doctest::Approx(mean_of(image.data)).epsilon(1e-5));
    }
}

TEST_CASE("strides are followed, backwards too") {
    const Rows image = make_image(6, 8);
    Rows flipped{6, 8, {}};
    for (std::size_t i = 6; i-- > 0;) flipped.data.insert(flipped.data.end(), image.row(i), image.row(i) + 8);
    std::vector<float> out(12);
    resize_area({image.row(5), 6, 8, -8}, 3, 4, out.data());
    CHECK(out == resized(flipped, 3, 4));
    // Every other row, and the first five columns.
    Rows part{3, 5, {}};
    for (std::size_t i = 0; i < 6; i += 2) part.data.insert(part.data.end(), image.row(i), image.row(i) + 5);
    resize_area({image.row(0), 3, 5, 16}, 3, 4, out.data());
    CHECK(out == resized(part, 3, 4));
}

TEST_CASE("empty inputs and outputs are refused") {
    const Rows image = make_image(2, 2);
    float out = 0.0F;
    CHECK_THROWS_AS(resize_area({image.row(0), 0, 2, 2}, 1, 1, &out), InvalidInput);
    CHECK_THROWS_AS(resize_area({image.row(0), 2, 0, 2}, 1, 1, &out), InvalidInput);
    CHECK_THROWS_AS(resize_area(image.view(), 0, 1, &out), InvalidInput);
    CHECK_THROWS_WITH_AS(resize_area(image.view(), 1, 0, &out), "cannot resize 2 x 2 pixels to 1 x 0", InvalidInput);
}

TEST_SUITE_END();

}  // namespace deepssim
