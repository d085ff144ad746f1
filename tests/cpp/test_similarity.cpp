// SSIM, FSIM and correlation against the definitions in float64; the same bits whatever the level, threads and batch.
#include "deepssim/similarity.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "deepssim/types.hpp"
#include "oracle.hpp"

namespace deepssim {

namespace {

using testing::below;
using testing::Rng;
using testing::uniform;

// Images of one size, dense, held as float32; whole numbers from 0 to 255 go to the core as either type.
struct Images {
    std::size_t n = 0;
    std::size_t height = 0;
    std::size_t width = 0;
    std::vector<float> pixels;
    std::vector<std::uint8_t> bytes;

    Images(std::size_t count, std::size_t rows, std::size_t cols)
        : n(count), height(rows), width(cols), pixels(count * rows * cols) {}

    double at(std::size_t image, std::size_t y, std::size_t x) const {
        return static_cast<double>(pixels[(image * height + y) * width + x]);
    }
    ImageStack floats() const { return stack(pixels.data(), PixelType::kFloat32, sizeof(float)); }
    ImageStack as_bytes() {
        bytes.resize(pixels.size());
        std::transform(pixels.begin(), pixels.end(), bytes.begin(),
                       [](float v) { return static_cast<std::uint8_t>(v); });
        return stack(bytes.data(), PixelType::kUint8, 1);
    }

   private:
    ImageStack stack(const void* data, PixelType type, std::size_t item) const {
        const auto row = static_cast<std::ptrdiff_t>(width * item);
        return {data, type, n, height, width, row * static_cast<std::ptrdiff_t>(height), row, "images"};
    }
};

enum class Kind : std::uint8_t {
    kNoise,      // any byte
    kSmooth,     // waves with a little noise on a black ground, alike from image to image
    kExtremes,   // 0 and 255 alone
    kFlat,       // one grey value each
    kFractions,  // float32 that no byte holds
    kOffset,     // fractions about 1e4
};
constexpr std::array kByteKinds = {Kind::kNoise, Kind::kSmooth, Kind::kExtremes, Kind::kFlat};
constexpr std::array kAllKinds = {Kind::kNoise, Kind::kSmooth,    Kind::kExtremes,
                                  Kind::kFlat,  Kind::kFractions, Kind::kOffset};

double grey(Kind kind, Rng& rng, std::size_t image, std::size_t y, std::size_t x) {
    const auto i = static_cast<double>(image);
    switch (kind) {
        case Kind::kNoise:
            return static_cast<double>(below(rng, 256));
        case Kind::kSmooth: {
            const double wave = std::sin(0.3 * static_cast<double>(x) + i) * std::cos(0.2 * static_cast<double>(y));
            return wave < 0.0 ? 0.0 : std::floor(200.0 * wave + 20.0 * (uniform(rng) + 1.0));
        }
        case Kind::kExtremes:
            return 255.0 * static_cast<double>(below(rng, 2));
        case Kind::kFlat:
            return std::floor(37.0 * i);
        case Kind::kFractions:
            return 100.0 * uniform(rng);
        case Kind::kOffset:
            break;
    }
    return 1e4 + 100.0 * uniform(rng);
}

Images make_images(Kind kind, std::size_t n, std::size_t height, std::size_t width) {
    Rng rng(height * 1000 + width);
    Images images(n, height, width);
    std::size_t at = 0;
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t y = 0; y < height; ++y) {
            for (std::size_t x = 0; x < width; ++x) images.pixels[at++] = static_cast<float>(grey(kind, rng, i, y, x));
        }
    }
    return images;
}

using Pixels = std::vector<double>;

Pixels pixels_of(const Images& images, std::size_t image, bool with_z_score) {
    Pixels out;
    for (std::size_t y = 0; y < images.height; ++y) {
        for (std::size_t x = 0; x < images.width; ++x) out.push_back(images.at(image, y, x));
    }
    if (!with_z_score) return out;
    const auto n = static_cast<double>(out.size());
    double mean = 0.0;
    for (const double v : out) mean += v / n;
    double variance = 0.0;
    for (const double v : out) variance += (v - mean) * (v - mean) / n;
    const bool is_flat = std::all_of(out.begin(), out.end(), [&](double v) { return v == out[0]; });
    for (double& v : out) v = is_flat ? 0.0 : (v - mean) / std::sqrt(variance);
    return out;
}

