#include "image/comparison.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "deepssim/isa.hpp"
#include "image/fsim.hpp"

namespace deepssim {

namespace {

constexpr double kK1 = 0.01;
constexpr double kK2 = 0.03;
constexpr double kGaussianSigma = 1.5;
constexpr std::size_t kLine = 64;
constexpr int kByteCentre = 128;
constexpr int kWindowPixels = static_cast<int>(simd::kUniformTaps * simd::kUniformTaps);

// Ranges between which (C1 C2)^2 and the squares of 8-bit windows stay well inside float32.
constexpr double kLeastByteRange = 3e-3;
constexpr double kMostByteRange = 1e5;
// Beyond them squares of squares leave float64.
constexpr double kLeastRange = 1e-30;
constexpr double kMostRange = 1e30;

std::size_t whole_lines(std::size_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

template <class T>
T* take(std::byte*& free, std::size_t n) {
    auto* taken = reinterpret_cast<T*>(free);
    const std::size_t bytes = whole_lines(n * sizeof(T));
    std::memset(free, 0, bytes);
    free += bytes;
    return taken;
}

std::string size_of(const ImageStack& stack) {
    return std::to_string(stack.height) + " x " + std::to_string(stack.width);
}

std::string image_of(const ImageStack& stack, std::size_t i) {
    return stack.n == 1 ? stack.name : stack.name + " image " + std::to_string(i);
}

std::array<double, simd::kMaxTaps> window_weights(SsimWindow window, std::size_t taps) {
    std::array<double, simd::kMaxTaps> weights{};
    double sum = 0.0;
    const std::size_t half = taps / 2;
    const auto middle = static_cast<double>(half);
    for (std::size_t k = 0; k < taps; ++k) {
        const double z = (static_cast<double>(k) - middle) / kGaussianSigma;
        weights[k] = window == SsimWindow::kUniform ? 1.0 : std::exp(-0.5 * z * z);
        sum += weights[k];
    }
    for (std::size_t k = 0; k < taps; ++k) weights[k] /= sum;
    return weights;
}

// The high and the low part of a float64, each a float32.
struct TwoFloats {
    float high;
    float low;
};
TwoFloats split(double value) {
    const auto high = static_cast<float>(value);
    return {high, static_cast<float>(value - static_cast<double>(high))};
}

}  // namespace

std::size_t ssim_radius(SsimWindow window) {
    return (window == SsimWindow::kUniform ? simd::kUniformTaps : simd::kMaxTaps) / 2;
}

Comparison::Comparison(const ImageStack& first, const ImageStack& second, const SimilarityOptions& options)
    : options_(options), height_(first.height), width_(first.width) {
    if (first.height != second.height || first.width != second.width) {
        throw InvalidInput(first.name + " is " + size_of(first) + " pixels and " + second.name + " " + size_of(second) +
                           "; resize one to the other first, for example with resize_area");
    }
    taps_ = 2 * ssim_radius(options.window) + 1;
    const std::size_t least = is_ssim() ? taps_ : options.kind == Similarity::kFsim ? 2 : 1;
    if (height_ < least || width_ < least) {
        throw InvalidInput("images of " + size_of(first) + " pixels are too small; at least " + std::to_string(least) +
                           " x " + std::to_string(least) + " are needed");
    }
    if (height_ > kMaxDim || width_ > kMaxDim) throw InvalidInput("images of over 65,536 pixels a side are refused");
    if (options.data_range != 0.0 && !(options.data_range >= kLeastRange && options.data_range <= kMostRange)) {
        throw InvalidInput(
            "data_range must be between 1e-30 and 1e30; give the range of the pixel values, such as 255");
    }
    const std::string level = resolve_isa(options.isa);
    kernels_ = &simd::kernels_for(level.c_str());
    similarity_ = &simd::similarity_kernels_for(level.c_str());
    stride_ = (width_ + simd::kRowMultiple - 1) / simd::kRowMultiple * simd::kRowMultiple;
    weights_ = window_weights(options.window, taps_);
    if (options.window == SsimWindow::kUniform) {
        covariance_norm_ = static_cast<double>(kWindowPixels) / static_cast<double>(kWindowPixels - 1);
    }
}

bool Comparison::is_ssim() const {
    return options_.kind == Similarity::kSsim || options_.kind == Similarity::kContrastStructure;
}

double Comparison::scale_of(const ImageSummary& summary) const {
    if (!options_.with_z_score) return 1.0;
    return summary.deviation > 0.0 ? 1.0 / summary.deviation : 0.0;
}

double Comparison::range_of(const ImageSummary& first) const {
    return options_.data_range > 0.0 ? options_.data_range : (first.most - first.least) * scale_of(first);
}

bool Comparison::takes_bytes(const ImageSummary& a, const ImageSummary& b) const {
    const double range = range_of(a);
    return options_.window == SsimWindow::kUniform && a.is_bytes && b.is_bytes && range >= kLeastByteRange &&
           range <= kMostByteRange;
}

void Comparison::accept(const ImageStack& first, const std::vector<ImageSummary>& of_first, const ImageStack& second,
                        const std::vector<ImageSummary>& of_second) {
    const auto check = [this](const ImageStack& stack, const std::vector<ImageSummary>& summaries) {
        for (std::size_t i = 0; i < summaries.size(); ++i) {
            if (!summaries[i].is_finite) throw InvalidInput(image_of(stack, i) + " holds NaN or infinity");
            const double most = std::max(std::fabs(summaries[i].least), std::fabs(summaries[i].most));
            if (options_.kind == Similarity::kFsim && most > kMostFsimGrey) {
                throw InvalidInput(image_of(stack, i) + " holds values beyond 1e6; FSIM is defined on 0 to 255");
            }
        }
    };
    check(first, of_first);
    check(second, of_second);
    if (!is_ssim()) return;
    for (std::size_t i = 0; i < of_first.size(); ++i) {
        const double range = range_of(of_first[i]);
        if (range == 0.0) {
            throw InvalidInput(image_of(first, i) + " is constant, so its range is 0; give data_range or leave it out");
        }
        if (range < kLeastRange || range > kMostRange) {
            throw InvalidInput(image_of(first, i) + " has a range outside 1e-30 to 1e30; give data_range");
        }
    }
    const auto is_bytes = [](const ImageSummary& summary) { return summary.is_bytes; };
    const auto in_range = [this](const ImageSummary& a) { return takes_bytes(a, a); };
    const bool all = std::all_of(of_second.begin(), of_second.end(), is_bytes) &&
                     std::all_of(of_first.begin(), of_first.end(), in_range);
    with_wide_ = with_wide_ || !all;
    with_bytes_ = std::any_of(of_first.begin(), of_first.end(), in_range) &&
                  std::any_of(of_second.begin(), of_second.end(), is_bytes);
}

std::size_t Comparison::term_bytes() const {
    const std::size_t pixels = height_ * stride_;
    if (options_.kind == Similarity::kNcc) return whole_lines(height_ * width_ * sizeof(float));
    if (options_.kind == Similarity::kFsim) {
        return 2 * whole_lines((height_ * width_ + simd::kRowMultiple) * sizeof(float));
    }
    std::size_t bytes = 0;
    if (with_bytes_) bytes += pixels * (sizeof(std::int16_t) + sizeof(std::int32_t) + 2 * sizeof(float));
    if (with_wide_) bytes += pixels * 4 * sizeof(double);
    return bytes + 8 * kLine;
}

std::size_t Comparison::scratch_bytes() const {
    return std::max(2 * (stride_ + simd::kRowMultiple) * sizeof(std::int32_t), 3 * stride_ * sizeof(double));
}

ImageTerms Comparison::terms(const ImageStack& stack, std::size_t image, const ImageSummary& summary) const {
    ImageTerms terms;
    terms.memory = make_buffer(term_bytes());
    terms.summary = summary;
    std::byte* free = terms.memory.get();
    const std::size_t n = (height_ * width_ + simd::kRowMultiple - 1) / simd::kRowMultiple * simd::kRowMultiple;
    switch (options_.kind) {
        case Similarity::kFsim: {
            auto* edges = take<float>(free, n);
            auto* slopes = take<float>(free, n);
            fsim_maps(stack, image, edges, slopes);
            terms.edges = edges;
            terms.slopes = slopes;
            break;
        }
        case Similarity::kNcc:
            fill_unit(stack, image, terms, free);
            break;
        case Similarity::kSsim:
        case Similarity::kContrastStructure:
            if (with_bytes_ && summary.is_bytes) fill_bytes(stack, image, terms, free);
            if (with_wide_) fill_wide(stack, image, terms, free);
            break;
    }
    return terms;
}

void Comparison::fill_unit(const ImageStack& stack, std::size_t image, ImageTerms& terms, std::byte*& free) const {
    const ImageSummary& summary = terms.summary;
    auto* unit = take<float>(free, height_ * width_);
    terms.unit = unit;
    if (summary.deviation == 0.0) return;
    const double norm = summary.deviation * std::sqrt(static_cast<double>(height_) * static_cast<double>(width_));
    std::vector<double> row(width_);
    for (std::size_t y = 0; y < height_; ++y) {
        read_row(stack, image, y, row.data());
        for (std::size_t x = 0; x < width_; ++x) {
            unit[y * width_ + x] = static_cast<float>((row[x] - summary.mean) / norm);
        }
    }
}

void Comparison::fill_bytes(const ImageStack& stack, std::size_t image, ImageTerms& terms, std::byte*& free) const {
    constexpr std::size_t kTaps = simd::kUniformTaps;
    auto* pixels = take<std::int16_t>(free, height_ * stride_);
    auto* sums = take<std::int32_t>(free, height_ * stride_);
    auto* means = take<float>(free, height_ * stride_);
    auto* variances = take<float>(free, height_ * stride_);
    std::vector<double> row(width_);
    for (std::size_t y = 0; y < height_; ++y) {
        read_row(stack, image, y, row.data());
        for (std::size_t x = 0; x < width_; ++x) {
            pixels[y * stride_ + x] = static_cast<std::int16_t>(static_cast<int>(row[x]) - kByteCentre);
        }
    }
    const double scale = scale_of(terms.summary);
    const double shift = (options_.with_z_score ? terms.summary.mean : 0.0) - kByteCentre;
    // As compare_bytes() splits it: an image then has a covariance with itself that is its variance in every bit.
    const TwoFloats factor = split(scale * scale / (kWindowPixels * (kWindowPixels - 1)));
    std::vector<std::int32_t> columns(width_);
    std::vector<std::int32_t> squares(width_);
    for (std::size_t y = 0; y + kTaps <= height_; ++y) {
        for (std::size_t x = 0; x < width_; ++x) {
            columns[x] = squares[x] = 0;
            for (std::size_t k = 0; k < kTaps; ++k) {
                const int pixel = pixels[(y + k) * stride_ + x];
                columns[x] += pixel;
                squares[x] += pixel * pixel;
            }
        }
        for (std::size_t x = 0; x + kTaps <= width_; ++x) {
            std::int32_t sum = 0;
            std::int32_t square = 0;
            for (std::size_t k = 0; k < kTaps; ++k) {
                sum += columns[x + k];
                square += squares[x + k];
            }
            const std::size_t at = y * stride_ + x;
            sums[at] = sum;
            means[at] = static_cast<float>((sum - kWindowPixels * shift) / kWindowPixels * scale);
            const auto whole = static_cast<float>(kWindowPixels * square - sum * sum);
            variances[at] = whole * factor.high + whole * factor.low;
        }
    }
    terms.bytes = {pixels, sums, means, variances};
}

void Comparison::fill_wide(const ImageStack& stack, std::size_t image, ImageTerms& terms, std::byte*& free) const {
    const std::size_t n = height_ * stride_;
    auto* pixels = take<double>(free, n);
    auto* centred = take<double>(free, n);
    auto* means = take<double>(free, n);
    auto* variances = take<double>(free, n);
    std::vector<double> line(stride_);
    const double scale = scale_of(terms.summary);
    for (std::size_t y = 0; y < height_; ++y) {
        read_row(stack, image, y, line.data());
        for (std::size_t x = 0; x < width_; ++x) pixels[y * stride_ + x] = (line[x] - terms.summary.mean) * scale;
    }
    similarity_->smooth(pixels, nullptr, height_, width_, stride_, taps_, weights_.data(), line.data(), centred);
    similarity_->smooth(pixels, pixels, height_, width_, stride_, taps_, weights_.data(), line.data(), variances);
    const double mean = options_.with_z_score ? 0.0 : terms.summary.mean;
    for (std::size_t i = 0; i < n; ++i) {
        means[i] = centred[i] + mean;
        variances[i] = covariance_norm_ * (variances[i] - centred[i] * centred[i]);
    }
    terms.wide = {pixels, centred, means, variances};
}

double Comparison::compare_bytes(const ImageTerms& a, const ImageTerms& b, std::byte* scratch) const {
    const double range = range_of(a.summary);
    const double pairs = kWindowPixels * (kWindowPixels - 1);
    const TwoFloats factor = split(scale_of(a.summary) * scale_of(b.summary) / pairs);
    simd::ByteJob job{};
    job.a = a.bytes;
    job.b = b.bytes;
    job.height = height_;
    job.width = width_;
    job.stride = stride_;
    job.twice_high = 2.0F * factor.high;
    job.twice_low = 2.0F * factor.low;
    job.c1 = static_cast<float>(kK1 * range * kK1 * range);
    job.c2 = static_cast<float>(kK2 * range * kK2 * range);
    job.columns = reinterpret_cast<std::int32_t*>(scratch);
    return options_.kind == Similarity::kSsim ? similarity_->byte_ssim(job) : similarity_->byte_structure(job);
}

double Comparison::compare_wide(const ImageTerms& a, const ImageTerms& b, std::byte* scratch, double* map) const {
    const double range = range_of(a.summary);
    simd::WideJob job{};
    job.a = a.wide;
    job.b = b.wide;
    job.height = height_;
    job.width = width_;
    job.stride = stride_;
    job.taps = taps_;
    job.weights = weights_.data();
    job.covariance_norm = covariance_norm_;
    job.c1 = kK1 * range * kK1 * range;
    job.c2 = kK2 * range * kK2 * range;
    job.scratch = reinterpret_cast<double*>(scratch);
    job.map = map;
    return options_.kind == Similarity::kSsim ? similarity_->wide_ssim(job) : similarity_->wide_structure(job);
}

double Comparison::compare(const ImageTerms& a, const ImageTerms& b, std::byte* scratch) const {
    if (options_.kind == Similarity::kNcc) {
        return std::clamp(kernels_->inner(a.unit, b.unit, height_ * width_), -1.0, 1.0);
    }
    if (options_.kind == Similarity::kFsim) {
        const std::size_t n = (height_ * width_ + simd::kRowMultiple - 1) / simd::kRowMultiple * simd::kRowMultiple;
        double over = 0.0;
        double under = 0.0;
        similarity_->fsim_sums(a.edges, a.slopes, b.edges, b.slopes, n, &over, &under);
        return under == 0.0 ? 0.0 : over / under;
    }
    const auto windows = static_cast<double>((height_ - taps_ + 1) * (width_ - taps_ + 1));
    const double sum =
        takes_bytes(a.summary, b.summary) ? compare_bytes(a, b, scratch) : compare_wide(a, b, scratch, nullptr);
    return sum / windows;
}

void Comparison::map(const ImageTerms& a, const ImageTerms& b, std::byte* scratch, double* out) const {
    compare_wide(a, b, scratch, out);
}

}  // namespace deepssim
