// Registration by Gauss-Newton over a pyramid, from the best places of a bank of turned thumbnails.
//
// Efficient second-order minimisation (Benhimane and Malis, Real-time image-based tracking of planes using efficient
// second-order minimization, IROS 2004, section 3): the gradient is the mean of the fixed and the warped image's. Gain
// and bias are regressed before each step, residuals weighted by Cauchy's function.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "deepssim/exact.hpp"
#include "deepssim/isa.hpp"
#include "image/workspace.hpp"

namespace deepssim {

namespace {

constexpr std::size_t kStarts = 6;
constexpr std::size_t kSurvivors = 2;  // of the starts, after a first look
// Starts that end closer than this part of the width are one place, found twice.
constexpr double kSamePlace = 0.03;
// So far behind the best, a place is not the right one.
constexpr double kFarBehind = 0.1;
// Below this correlation before a level two images are not one: a few steps from one place say how well they fit.
constexpr double kHopeless = 0.5;
constexpr double kLeastOverlap = 0.35;
constexpr double kLowestScale = 0.85;
constexpr double kHighestScale = 1.15;
// What freeing the scale has to raise the correlation by, at the middle level and at full resolution.
constexpr double kScaleGain = 0.002;
// Scales this close to 1 may be none.
constexpr double kNearOne = 0.02;
constexpr double kCauchy = 1.5;  // scale of the weights in units of the residual's root mean square
constexpr double kLargestAngle = 0.15;
constexpr double kLargestShift = 2.0;  // pixels of the level
constexpr double kLargestLogScale = 0.05;

struct Schedule {
    int iterations;
    double tolerance;    // pixels of the level, or at the reference width where it is wider
    bool asks_for_zoom;  // whether the scale is freed only if the last step asks for it
};
constexpr Schedule kLook{3, 0.05, false};
constexpr Schedule kCoarse{6, 0.05, false};
constexpr Schedule kMiddle{8, 0.03, true};
constexpr Schedule kFine{10, 0.02, true};
constexpr Schedule kShort{2, 0.02, true};
// Pixels at the image's rim that a level's last step would zoom by, below which freeing the scale is not tried.
constexpr double kLeastZoom = 0.1;

// Solves the first n rows of a symmetric positive system by Cholesky; false where it is singular.
bool solve(double (&matrix)[4][4], double (&right)[4], int n) {
    double trace = 0.0;
    for (int i = 0; i < n; ++i) trace += matrix[i][i];
    for (int i = 0; i < n; ++i) {
        for (int j = 0; j <= i; ++j) {
            double sum = matrix[i][j];
            for (int k = 0; k < j; ++k) sum -= matrix[i][k] * matrix[j][k];
            if (i == j) {
                if (!(sum > 1e-12 * trace)) return false;
                matrix[i][i] = std::sqrt(sum);
            } else {
                matrix[i][j] = sum / matrix[j][j];
            }
        }
    }
    for (int i = 0; i < n; ++i) {
        for (int k = 0; k < i; ++k) right[i] -= matrix[i][k] * right[k];
        right[i] /= matrix[i][i];
    }
    for (int i = n - 1; i >= 0; --i) {
        for (int k = i + 1; k < n; ++k) right[i] -= matrix[k][i] * right[k];
        right[i] /= matrix[i][i];
    }
    return true;
}

Step clamped(const double (&right)[4], double factor) {
    Step step{right[0], right[1], right[2], right[3]};
    step.angle = std::clamp(step.angle, -kLargestAngle, kLargestAngle);
    step.log_scale = std::clamp(step.log_scale, -kLargestLogScale, kLargestLogScale);
    const double length = std::hypot(step.row, step.column);
    if (length > kLargestShift * factor) {
        step.row *= kLargestShift * factor / length;
        step.column *= kLargestShift * factor / length;
    }
    return step;
}

void bound_scale(Pose& pose) {
    const double scale = scale_of(pose);
    const double factor = scale / std::clamp(scale, kLowestScale, kHighestScale);
    if (factor == 1.0) return;
    for (double& value : pose.matrix) value *= factor;
}

class Refiner {
   public:
    Refiner(Aligner::Workspace& work, const RegistrationImage& moving, std::size_t level)
        : work_(work), fixed_(work.fixed->parts().levels[level]) {
        work.moving.fill(moving.parts().levels[level].normalised);
    }