// The weights of a square window, row-major, and what turns a population covariance into the one that is used.
struct Window {
    std::size_t taps = 7;
    double norm = 49.0 / 48.0;
    std::vector<double> weights = std::vector<double>(49, 1.0 / 49.0);
};

Window make_window(SsimWindow kind) {
    Window window;
    if (kind == SsimWindow::kUniform) return window;
    window = {11, 1.0, {}};
    double sum = 0.0;
    for (int y = -5; y <= 5; ++y) {
        for (int x = -5; x <= 5; ++x) {
            window.weights.push_back(std::exp(-0.5 * (x * x + y * y) / (1.5 * 1.5)));
            sum += window.weights.back();
        }
    }
    for (double& weight : window.weights) weight /= sum;
    return window;
}

// Wang 2004, equation 13, at each place of the window: means first, then central moments.
std::vector<double> oracle_map(const Pixels& a, const Pixels& b, std::size_t height, std::size_t width, double range,
                               SsimWindow kind, bool has_luminance) {
    const Window window = make_window(kind);
    const double c1 = 0.01 * range * 0.01 * range;
    const double c2 = 0.03 * range * 0.03 * range;
    std::vector<double> map;
    for (std::size_t y = 0; y + window.taps <= height; ++y) {
        for (std::size_t x = 0; x + window.taps <= width; ++x) {
            const auto mean_of = [&](const auto& value) {
                double sum = 0.0;
                for (std::size_t k = 0; k < window.weights.size(); ++k) {
                    sum += window.weights[k] * value((y + k / window.taps) * width + x + k % window.taps);
                }
                return sum;
            };
            const double ma = mean_of([&](std::size_t i) { return a[i]; });
            const double mb = mean_of([&](std::size_t i) { return b[i]; });
            const double va = window.norm * mean_of([&](std::size_t i) { return (a[i] - ma) * (a[i] - ma); });
            const double vb = window.norm * mean_of([&](std::size_t i) { return (b[i] - mb) * (b[i] - mb); });
            const double ab = window.norm * mean_of([&](std::size_t i) { return (a[i] - ma) * (b[i] - mb); });
            const double structure = (2.0 * ab + c2) / (va + vb + c2);
            const double luminance = has_luminance ? (2.0 * ma * mb + c1) / (ma * ma + mb * mb + c1) : 1.0;
            map.push_back(structure * luminance);
        }
    }
    return map;
}

double mean_of(const std::vector<double>& values) {
    double sum = 0.0;
    for (const double v : values) sum += v;
    return sum / static_cast<double>(values.size());
}

double range_of(const Pixels& a) {
    const auto [least, most] = std::minmax_element(a.begin(), a.end());
    return *most - *least;
}

double oracle_ssim(const Images& images, std::size_t i, std::size_t j, const SimilarityOptions& options) {
    const Pixels a = pixels_of(images, i, options.with_z_score);
    const Pixels b = pixels_of(images, j, options.with_z_score);
    const double range = options.data_range > 0.0 ? options.data_range : range_of(a);
    return mean_of(
        oracle_map(a, b, images.height, images.width, range, options.window, options.kind == Similarity::kSsim));
}

double oracle_ncc(const Images& images, std::size_t i, std::size_t j) {
    const Pixels a = pixels_of(images, i, true);
    const Pixels b = pixels_of(images, j, true);
    double sum = 0.0;
    for (std::size_t p = 0; p < a.size(); ++p) sum += a[p] * b[p];
    return sum / static_cast<double>(a.size());
}

// Gradient of central differences over its maximum, one-sided at the edges, and Sobel's, reflected about the edges.
struct Gradients {
    Pixels edges;
    Pixels slopes;
};

