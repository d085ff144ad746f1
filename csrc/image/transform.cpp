#include "image/transform.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace deepssim {

namespace {

constexpr double kRadians = std::numbers::pi / 180.0;

// Narrows [low, high] to the x with 0 <= slope * x + start <= limit, a hair more for what rounding takes.
struct Narrower {
    explicit Narrower(double slope, double limit)
        : limit_(limit), inverse_(std::abs(slope) < 1e-12 ? 0.0 : 1.0 / slope) {}

    void narrow(double start, double& low, double& high) const {
        constexpr double kHair = 1e-6;
        if (inverse_ == 0.0) {
            if (start < -kHair || start > limit_ + kHair) high = low - 1.0;
            return;
        }
        const double at_zero = (-kHair - start) * inverse_;
        const double at_limit = (limit_ + kHair - start) * inverse_;
        low = std::max(low, std::min(at_zero, at_limit));
        high = std::min(high, std::max(at_zero, at_limit));
    }

   private:
    double limit_;
    double inverse_;
};

}  // namespace

Pose pose_of(const Transform& transform) {
    const double cosine = std::cos(transform.angle_degrees * kRadians) / transform.scale;
    const double sine = std::sin(transform.angle_degrees * kRadians) / transform.scale;
    const double flip = transform.is_mirrored ? -1.0 : 1.0;
    Pose pose{{cosine, sine, -flip * sine, flip * cosine}, {}};
    pose.offset[0] = -(pose.matrix[0] * transform.shift_rows + pose.matrix[1] * transform.shift_columns);
    pose.offset[1] = -(pose.matrix[2] * transform.shift_rows + pose.matrix[3] * transform.shift_columns);
    return pose;
}

double scale_of(const Pose& pose) {
    return 1.0 / std::sqrt(std::abs(pose.matrix[0] * pose.matrix[3] - pose.matrix[1] * pose.matrix[2]));
}

Transform transform_of(const Pose& pose) {
    const double* m = pose.matrix;
    const double determinant = m[0] * m[3] - m[1] * m[2];
    Transform out;
    out.is_mirrored = determinant < 0.0;
    out.scale = scale_of(pose);
    out.angle_degrees = std::atan2(m[1], m[0]) / kRadians;
    if (out.angle_degrees <= -180.0) out.angle_degrees += 360.0;
    out.shift_rows = -(m[3] * pose.offset[0] - m[1] * pose.offset[1]) / determinant;
    out.shift_columns = -(m[0] * pose.offset[1] - m[2] * pose.offset[0]) / determinant;
    return out;
}

Transform inverse(const Transform& transform) {
    const Pose pose = pose_of(transform);
    const double* m = pose.matrix;
    const double determinant = m[0] * m[3] - m[1] * m[2];
    Pose back{{m[3] / determinant, -m[1] / determinant, -m[2] / determinant, m[0] / determinant}, {}};
    back.offset[0] = -(back.matrix[0] * pose.offset[0] + back.matrix[1] * pose.offset[1]);
    back.offset[1] = -(back.matrix[2] * pose.offset[0] + back.matrix[3] * pose.offset[1]);
    return transform_of(back);
}

Matrix23 matrix_of(const Transform& transform, std::size_t rows, std::size_t cols) {
    const Pose pose = pose_of(transform);
    const double row = (static_cast<double>(rows) - 1.0) / 2.0;
    const double column = (static_cast<double>(cols) - 1.0) / 2.0;
    const double* m = pose.matrix;
    return {m[0], m[1], pose.offset[0] + row - m[0] * row - m[1] * column,
            m[2], m[3], pose.offset[1] + column - m[2] * row - m[3] * column};
}

Pose composed(const Pose& pose, const Step& step) {
    const double zoom = std::exp(step.log_scale);
    const double cosine = std::cos(step.angle) * zoom;
    const double sine = std::sin(step.angle) * zoom;
    const double* m = pose.matrix;
    Pose out;
    out.matrix[0] = m[0] * cosine - m[1] * sine;
    out.matrix[1] = m[0] * sine + m[1] * cosine;
    out.matrix[2] = m[2] * cosine - m[3] * sine;
    out.matrix[3] = m[2] * sine + m[3] * cosine;
    out.offset[0] = pose.offset[0] + m[0] * step.row + m[1] * step.column;
    out.offset[1] = pose.offset[1] + m[2] * step.row + m[3] * step.column;
    return out;
}

void SpanList::erode(const SpanList& from, int cols, int amount) {
    const int rows = static_cast<int>(from.first.size());
    first.assign(from.first.size(), 0);
    last.assign(from.first.size(), 0);
    count = 0;
    for (int y = amount; y + amount < rows; ++y) {
        int begin = amount;
        int end = cols - amount;
        for (int k = -amount; k <= amount; ++k) {
            const int other = y + k;
            const auto row = static_cast<std::size_t>(other);
            const bool is_own = k == 0;
            begin = std::max(begin, from.first[row] + (is_own ? amount : 0));
            end = std::min(end, from.last[row] - (is_own ? amount : 0));
        }
        if (begin >= end) continue;
        first[static_cast<std::size_t>(y)] = begin;
        last[static_cast<std::size_t>(y)] = end;
        count += static_cast<std::size_t>(end - begin);
    }
}

void place_spans(const Pose& pose, int rows, int cols, double factor_rows, double factor_columns, SpanList& spans,
                 simd::WarpJob& job) {
    const double row = (rows - 1) / 2.0;
    const double column = (cols - 1) / 2.0;
    job.matrix[0] = pose.matrix[0];
    job.matrix[1] = pose.matrix[1] * factor_columns / factor_rows;
    job.matrix[2] = pose.matrix[2] * factor_rows / factor_columns;
    job.matrix[3] = pose.matrix[3];
    job.offset[0] = pose.offset[0] / factor_rows + row - job.matrix[0] * row - job.matrix[1] * column;
    job.offset[1] = pose.offset[1] / factor_columns + column - job.matrix[2] * row - job.matrix[3] * column;
    const auto n = static_cast<std::size_t>(rows);
    spans.first.assign(n, 0);
    spans.last.assign(n, 0);
    spans.count = 0;
    const Narrower by_row(job.matrix[1], rows - 1);
    const Narrower by_column(job.matrix[3], cols - 1);
    for (std::size_t y = 0; y < n; ++y) {
        double low = 0.0;
        double high = cols - 1;
        const auto at = static_cast<double>(y);
        by_row.narrow(job.matrix[0] * at + job.offset[0], low, high);
        by_column.narrow(job.matrix[2] * at + job.offset[1], low, high);
        if (low > high) continue;
        const int begin = static_cast<int>(std::ceil(low));
        const int end = static_cast<int>(std::floor(high)) + 1;
        if (begin >= end) continue;
        spans.first[y] = begin;
        spans.last[y] = end;
        spans.count += static_cast<std::size_t>(end - begin);
    }
    job.spans = spans.view();
}

void place_warp(const Pose& pose, const RowPairs& moving, double factor_rows, double factor_columns, SpanList& spans,
                simd::WarpJob& job) {
    place_spans(pose, moving.rows, moving.cols, factor_rows, factor_columns, spans, job);
    job.moving = moving.pixels.data();
    job.moving_stride = moving.stride;
    job.moving_rows = moving.rows;
    job.moving_cols = moving.cols;
    job.rows = moving.rows;
    job.stride = moving.stride;
}

}  // namespace deepssim