    Candidate run(const Candidate& start, bool with_scale, const Schedule& schedule) {
        Candidate now = start;
        Candidate best = start;
        best.score = -2.0;
        const double tolerance = schedule.tolerance * std::max(1.0, fixed_.normalised.cols / kReferenceWidth);
        for (int i = 0;; ++i) {
            const simd::PairSums sums = warp(now);
            if (now.score > best.score) best = now;
            if (i == schedule.iterations || now.score <= -1.0) break;
            Step step;
            if (!find_step(sums, with_scale, step)) break;
            now.pose = composed(now.pose, step);
            if (with_scale) bound_scale(now.pose);
            if (is_small(step, tolerance)) return now;  // the score of a hair before is as good
        }
        // Weights may end a hair below the best correlation, which is no worse a place; lost is something else.
        constexpr double kHair = 1e-3;
        return now.score >= best.score - kHair ? now : best;
    }

    // Scores a pose; the warped image and the spans stay in the workspace.
    simd::PairSums warp(Candidate& candidate) {
        simd::WarpJob job{};
        const Plane& fixed = fixed_.normalised;
        work_.warped.reset(fixed.rows, fixed.cols);
        place_warp(candidate.pose, work_.moving, fixed_.factor_rows, fixed_.factor_columns, work_.spans, job);
        job.fixed = fixed.pixels.data();
        job.out = work_.warped.pixels.data();
        candidate.overlap = overlap_of(candidate.pose, work_.spans.count, fixed.rows, fixed.cols);
        candidate.score = -1.0;
        if (candidate.overlap < kLeastOverlap) return {};
        const simd::PairSums sums = work_.kernels.warp(job);
        candidate.score = correlation_of(sums, static_cast<double>(work_.spans.count));
        return sums;
    }

    // By how many pixels at the rim the last step would have zoomed, had it been free to.
    double wanted_zoom() const { return wanted_zoom_; }

   private:
    bool find_step(const simd::PairSums& sums, bool with_scale, Step& step) {
        const Plane& fixed = fixed_.normalised;
        work_.inner.erode(work_.spans, fixed.cols, 1);
        const auto n = static_cast<double>(work_.spans.count);
        const double covariance = sums.ab / n - sums.a / n * (sums.b / n);
        const double var_a = sums.aa / n - sums.a / n * (sums.a / n);
        const double var_b = sums.bb / n - sums.b / n * (sums.b / n);
        if (work_.inner.count == 0 || var_a < 1e-6 || var_b < 1e-6) return false;
        // A start in the wrong place may correlate negatively: a gain below zero would turn every gradient round.
        const double gain = std::max(covariance / var_b, 0.1);
        const double square = std::max(var_a - 2.0 * gain * covariance + gain * gain * var_b, 1e-4);
        double terms[simd::kNormalTerms];
        work_.kernels.normal({fixed.pixels.data(), work_.warped.pixels.data(), fixed.stride, work_.inner.view(),
                              fixed.rows, static_cast<float>(gain), static_cast<float>(sums.a / n - gain * sums.b / n),
                              static_cast<float>(1.0 / (kCauchy * kCauchy * square)),
                              static_cast<float>(fixed_.factor_rows), static_cast<float>(fixed_.factor_columns),
                              static_cast<float>(fixed.rows - 1) / 2.0F, static_cast<float>(fixed.cols - 1) / 2.0F},
                             terms);
        double matrix[4][4] = {};
        for (int i = 0, at = 0; i < 4; ++i) {
            for (int j = i; j < 4; ++j, ++at) matrix[i][j] = matrix[j][i] = terms[at];
        }
        double right[4] = {terms[10], terms[11], terms[12], terms[13]};
        double free_matrix[4][4];
        std::copy_n(&matrix[0][0], 16, &free_matrix[0][0]);
        double free_right[4] = {right[0], right[1], right[2], right[3]};
        wanted_zoom_ = solve(free_matrix, free_right, 4) ? std::abs(free_right[3]) * radius() : 0.0;
        if (!solve(matrix, right, with_scale ? 4 : 3)) return false;
        if (!with_scale) right[3] = 0.0;
        step = clamped(right, fixed_.factor_rows);
        return true;
    }

