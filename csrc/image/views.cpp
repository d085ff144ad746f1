#include "deepssim/views.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace deepssim {

namespace {

constexpr double kTurn = 6.283185307179586;
constexpr std::size_t kMost = std::size_t{1} << 24;

// The image under one rotation and zoom, with a margin for shifts, and running sums to take means from.
class Canvas {
   public:
    Canvas(MatrixView image, std::size_t margin)
        : image_(image),
          margin_(margin),
          rows_(image.rows + 2 * margin),
          columns_(image.cols + 2 * margin),
          values_(rows_ * columns_),
          inside_(rows_ * columns_),
          sums_((rows_ + 1) * (columns_ + 1)),
          squares_(sums_.size()),
          counts_(sums_.size()) {}

    // An angle is one of the picture: rows are `aspect` columns apart.
    void fill(bool is_mirrored, double angle, double zoom, double aspect) {
        const double cosine = std::cos(angle) / zoom;
        const double sine = std::sin(angle) / zoom;
        const double centre_row = static_cast<double>(image_.rows - 1) / 2.0;
        const double centre_column = static_cast<double>(image_.cols - 1) / 2.0;
        for (std::size_t r = 0; r < rows_; ++r) {
            const double y = static_cast<double>(r) - static_cast<double>(margin_) - centre_row;
            for (std::size_t c = 0; c < columns_; ++c) {
                const double x = static_cast<double>(c) - static_cast<double>(margin_) - centre_column;
                const double across = cosine * x - sine * (aspect * y);
                sample(cosine * y + sine * x / aspect + centre_row, (is_mirrored ? -across : across) + centre_column,
                       r * columns_ + c);
            }
        }
        add_up();
    }

    // The view whose pixel (r, c) is the canvas's pixel (top + r, left + c).
    void cut(std::size_t top, std::size_t left, double least_overlap, float* out) const {
        const std::size_t n = image_.rows * image_.cols;
        const double seen = window(counts_, top, left);
        const double sum = window(sums_, top, left);
        const double spread = window(squares_, top, left) - (seen > 0.0 ? sum * sum / seen : 0.0);
        // What rounding alone leaves of a constant image is not a picture of anything.
        if (seen < least_overlap * static_cast<double>(n) || seen < 2.0 ||
            !(spread > 1e-10 * window(squares_, top, left))) {
            std::fill_n(out, n, 0.0F);
            return;
        }
        const auto mean = static_cast<float>(sum / seen);
        const auto scale = static_cast<float>(1.0 / std::sqrt(spread));
        for (std::size_t r = 0; r < image_.rows; ++r) {
            const std::size_t from = (top + r) * columns_ + left;
            for (std::size_t c = 0; c < image_.cols; ++c) {
                *out++ = (values_[from + c] - mean * inside_[from + c]) * scale;
            }
        }
    }

   private:
    void sample(double row, double column, std::size_t at) {
        values_[at] = inside_[at] = 0.0F;
        const auto last_row = static_cast<double>(image_.rows - 1);
        const auto last_column = static_cast<double>(image_.cols - 1);
        // A turn by a right angle must not lose the border to rounding.
        constexpr double kSlack = 1e-9;
        if (row < -kSlack || column < -kSlack || row > last_row + kSlack || column > last_column + kSlack) return;
        row = std::clamp(row, 0.0, last_row);
        column = std::clamp(column, 0.0, last_column);
        const auto r = static_cast<std::size_t>(row);
        const auto c = static_cast<std::size_t>(column);
        const std::size_t below = std::min(r + 1, image_.rows - 1);
        const std::size_t right = std::min(c + 1, image_.cols - 1);
        const auto down = static_cast<float>(row - static_cast<double>(r));
        const auto over = static_cast<float>(column - static_cast<double>(c));
        const float top = image_.row(r)[c] * (1.0F - over) + image_.row(r)[right] * over;
        const float bottom = image_.row(below)[c] * (1.0F - over) + image_.row(below)[right] * over;
        values_[at] = top * (1.0F - down) + bottom * down;
        inside_[at] = 1.0F;
    }

