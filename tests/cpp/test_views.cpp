// Views of a small image. What each shows is compared with NumPy in tests/core/test_core_views.py; here sizes of all
// kinds go through the sanitizers.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "deepssim/views.hpp"

using namespace deepssim;

TEST_SUITE_BEGIN("views");

TEST_CASE("rows are of unit norm or zero, for any size and any grid") {
    const double zooms[] = {0.4, 1.0, 3.0};
    for (const std::size_t height : {1U, 2U, 3U, 17U}) {
        for (const std::size_t width : {1U, 2U, 16U}) {
            std::vector<float> image(height * width);
            for (std::size_t i = 0; i < image.size(); ++i) image[i] = std::sin(static_cast<float>(i * i));
            const MatrixView view{image.data(), height, width, static_cast<std::ptrdiff_t>(width)};
            for (const std::size_t shift : {0U, 1U, 5U}) {
                const ViewGrid grid{7, zooms, shift, 0.1, true, shift == 1 ? 0.4 : 1.0};
                std::vector<float> out(count_views(grid) * image.size(), std::numeric_limits<float>::quiet_NaN());
                make_views(view, grid, out.data());
                for (std::size_t first = 0; first < out.size(); first += image.size()) {
                    double squares = 0.0;
                    for (std::size_t i = 0; i < image.size(); ++i) {
                        squares += static_cast<double>(out[first + i]) * static_cast<double>(out[first + i]);
                    }
                    CHECK((squares == 0.0 || std::fabs(squares - 1.0) < 1e-4));
                }
            }
        }
    }
}

TEST_CASE("rows of an image may lie apart") {
    const std::vector<float> image{1, 2, 9, 3, 5, 9};
    const double zoom[] = {1.0};
    const ViewGrid grid{2, zoom, 0, 0.35, true, 1.0};
    std::vector<float> apart(count_views(grid) * 4);
    std::vector<float> close(apart.size());
    make_views({image.data(), 2, 2, 3}, grid, apart.data());
    const std::vector<float> packed{1, 2, 3, 5};
    make_views({packed.data(), 2, 2, 2}, grid, close.data());
    CHECK(apart == close);
}

TEST_CASE("what cannot be is refused") {
    const float pixel = 1.0F;
    const double bad[] = {-1.0};
    CHECK_THROWS_AS(make_views({&pixel, 0, 1, 1}, {}, nullptr), InvalidInput);
    CHECK_THROWS_AS(make_views({&pixel, 1, 1, 1}, {1, bad, 0, 0.0, true, 1.0}, nullptr), InvalidInput);
    CHECK_THROWS_AS(count_views({std::numeric_limits<std::size_t>::max(), bad, 0, 0.0, true, 1.0}), InvalidInput);
    CHECK_THROWS_AS(count_views({1, bad, std::numeric_limits<std::size_t>::max(), 0.0, true, 1.0}), InvalidInput);
}

TEST_SUITE_END();
