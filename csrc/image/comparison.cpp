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
// Records of the rows' side that stay in the first-level cache while those of columns pass by.
constexpr std::size_t kStripBytes = std::size_t{16} << 10;
// Images of a side whose strips stay in the second-level cache; fewer where images are so large that a block would keep
// a call from ending early.
constexpr std::size_t kBlockImages = 16;
constexpr std::size_t kBlockBytes = std::size_t{32} << 20;
constexpr int kWindowPixels = static_cast<int>(simd::kUniformTaps * simd::kUniformTaps);
constexpr int kWindowPairs = kWindowPixels * (kWindowPixels - 1);
// The units of means and variances of images that are not scaled: any that float32 holds would do, since SSIM does not
// know units, but for whole numbers, to which C1 and C2 would be added with the same error at every window.
constexpr float kMeanUnit = 1.0F / static_cast<float>(kWindowPixels);
constexpr float kVarianceUnit = 1.0F / static_cast<float>(kWindowPairs);

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
        layout_ = is_ssim() ? ByteLayout(height_, width_) : ByteLayout();
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
    if (with_bytes_) bytes += layout_.records() * layout_.record_bytes();
    if (with_wide_) bytes += pixels * 4 * sizeof(double);
    return bytes + 8 * kLine;
}

std::size_t Comparison::block_images() const {
    return std::clamp<std::size_t>(kBlockBytes / term_bytes(), 1, kBlockImages);
}

std::size_t Comparison::byte_state_bytes() const { return layout_.column_bytes() + simd::kPixelLanes * sizeof(double); }

std::size_t Comparison::scratch_bytes() const {
    const std::size_t wide = with_wide_ ? 3 * stride_ * sizeof(double) : 0;
    return std::max(wide, with_bytes_ ? block_images() * block_images() * byte_state_bytes() : 0);
}

ImageTerms Comparison::terms(const ImageStack& stack, std::size_t image, const ImageSummary& summary, Side side,
                             std::byte* memory) const {
    ImageTerms terms;
    terms.summary = summary;
    std::byte* free = memory;
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
            if (with_bytes_ && summary.is_bytes) fill_bytes(stack, image, side, terms, free);
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

void Comparison::fill_bytes(const ImageStack& stack, std::size_t image, Side side, ImageTerms& terms,
                            std::byte*& free) const {
    ByteUnits units{0.0, static_cast<double>(kMeanUnit), kVarianceUnit, 0.0F};
    if (options_.with_z_score) {
        const double scale = scale_of(terms.summary);
        // As byte_job() splits it: an image then has a covariance with itself that is its variance in every bit.
        const TwoFloats factor = split(scale * scale / kWindowPairs);
        units = {terms.summary.mean, scale / kWindowPixels, factor.high, factor.low};
    }
    fill_byte_records(stack, image, layout_, side, units, free);
    terms.records = reinterpret_cast<const std::int32_t*>(free);
    free += layout_.records() * layout_.record_bytes();
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

simd::ByteJob Comparison::byte_job(const ImageTerms& a, const ImageTerms& b, std::byte* state) const {
    const double range = range_of(a.summary);
    TwoFloats factor{kVarianceUnit, 0.0F};
    double mean_unit = kWindowPixels * static_cast<double>(kMeanUnit);
    double variance_unit = kWindowPairs * static_cast<double>(kVarianceUnit);
    if (options_.with_z_score) {
        factor = split(scale_of(a.summary) * scale_of(b.summary) / kWindowPairs);
        mean_unit = variance_unit = 1.0;
    }
    simd::ByteJob job{};
    job.a = a.records;
    job.b = b.records;
    job.rows = layout_.rows();
    job.steps = layout_.steps();
    job.high = factor.high;
    job.low = factor.low;
    job.c1 = static_cast<float>(mean_unit * kK1 * range * mean_unit * kK1 * range);
    job.c2 = static_cast<float>(variance_unit * kK2 * range * kK2 * range);
    job.masks = layout_.masks();
    std::memset(state, 0, byte_state_bytes());
    job.columns = reinterpret_cast<std::int32_t*>(state);
    job.lacks = reinterpret_cast<double*>(state + layout_.column_bytes());
    return job;
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

double Comparison::compare_other(const ImageTerms& a, const ImageTerms& b, std::byte* scratch) const {
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
    return compare_wide(a, b, scratch, nullptr) / static_cast<double>((height_ - taps_ + 1) * (width_ - taps_ + 1));
}

double Comparison::compare(const ImageTerms& a, const ImageTerms& b, std::byte* scratch) const {
    double value = 0.0;
    compare_block({&a, 1}, {&b, 1}, scratch, &value);
    return value;
}

void Comparison::compare_block(std::span<const ImageTerms> rows, std::span<const ImageTerms> columns,
                               std::byte* scratch, double* out) const {
    std::vector<simd::ByteJob> jobs;
    std::vector<double*> results;
    for (const ImageTerms& a : rows) {
        for (const ImageTerms& b : columns) {
            if (with_bytes_ && takes_bytes(a.summary, b.summary)) {
                jobs.push_back(byte_job(a, b, scratch + jobs.size() * byte_state_bytes()));
                results.push_back(out);
            }
            ++out;
        }
    }
    const auto* kernels = options_.kind == Similarity::kSsim ? similarity_->byte_ssim : similarity_->byte_structure;
    const auto kernel = kernels[options_.with_z_score ? 1 : 0];
    const std::size_t n = layout_.records();
    // Strip by strip, so that one of a first image serves all second ones from the first-level cache.
    const std::size_t strip = jobs.size() == 1 ? n : std::max<std::size_t>(1, kStripBytes / layout_.record_bytes());
    for (std::size_t first = 0; first < n && !jobs.empty(); first += strip) {
        for (const simd::ByteJob& job : jobs) kernel(job, first, std::min(n, first + strip));
    }
    const auto windows = static_cast<double>((height_ - taps_ + 1) * (width_ - taps_ + 1));
    for (std::size_t p = 0; p < jobs.size(); ++p) {
        double* lanes = jobs[p].lacks;
        for (std::size_t half = simd::kPixelLanes / 2; half > 0; half /= 2) {
            for (std::size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
        }
        *results[p] = (windows - lanes[0]) / windows;
    }
    out -= rows.size() * columns.size();
    for (const ImageTerms& a : rows) {
        for (const ImageTerms& b : columns) {
            if (!with_bytes_ || !takes_bytes(a.summary, b.summary)) *out = compare_other(a, b, scratch);
            ++out;
        }
    }
}

void Comparison::map(const ImageTerms& a, const ImageTerms& b, std::byte* scratch, double* out) const {
    compare_wide(a, b, scratch, out);
}

}  // namespace deepssim