    bool is_small(const Step& step, double tolerance) const {
        const double shift = std::max(std::abs(step.row), std::abs(step.column)) / fixed_.factor_rows;
        return std::max({shift, std::abs(step.angle) * radius(), std::abs(step.log_scale) * radius()}) < tolerance;
    }

    double radius() const { return 0.5 * std::max(fixed_.normalised.rows, fixed_.normalised.cols); }

    Aligner::Workspace& work_;
    const Level& fixed_;
    double wanted_zoom_ = 0.0;
};

bool is_scaled(const Pose& pose) { return std::abs(scale_of(pose) - 1.0) > 1e-9; }

// With scale only where that fits better than without.
Candidate refine(Refiner& refiner, const Candidate& start, bool with_scale, const Schedule& schedule) {
    if (with_scale && is_scaled(start.pose)) {
        const Candidate scaled = refiner.run(start, true, schedule);
        const double scale = scale_of(scaled.pose);
        if (std::abs(scale - 1.0) > kNearOne) return scaled;
        Candidate same_size = scaled;
        for (double& value : same_size.pose.matrix) value *= scale;
        const Candidate rigid = refiner.run(same_size, false, schedule);
        return scaled.score > rigid.score + kScaleGain ? scaled : rigid;
    }
    const Candidate rigid = refiner.run(start, false, schedule);
    if (!with_scale || (schedule.asks_for_zoom && refiner.wanted_zoom() < kLeastZoom)) return rigid;
    const Candidate scaled = refiner.run(rigid, true, schedule);
    return scaled.score > rigid.score + kScaleGain ? scaled : rigid;
}

// The largest distance between where two poses put a pixel of an image of this size.
double distance(const Pose& a, const Pose& b, double rows, double cols) {
    double most = 0.0;
    for (const double row : {-0.5 * rows, 0.5 * rows}) {
        for (const double column : {-0.5 * cols, 0.5 * cols}) {
            double off[2];
            for (std::size_t k = 0; k < 2; ++k) {
                off[k] = (a.matrix[2 * k] - b.matrix[2 * k]) * row +
                         (a.matrix[2 * k + 1] - b.matrix[2 * k + 1]) * column + a.offset[k] - b.offset[k];
            }
            most = std::max(most, std::hypot(off[0], off[1]));
        }
    }
    return most;
}

// Best first; the same place once.
void sort_places(std::vector<Candidate>& places, const RegistrationImage& image) {
    sort_best_first(places);
    const auto rows = static_cast<double>(image.rows());
    const auto cols = static_cast<double>(image.cols());
    std::vector<Candidate> kept;
    for (const Candidate& place : places) {
        const bool is_known = std::any_of(kept.begin(), kept.end(), [&](const Candidate& other) {
            return distance(other.pose, place.pose, rows, cols) < kSamePlace * cols;
        });
        if (!is_known) kept.push_back(place);
    }
    places.swap(kept);
}

// The best, and others close behind.
void keep_best(std::vector<Candidate>& places, std::size_t wanted) {
    const double lowest = places.front().score - kFarBehind;
    while (places.size() > wanted || places.back().score < lowest) places.pop_back();
}

}  // namespace

void check_pair(const Aligner::Workspace& work, const RegistrationImage& moving) {
    if (work.fixed == nullptr) throw InvalidInput("no image to register onto; call fix() first");
    if (work.fixed->rows() == moving.rows() && work.fixed->cols() == moving.cols()) return;
    throw InvalidInput("the images have " + std::to_string(work.fixed->rows()) + " x " +
                       std::to_string(work.fixed->cols()) + " and " + std::to_string(moving.rows()) + " x " +
                       std::to_string(moving.cols()) + " pixels; resize them to one size first");
}

double overlap_of(const Pose& pose, std::size_t count, int rows, int cols) {
    const double determinant = std::abs(pose.matrix[0] * pose.matrix[3] - pose.matrix[1] * pose.matrix[2]);
    return static_cast<double>(count) * std::min(1.0, determinant) / (static_cast<double>(rows) * cols);
}

double correlation_of(const simd::PairSums& sums, double n) {
    if (n < 1.0) return 0.0;
    const double covariance = sums.ab - sums.a * sums.b / n;
    const double a = sums.aa - sums.a * sums.a / n;
    const double b = sums.bb - sums.b * sums.b / n;
    // Float32 sums leave about 1e-6 of the mean square; below that an image counts as constant.
    if (a <= 1e-5 * std::max(sums.aa, 1e-3 * n) || b <= 1e-5 * std::max(sums.bb, 1e-3 * n)) return 0.0;
    return std::clamp(covariance / std::sqrt(a * b), -1.0, 1.0);
}

Aligner::Aligner(std::string_view isa)
    : workspace_(std::make_unique<Workspace>(simd::align_kernels_for(resolve_isa(isa).c_str()))) {}
Aligner::~Aligner() = default;

void Aligner::look_at(const RegistrationImage& fixed) { workspace_->fixed = &fixed; }

void Aligner::fix(const RegistrationImage& fixed) {
    look_at(fixed);
    const Level& thumbnail = fixed.parts().levels.back();
    workspace_->bank.build(workspace_->kernels, thumbnail.normalised, thumbnail.factor_rows, thumbnail.factor_columns);
}

Registration Aligner::align(const RegistrationImage& moving, bool with_scale) {
    Workspace& work = *workspace_;
    check_pair(work, moving);
    const FloatEnvironment environment;
    const std::size_t n_levels = moving.parts().levels.size();
    const Level& thumbnail = moving.parts().levels.back();
    work.bank.find(work.kernels, thumbnail.normalised, thumbnail.factor_rows, thumbnail.factor_columns, with_scale,
                   kStarts, work.starts);
    std::vector<Candidate> places;
    Refiner coarse(work, moving, n_levels - 1);
    for (const Start& start : work.starts) {
        places.push_back(coarse.run({start.pose, 0.0, 0.0}, false, kLook));
    }
    sort_places(places, moving);
    keep_best(places, kSurvivors);
    for (Candidate& place : places) place = refine(coarse, place, with_scale, n_levels == 1 ? kFine : kCoarse);
    sort_places(places, moving);
    for (std::size_t level = n_levels - 1; level-- > 0;) {
        keep_best(places, level + 2 == n_levels && places.front().score >= kHopeless ? kSurvivors : 1);
        const Schedule& schedule = places.front().score < kHopeless ? kShort : level > 0 ? kMiddle : kFine;
        Refiner refiner(work, moving, level);
        for (Candidate& place : places) place = refine(refiner, place, with_scale, schedule);
        sort_places(places, moving);
    }
    Candidate& best = places.front();
    if (best.score <= -1.0) {  // too little in common everywhere: as they lie
        best = Candidate{};
        Refiner(work, moving, 0).warp(best);
    }
    Registration out{transform_of(best.pose), best.score, best.overlap};
    if (!is_scaled(best.pose)) out.transform.scale = 1.0;
    return out;
}

}  // namespace deepssim
