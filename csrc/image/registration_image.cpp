#include "image/registration_image.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "deepssim/isa.hpp"
#include "deepssim/resize.hpp"

namespace deepssim {

namespace {

constexpr std::size_t kMaxSide = 4096;
constexpr double kThumbnailSide = 28.0;  // the pyramid goes down to about this width

void check(MatrixView image) {
    if (image.rows == 0 || image.cols == 0) throw InvalidInput("the image is empty; give one with pixels");
    if (image.rows > kMaxSide || image.cols > kMaxSide) {
        throw InvalidInput("the image has " + std::to_string(image.rows) + " x " + std::to_string(image.cols) +
                           " pixels; resize it to at most 4,096 x 4,096");
    }
    for (std::size_t y = 0; y < image.rows; ++y) {
        const float* row = image.row(y);
        for (std::size_t x = 0; x < image.cols; ++x) {
            // Written so that NaN fails too.
            if (!(row[x] >= 0.0F && row[x] <= 1.0F)) {
                throw InvalidInput("pixel (" + std::to_string(y) + ", " + std::to_string(x) +
                                   ") is not in [0, 1]; scale the grey values to [0, 1] and fill in NaN");
            }
        }
    }
}

// Sigma of local normalisation at a level, in its pixels: 2 and 3 at widths of 28 and 56, else 5 at 112.
double local_sigma(std::size_t levels_below, double width) {
    if (levels_below == 0) return 2.0 * width / 28.0;
    if (levels_below == 1) return 3.0 * width / 56.0;
    return 5.0 * width / kReferenceWidth;
}

// A line of ones under boxes one after the other, zeros outside.
std::vector<float> smoothed_ones(int n, std::span<const simd::Box> boxes) {
    std::vector<float> line(static_cast<std::size_t>(n), 1.0F);
    for (const simd::Box& box : boxes) {
        const std::vector<float> before = line;
        const auto at = [&](int i) { return i < 0 || i >= n ? 0.0F : before[static_cast<std::size_t>(i)]; };
        for (int i = 0; i < n; ++i) {
            float sum = (at(i - box.radius - 1) + at(i + box.radius + 1)) * box.edge;
            for (int k = -box.radius; k <= box.radius; ++k) sum += at(i + k);
            line[static_cast<std::size_t>(i)] = sum * box.scale;
        }
    }
    return line;
}

class Normaliser {
   public:
    explicit Normaliser(const simd::AlignKernels& kernels) : kernels_(kernels), smoother_(kernels) {}

    void run(const Plane& image, double sigma, Plane& out) {
        const std::vector<simd::Box> boxes = gaussian_boxes(sigma);
        smoother_.run(image, nullptr, boxes, sums_);
        smoother_.run(image, &image, boxes, squares_);
        fill_weights(image, boxes);
        out.reset(image.rows, image.cols);
        kernels_.local_norm({image.pixels.data(), sums_.pixels.data(), squares_.pixels.data(), weights_.pixels.data(),
                             nullptr, static_cast<float>(kLocalFloor * kLocalFloor), image.padded_size(),
                             out.pixels.data()});
    }

   private:
    // What smoothing leaves of an image of ones: one factor for the row, one for the column.
    void fill_weights(const Plane& image, std::span<const simd::Box> boxes) {
        const std::vector<float> rows = smoothed_ones(image.rows, boxes);
        const std::vector<float> columns = smoothed_ones(image.cols, boxes);
        weights_.reset(image.rows, image.cols);
        for (int y = 0; y < image.rows; ++y) {
            const float factor = rows[static_cast<std::size_t>(y)];
            float* out = weights_.row(y);
            for (const float other : columns) *out++ = factor * other;
        }
    }