Gradients oracle_gradients(const Images& images, std::size_t image) {
    const auto height = static_cast<std::ptrdiff_t>(images.height);
    const auto width = static_cast<std::ptrdiff_t>(images.width);
    const auto reflected = [](std::ptrdiff_t i, std::ptrdiff_t n) { return i < 0 ? -i : i < n ? i : 2 * n - 2 - i; };
    const auto at = [&](std::ptrdiff_t y, std::ptrdiff_t x) {
        return images.at(image, static_cast<std::size_t>(reflected(y, height)),
                         static_cast<std::size_t>(reflected(x, width)));
    };
    Gradients found;
    for (std::ptrdiff_t y = 0; y < height; ++y) {
        for (std::ptrdiff_t x = 0; x < width; ++x) {
            const std::ptrdiff_t up = std::max<std::ptrdiff_t>(y - 1, 0);
            const std::ptrdiff_t down = std::min(y + 1, height - 1);
            const std::ptrdiff_t left = std::max<std::ptrdiff_t>(x - 1, 0);
            const std::ptrdiff_t right = std::min(x + 1, width - 1);
            found.edges.push_back(std::hypot((at(down, x) - at(up, x)) / static_cast<double>(down - up),
                                             (at(y, right) - at(y, left)) / static_cast<double>(right - left)));
            double across = 0.0;
            double along = 0.0;
            for (int k = -1; k <= 1; ++k) {
                const double weight = k == 0 ? 2.0 : 1.0;
                across += weight * (at(y + k, x + 1) - at(y + k, x - 1));
                along += weight * (at(y + 1, x + k) - at(y - 1, x + k));
            }
            found.slopes.push_back(std::hypot(across, along));
        }
    }
    const double most = *std::max_element(found.edges.begin(), found.edges.end());
    for (double& edge : found.edges) edge = most > 0.0 ? edge / most : 0.0;
    return found;
}

double oracle_fsim(const Images& images, std::size_t i, std::size_t j) {
    const Gradients a = oracle_gradients(images, i);
    const Gradients b = oracle_gradients(images, j);
    double over = 0.0;
    double under = 0.0;
    for (std::size_t p = 0; p < a.edges.size(); ++p) {
        const auto alike = [](double u, double v, double c) { return (2.0 * u * v + c) / (u * u + v * v + c); };
        const double weight = std::max(a.edges[p], b.edges[p]);
        over += weight * alike(a.edges[p], b.edges[p], 0.85) * alike(a.slopes[p], b.slopes[p], 160.0);
        under += weight;
    }
    return under == 0.0 ? 0.0 : over / under;
}

SimilarityOptions make_options(Similarity kind, double data_range = 255.0) {
    SimilarityOptions options;
    options.kind = kind;
    options.data_range = data_range;
    options.threads = 1;
    return options;
}

std::vector<double> matrix(const ImageStack& a, const ImageStack& b, const SimilarityOptions& options) {
    std::vector<double> out(a.n * b.n, std::numeric_limits<double>::quiet_NaN());
    SimilarityOutput target;
    target.doubles = out.data();
    target.row_stride = b.n;
    similarity_matrix(a, b, options, target, nullptr, {});
    return out;
}

std::vector<double> pairs(const ImageStack& a, const ImageStack& b, const std::vector<ImagePair>& wanted,
                          const SimilarityOptions& options) {
    std::vector<double> out(wanted.size(), std::numeric_limits<double>::quiet_NaN());
    similarity_pairs(a, b, wanted, options, out.data(), nullptr, {});
    return out;
}

constexpr std::array kSsimKinds = {Similarity::kSsim, Similarity::kContrastStructure};
constexpr std::array kKinds = {Similarity::kSsim, Similarity::kContrastStructure, Similarity::kFsim, Similarity::kNcc};
// Round the lanes and the windows; 6 more than a multiple of the lanes is that many windows of seven.
constexpr std::size_t kWidths[] = {7, 8, 9, 13, 15, 16, 17, 21, 22, 23, 31, 32, 33, 37, 38, 39, 54, 63, 64, 65, 118};
constexpr std::size_t kHeights[] = {7, 8, 9, 15, 16, 17, 31, 33};

void check_ssim(const Images& images, const ImageStack& stack, const SimilarityOptions& options, double error) {
    const std::vector<double> got = matrix(stack, stack, options);
    for (std::size_t i = 0; i < images.n; ++i) {
        for (std::size_t j = 0; j < images.n; ++j) {
            CAPTURE(options.data_range);
            CAPTURE(images.height);
            CAPTURE(images.width);
            CAPTURE(i);
            CAPTURE(j);
            CHECK(std::fabs(got[i * images.n + j] - oracle_ssim(images, i, j, options)) <= error);
        }
    }
}