    // Sums over all pixels above and to the left.
    void add_up() {
        const std::size_t stride = columns_ + 1;
        for (std::size_t r = 0; r < rows_; ++r) {
            double sum = 0.0;
            double square = 0.0;
            double count = 0.0;
            for (std::size_t c = 0; c < columns_; ++c) {
                const auto value = static_cast<double>(values_[r * columns_ + c]);
                sum += value;
                square += value * value;
                count += static_cast<double>(inside_[r * columns_ + c]);
                const std::size_t at = (r + 1) * stride + c + 1;
                sums_[at] = sums_[at - stride] + sum;
                squares_[at] = squares_[at - stride] + square;
                counts_[at] = counts_[at - stride] + count;
            }
        }
    }

    double window(const std::vector<double>& table, std::size_t top, std::size_t left) const {
        const std::size_t stride = columns_ + 1;
        const double* first = table.data() + top * stride + left;
        const double* last = first + image_.rows * stride;
        return (last[image_.cols] - last[0]) - (first[image_.cols] - first[0]);
    }

    MatrixView image_;
    std::size_t margin_;
    std::size_t rows_;
    std::size_t columns_;
    std::vector<float> values_;
    std::vector<float> inside_;
    std::vector<double> sums_;
    std::vector<double> squares_;
    std::vector<double> counts_;
};

void check(MatrixView image, const ViewGrid& grid) {
    if (image.rows == 0 || image.cols == 0) throw InvalidInput("the image has no pixels");
    if (image.rows > kMost / image.cols) throw InvalidInput("the image has more than 16,777,216 pixels");
    for (std::size_t r = 0; r < image.rows; ++r) {
        for (std::size_t c = 0; c < image.cols; ++c) {
            if (!std::isfinite(image.row(r)[c])) {
                throw InvalidInput("image row " + std::to_string(r) + " holds NaN or infinity");
            }
        }
    }
    if (!(grid.aspect > 0.0) || !std::isfinite(grid.aspect)) {
        throw InvalidInput("the aspect of pixels must be positive and finite");
    }
    for (const double zoom : grid.zooms) {
        if (!(zoom > 0.0) || !std::isfinite(zoom)) throw InvalidInput("zooms must be positive and finite");
    }
}

}  // namespace

std::size_t count_views(const ViewGrid& grid) {
    if (grid.n_angles > kMost || grid.zooms.size() > kMost || grid.shift > kMost) {
        throw InvalidInput("more than 16,777,216 views");
    }
    const long double across = 2.0L * static_cast<long double>(grid.shift) + 1.0L;
    const long double n = (grid.with_mirror ? 2.0L : 1.0L) * static_cast<long double>(grid.n_angles) *
                          static_cast<long double>(grid.zooms.size()) * across * across;
    if (n > static_cast<long double>(kMost)) throw InvalidInput("more than 16,777,216 views");
    return static_cast<std::size_t>(n);
}

void make_views(MatrixView image, const ViewGrid& grid, float* out) {
    check(image, grid);
    count_views(grid);
    Canvas canvas(image, grid.shift);
    for (std::size_t mirror = 0; mirror < (grid.with_mirror ? 2U : 1U); ++mirror) {
        for (std::size_t a = 0; a < grid.n_angles; ++a) {
            if (!(grid.aspect > 0.0) || !std::isfinite(grid.aspect)) {
                throw InvalidInput("the aspect of pixels must be positive and finite");
            }
            for (const double zoom : grid.zooms) {
                canvas.fill(mirror == 1, kTurn * static_cast<double>(a) / static_cast<double>(grid.n_angles), zoom,
                            grid.aspect);
                // A shift of +1 moves what is seen down or to the right: the window goes the other way.
                for (std::size_t down = 0; down <= 2 * grid.shift; ++down) {
                    for (std::size_t over = 0; over <= 2 * grid.shift; ++over) {
                        canvas.cut(2 * grid.shift - down, 2 * grid.shift - over, grid.least_overlap, out);
                        out += image.rows * image.cols;
                    }
                }
            }
        }
    }
}

}  // namespace deepssim