    const simd::AlignKernels& kernels_;
    Smoother smoother_;
    Plane sums_;
    Plane squares_;
    Plane weights_;
};

Plane shrunk(MatrixView image, std::size_t rows, std::size_t cols) {
    Plane out(static_cast<int>(rows), static_cast<int>(cols));
    if (rows == image.rows && cols == image.cols) {
        for (std::size_t y = 0; y < rows; ++y) std::copy_n(image.row(y), cols, out.row(static_cast<int>(y)));
        return out;
    }
    if (rows * 2 == image.rows && cols * 2 == image.cols) {
        for (std::size_t y = 0; y < rows; ++y) {
            const float* above = image.row(2 * y);
            const float* below = image.row(2 * y + 1);
            float* to = out.row(static_cast<int>(y));
            for (std::size_t x = 0; x < cols; ++x) {
                to[x] = ((above[2 * x] + above[2 * x + 1]) + (below[2 * x] + below[2 * x + 1])) * 0.25F;
            }
        }
        return out;
    }
    std::vector<float> packed(rows * cols);
    resize_area(image, rows, cols, packed.data());
    for (std::size_t y = 0; y < rows; ++y) {
        std::copy_n(packed.data() + y * cols, cols, out.row(static_cast<int>(y)));
    }
    return out;
}

}  // namespace

std::vector<simd::Box> gaussian_boxes(double sigma) {
    constexpr int kPasses = 3;
    const double variance = sigma * sigma / kPasses;
    const int r = static_cast<int>(std::floor((std::sqrt(12.0 * variance + 1.0) - 1.0) / 2.0));
    const double edge = (2.0 * r + 1.0) * (r * (r + 1.0) - 3.0 * variance) / (6.0 * (variance - (r + 1.0) * (r + 1.0)));
    const simd::Box box{r, static_cast<float>(edge), static_cast<float>(1.0 / (2.0 * r + 1.0 + 2.0 * edge))};
    return std::vector<simd::Box>(kPasses, box);
}

simd::Box window_box(int radius) { return {radius, 0.0F, static_cast<float>(1.0 / (2.0 * radius + 1.0))}; }

void Smoother::run(const Plane& in, const Plane* times, std::span<const simd::Box> boxes, Plane& out) {
    int margin = 1;
    for (const simd::Box& box : boxes) margin = std::max(margin, box.radius + 1);
    turned_.reset(in.cols, in.rows);
    out.reset(in.rows, in.cols);
    const std::size_t longest =
        static_cast<std::size_t>(std::max(turned_.stride, in.stride) + std::ptrdiff_t{2} * margin);
    scratch_.resize(2 * longest * simd::kAlignPadding);
    kernels_.smooth({in.pixels.data(), times == nullptr ? nullptr : times->pixels.data(), in.stride, in.rows, in.cols,
                     boxes.data(), static_cast<int>(boxes.size()), turned_.pixels.data(), turned_.stride,
                     scratch_.data()});
    kernels_.smooth({turned_.pixels.data(), nullptr, turned_.stride, turned_.rows, turned_.cols, boxes.data(),
                     static_cast<int>(boxes.size()), out.pixels.data(), out.stride, scratch_.data()});
}

RegistrationImage::RegistrationImage(MatrixView image, std::string_view isa) {
    check(image);
    const simd::AlignKernels& kernels = simd::align_kernels_for(resolve_isa(isa).c_str());
    auto parts = std::make_unique<Parts>();
    const double side = static_cast<double>(image.cols);
    const double halvings = std::clamp(std::round(std::log2(side / kThumbnailSide)), 0.0, 7.0);
    const auto n_levels = static_cast<std::size_t>(halvings) + 1;
    const double above = std::round(std::log2(side / kReferenceWidth));
    parts->evidence_level = std::min(n_levels - 1, static_cast<std::size_t>(std::max(0.0, above)));
    Normaliser normaliser(kernels);
    MatrixView source = image;
    Plane grey;
    for (std::size_t level = 0; level < n_levels; ++level) {
        const double divisor = std::exp2(static_cast<double>(level));
        const auto rows =
            static_cast<std::size_t>(std::max(1.0, std::round(static_cast<double>(image.rows) / divisor)));
        const auto cols = static_cast<std::size_t>(std::max(1.0, std::round(side / divisor)));
        if (level > 0 && level - 1 == parts->evidence_level) parts->grey = grey;
        Plane smaller = level == 0 ? shrunk(image, rows, cols) : shrunk(source, rows, cols);
        grey = std::move(smaller);
        source = {grey.pixels.data(), rows, cols, grey.stride};
        Level made;
        made.factor_rows = static_cast<double>(image.rows) / static_cast<double>(rows);
        made.factor_columns = side / static_cast<double>(cols);
        normaliser.run(grey, local_sigma(n_levels - 1 - level, static_cast<double>(cols)), made.normalised);
        parts->levels.push_back(std::move(made));
    }
    if (parts->evidence_level + 1 == n_levels) parts->grey = std::move(grey);
    parts_ = std::move(parts);
}

RegistrationImage::~RegistrationImage() = default;
RegistrationImage::RegistrationImage(RegistrationImage&&) noexcept = default;
RegistrationImage& RegistrationImage::operator=(RegistrationImage&&) noexcept = default;

std::size_t RegistrationImage::rows() const { return static_cast<std::size_t>(parts_->levels.front().normalised.rows); }
std::size_t RegistrationImage::cols() const { return static_cast<std::size_t>(parts_->levels.front().normalised.cols); }
std::size_t RegistrationImage::bytes() const {
    std::size_t floats = parts_->grey.pixels.size();
    for (const Level& level : parts_->levels) floats += level.normalised.pixels.size();
    return floats * sizeof(float);
}

}  // namespace deepssim