// Whatever compares them, and however many at a time: more images than a block holds, and a rest.
void check_same_bits(const Images& images) {
    const std::size_t n = images.n;
    for (const Similarity of : kKinds) {
        SimilarityOptions options = make_options(of);
        options.with_z_score = images.width == 38;
        options.isa = "portable";
        const std::vector<double> expected = matrix(images.floats(), images.floats(), options);
        for (const std::string& level : testing::levels()) {
            options.isa = level;
            options.threads = 3;
            CAPTURE(level);
            CHECK(matrix(images.floats(), images.floats(), options) == expected);
        }
        options.threads = 2;
        std::vector<ImagePair> wanted;
        std::vector<double> of_pairs;
        Rng rng(images.width);
        for (int p = 0; p < 50; ++p) {
            const std::size_t i = below(rng, n);
            const std::size_t j = below(rng, n);
            wanted.push_back({static_cast<std::int64_t>(i), static_cast<std::int64_t>(j)});
            of_pairs.push_back(expected[i * n + j]);
        }
        CHECK(pairs(images.floats(), images.floats(), wanted, options) == of_pairs);
    }
}

}  // namespace

TEST_SUITE_BEGIN("similarity");

TEST_CASE("bytes have the mean of the definition at sizes round the lanes and the window") {
    for (const Kind kind : kByteKinds) {
        for (const std::size_t height : kHeights) {
            for (const std::size_t width : kWidths) {
                if (height > 9 && width > 33 && height != 31) continue;  // the oracle is slow
                Images images = make_images(kind, 2, height, width);
                for (const Similarity of : kSsimKinds) {
                    check_ssim(images, images.as_bytes(), make_options(of), 1e-7);
                }
            }
        }
    }
}

TEST_CASE("ranges, z-scores and both windows") {
    for (const Kind kind : kAllKinds) {
        const bool is_bytes = std::find(kByteKinds.begin(), kByteKinds.end(), kind) != kByteKinds.end();
        for (const std::size_t width : {11U, 17U, 38U}) {
            const Images images = make_images(kind, 2, 19, width);
            for (const Similarity of : kSsimKinds) {
                for (const double range : {0.0, 1.0, 60.0, 255.0}) {
                    for (const bool with_z_score : {false, true}) {
                        if (kind == Kind::kFlat && range == 0.0) continue;
                        for (const SsimWindow window : {SsimWindow::kUniform, SsimWindow::kGaussian}) {
                            SimilarityOptions options = make_options(of, range);
                            options.with_z_score = with_z_score;
                            options.window = window;
                            check_ssim(images, images.floats(), options, is_bytes ? 1e-7 : 1e-6);
                        }
                    }
                }
            }
        }
    }
}

TEST_CASE("whole numbers give the same bits as bytes and as float32") {
    for (const Kind kind : kByteKinds) {
        Images images = make_images(kind, 3, 20, 40);
        for (const Similarity of : kKinds) {
            const SimilarityOptions options = make_options(of);
            CHECK(matrix(images.as_bytes(), images.floats(), options) ==
                  matrix(images.floats(), images.as_bytes(), options));
        }
    }
}

TEST_CASE("extremes do not overflow") {
    for (const std::size_t width : {7U, 23U, 70U}) {
        Images images(4, 40, width);
        for (std::size_t p = 0; p < 40 * width; ++p) {
            const bool is_white = (p / width + p % width) % 2 == 0;
            images.pixels[p] = is_white ? 255.0F : 0.0F;
            images.pixels[40 * width + p] = is_white ? 0.0F : 255.0F;
            images.pixels[80 * width + p] = 0.0F;
            images.pixels[120 * width + p] = 255.0F;
        }
        for (const double range : {0.01, 1.0, 255.0, 1e4}) {
            check_ssim(images, images.as_bytes(), make_options(Similarity::kSsim, range), 1e-7);
            check_ssim(images, images.as_bytes(), make_options(Similarity::kContrastStructure, range), 1e-7);
        }
    }
}

TEST_CASE("an image is like itself in every bit, also after the z-score") {
    for (const Kind kind : {Kind::kNoise, Kind::kSmooth, Kind::kExtremes}) {
        Images images = make_images(kind, 3, 26, 45);
        for (const Similarity of : kSsimKinds) {
            for (const bool with_z_score : {false, true}) {
                SimilarityOptions options = make_options(of, 0.0);
                options.with_z_score = with_z_score;
                const std::vector<double> got = matrix(images.as_bytes(), images.as_bytes(), options);
                for (std::size_t i = 0; i < 3; ++i) CHECK(got[i * 4] == 1.0);
            }
        }
    }
}

