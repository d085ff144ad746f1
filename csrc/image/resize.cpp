#include "deepssim/resize.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "deepssim/exact.hpp"

namespace deepssim {

namespace {

// The inputs first .. first + weights.size() - 1 under one output, with the length each contributes,
// counted in units of 1 / n_out so that all lengths are integers.
struct Span {
    std::size_t first = 0;
    std::vector<double> weights;
};

std::vector<Span> coverage(std::size_t n_in, std::size_t n_out) {
    std::vector<Span> spans(n_out);
    for (std::size_t o = 0; o < n_out; ++o) {
        const std::size_t begin = o * n_in;  // output o covers [begin, begin + n_in) of n_in * n_out units
        const std::size_t end = begin + n_in;
        spans[o].first = begin / n_out;
        for (std::size_t i = begin / n_out; i * n_out < end; ++i) {
            const std::size_t from = std::max(begin, i * n_out);
            const std::size_t to = std::min(end, (i + 1) * n_out);
            spans[o].weights.push_back(static_cast<double>(to - from));
        }
    }
    return spans;
}

}  // namespace

void resize_area(MatrixView image, std::size_t height, std::size_t width, float* out) {
    if (image.rows == 0 || image.cols == 0 || height == 0 || width == 0) {
        throw InvalidInput("cannot resize " + std::to_string(image.rows) + " x " + std::to_string(image.cols) +
                           " pixels to " + std::to_string(height) + " x " + std::to_string(width));
    }
    const FloatEnvironment environment;
    const std::vector<Span> rows = coverage(image.rows, height);
    const std::vector<Span> columns = coverage(image.cols, width);
    const double area = static_cast<double>(image.rows) * static_cast<double>(image.cols);
    std::vector<double> line(image.cols);
    for (std::size_t y = 0; y < height; ++y) {
        std::fill(line.begin(), line.end(), 0.0);
        for (std::size_t i = 0; i < rows[y].weights.size(); ++i) {
            const float* in = image.row(rows[y].first + i);
            const double weight = rows[y].weights[i];
            for (std::size_t x = 0; x < image.cols; ++x) line[x] += weight * static_cast<double>(in[x]);
        }
        for (std::size_t x = 0; x < width; ++x) {
            double sum = 0.0;
            for (std::size_t i = 0; i < columns[x].weights.size(); ++i) {
                sum += columns[x].weights[i] * line[columns[x].first + i];
            }
            out[y * width + x] = static_cast<float>(sum / area);
        }
    }
}

}  // namespace deepssim