TEST_CASE("correlation and FSIM are those of the definitions") {
    for (const Kind kind : {Kind::kNoise, Kind::kSmooth, Kind::kExtremes, Kind::kFlat, Kind::kFractions}) {
        for (const std::size_t width : {2U, 3U, 15U, 16U, 17U, 33U}) {
            const Images images = make_images(kind, 3, 13, width);
            const std::vector<double> ncc = matrix(images.floats(), images.floats(), make_options(Similarity::kNcc));
            const std::vector<double> fsim = matrix(images.floats(), images.floats(), make_options(Similarity::kFsim));
            for (std::size_t p = 0; p < 9; ++p) {
                CAPTURE(width);
                CAPTURE(p);
                CHECK(std::fabs(ncc[p] - oracle_ncc(images, p / 3, p % 3)) <= 1e-7);
                CHECK(std::fabs(fsim[p] - oracle_fsim(images, p / 3, p % 3)) <= 1e-6);
            }
        }
    }
}

TEST_CASE("a map holds the definition at each place, and its mean is the number") {
    for (const Kind kind : kAllKinds) {
        Images images = make_images(kind, 2, 17, 29);
        Images a(1, 17, 29);
        Images b(1, 17, 29);
        const auto middle = images.pixels.begin() + std::ptrdiff_t{17} * 29;
        a.pixels.assign(images.pixels.begin(), middle);
        b.pixels.assign(middle, images.pixels.end());
        for (const SsimWindow window : {SsimWindow::kUniform, SsimWindow::kGaussian}) {
            SimilarityOptions options = make_options(Similarity::kSsim);
            options.window = window;
            const std::size_t border = 2 * ssim_radius(window);
            std::vector<double> map((17 - border) * (29 - border));
            ssim_map(a.floats(), b.floats(), options, map.data());
            const std::vector<double> expected =
                oracle_map(pixels_of(images, 0, false), pixels_of(images, 1, false), 17, 29, 255.0, window, true);
            REQUIRE(map.size() == expected.size());
            for (std::size_t i = 0; i < map.size(); ++i) CHECK(std::fabs(map[i] - expected[i]) <= 1e-6);
            CHECK(std::fabs(mean_of(map) - matrix(a.floats(), b.floats(), options)[0]) <= 1e-7);
        }
    }
}

TEST_CASE("every level, any threads and any batch give the same bits") {
    for (const Kind kind : {Kind::kNoise, Kind::kSmooth, Kind::kFractions}) {
        for (const std::size_t width : {7U, 17U, 38U, 118U}) check_same_bits(make_images(kind, 19, 45, width));
    }
}

// All that ThreadSanitizer runs of this suite: several blocks each way, and no more of the arithmetic than that.
TEST_CASE("threads that share a comparison do not disturb each other") {
    for (const Kind kind : {Kind::kNoise, Kind::kFractions}) check_same_bits(make_images(kind, 37, 9, 38));
}

TEST_CASE("a set larger than what is held at a time gives the numbers of its pairs") {
    const Images images = make_images(Kind::kFractions, 300, 64, 64);  // 131 KB of terms each
    Images few(2, 64, 64);
    few.pixels.assign(images.pixels.begin(), images.pixels.begin() + std::ptrdiff_t{2} * 64 * 64);
    SimilarityOptions options = make_options(Similarity::kContrastStructure);
    const std::vector<double> across = matrix(few.floats(), images.floats(), options);
    const std::vector<double> down = matrix(images.floats(), few.floats(), options);
    CHECK(across[300 + 299] == pairs(few.floats(), images.floats(), {{1, 299}}, options)[0]);
    for (std::size_t i = 0; i < 300; i += 7) CHECK(down[i * 2 + 1] == across[300 + i]);
}

TEST_CASE("strides are followed and results go where the caller says") {
    Images images = make_images(Kind::kNoise, 3, 12, 20);
    Images turned(3, 12, 20);
    for (std::size_t i = 0; i < 3; ++i) {
        for (std::size_t y = 0; y < 12; ++y) {
            std::copy_n(images.pixels.begin() + static_cast<std::ptrdiff_t>((i * 12 + y) * 20), 20,
                        turned.pixels.begin() + static_cast<std::ptrdiff_t>(((2 - i) * 12 + 11 - y) * 20));
        }
    }
    ImageStack backwards = images.floats();
    backwards.data = images.pixels.data() + images.pixels.size() - 20;
    backwards.image_stride = -backwards.image_stride;
    backwards.row_stride = -backwards.row_stride;
    const SimilarityOptions options = make_options(Similarity::kSsim);
    CHECK(matrix(backwards, backwards, options) == matrix(turned.floats(), turned.floats(), options));

    std::vector<float> wide(15, 7.0F);
    SimilarityOutput target;
    target.floats = wide.data() + 1;
    target.row_stride = 5;
    similarity_matrix(images.floats(), images.floats(), options, target, nullptr, {});
    const std::vector<double> expected = matrix(images.floats(), images.floats(), options);
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK(wide[i * 5] == 7.0F);
        CHECK(wide[i * 5 + 4] == 7.0F);
        for (std::size_t j = 0; j < 3; ++j) CHECK(wide[i * 5 + 1 + j] == static_cast<float>(expected[i * 3 + j]));
    }
}

TEST_CASE("a token ends a comparison") {
    const Images images = make_images(Kind::kNoise, 4, 20, 20);
    std::vector<double> out(16);
    SimilarityOutput target;
    target.doubles = out.data();
    target.row_stride = 4;
    CancelToken token;
    token.cancel();
    const SimilarityOptions options = make_options(Similarity::kSsim);
    CHECK_THROWS_AS(similarity_matrix(images.floats(), images.floats(), options, target, &token, {}), Cancelled);
    const std::vector<ImagePair> wanted = {{0, 1}, {2, 3}};
    CHECK_THROWS_AS(similarity_pairs(images.floats(), images.floats(), wanted, options, out.data(), &token, {}),
                    Cancelled);
}

TEST_CASE("what cannot be compared is refused before any work") {
    const Images images = make_images(Kind::kNoise, 2, 12, 12);
    const Images narrow = make_images(Kind::kNoise, 2, 12, 11);
    const Images flat = make_images(Kind::kFlat, 2, 12, 12);
    const Images small = make_images(Kind::kNoise, 1, 6, 12);
    const SimilarityOptions options = make_options(Similarity::kSsim);
    CHECK_THROWS_WITH_AS(
        matrix(images.floats(), narrow.floats(), options),
        "images is 12 x 12 pixels and images 12 x 11; resize one to the other first, for example with resize_area",
        InvalidInput);
    CHECK_THROWS_AS(matrix(small.floats(), small.floats(), options), InvalidInput);
    SimilarityOptions gaussian = options;
    gaussian.window = SsimWindow::kGaussian;
    const Images ten = make_images(Kind::kNoise, 1, 10, 12);
    CHECK_THROWS_AS(matrix(ten.floats(), ten.floats(), gaussian), InvalidInput);
    CHECK_THROWS_AS(matrix(flat.floats(), flat.floats(), make_options(Similarity::kSsim, 0.0)), InvalidInput);
    for (const double range : {-1.0, 1e-31, 1e31, std::numeric_limits<double>::quiet_NaN()}) {
        CHECK_THROWS_AS(matrix(images.floats(), images.floats(), make_options(Similarity::kSsim, range)), InvalidInput);
    }
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        Images broken = images;
        broken.pixels.back() = bad;
        for (const Similarity of : kKinds) {
            CHECK_THROWS_WITH_AS(matrix(images.floats(), broken.floats(), make_options(of)),
                                 "images image 1 holds NaN or infinity", InvalidInput);
        }
    }
    CHECK_THROWS_WITH_AS(pairs(images.floats(), images.floats(), {{0, 0}, {0, 2}}, options),
                         "pair 1 is (0, 2), but there are 2 and 2 images", InvalidInput);
    CHECK_THROWS_AS(pairs(images.floats(), images.floats(), {{-1, 0}}, options), InvalidInput);
    Images grey = images;
    grey.pixels[0] = 2e6F;
    CHECK_THROWS_AS(matrix(grey.floats(), images.floats(), make_options(Similarity::kFsim)), InvalidInput);
}

TEST_CASE("no image is no result, and one pixel has a stated value") {
    const Images images = make_images(Kind::kNoise, 2, 12, 12);
    const Images none = make_images(Kind::kNoise, 0, 12, 12);
    const Images pixel = make_images(Kind::kNoise, 1, 1, 1);
    for (const Similarity of : kKinds) {
        const SimilarityOptions options = make_options(of);
        CHECK(matrix(none.floats(), images.floats(), options).empty());
        CHECK(matrix(images.floats(), none.floats(), options).empty());
        CHECK(pairs(images.floats(), images.floats(), {}, options).empty());
        if (of == Similarity::kNcc) {
            CHECK(matrix(pixel.floats(), pixel.floats(), options) == std::vector<double>{0.0});
        } else {
            CHECK_THROWS_AS(matrix(pixel.floats(), pixel.floats(), options), InvalidInput);
        }
    }
}

TEST_SUITE_END();

}  // namespace deepssim
