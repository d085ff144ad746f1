#include "codes.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "deepssim/exact.hpp"

namespace deepssim {

namespace {

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

// Upper bound of a norm from squares summed in float64, each wrong by a few last places, in any order.
double norm_of(double squares, std::size_t n) {
    return std::sqrt(squares) * (1.0 + static_cast<double>(n + 8) * 0x1p-52);
}

}  // namespace

int code_limit(simd::CodeFormat format) { return format == simd::CodeFormat::kInt7Offset ? 63 : 127; }

int fine_limit(std::size_t n) {
    const double most = std::sqrt(2147483647.0 / static_cast<double>(std::max<std::size_t>(n, 1)));
    return static_cast<int>(std::min(32767.0, most - 1.0));
}

int code_offset(simd::CodeFormat format) {
    switch (format) {
        case simd::CodeFormat::kInt8Offset:
            return 128;
        case simd::CodeFormat::kInt7Offset:
            return 64;
        case simd::CodeFormat::kInt8:
            break;
    }
    return 0;
}

CodeShape::CodeShape(std::size_t dim_in, std::size_t head_in, const simd::Kernels& kernels)
    : dim(dim_in),
      head(head_in == 0 ? dim_in : std::min(head_in, dim_in)),
      lead(std::min(head, kMostLead)),
      steps(round_up((head + simd::kStepBytes - 1) / simd::kStepBytes, kernels.step_multiple)),
      fine(head == dim ? 0 : round_up(head, 32)),
      rest_bytes(round_up(dim - head, 64)) {}

std::size_t CodeShape::most_bytes(std::size_t dim, bool with_split, const simd::Kernels& kernels) {
    const CodeShape whole(dim, dim, kernels);
    // A split pads the head to whole steps and the rest to 64 bytes, and codes the head twice.
    return whole.head_bytes() + (with_split ? kernels.step_multiple * simd::kStepBytes + 2 * dim + 128 : 0);
}

double scale_for(double largest, int limit) { return largest > 0.0 ? largest / limit : 1.0; }

CodedPart encode(const simd::Kernels& kernels, const float* row, const float* centre, std::size_t n, double scale,
                 int limit, std::int16_t* codes) {
    double squares = 0.0;
    double lost = 0.0;
    double code_squares = 0.0;
    kernels.quantise(row, centre, n, scale, 1.0 / scale, limit, codes, &squares, &lost, &code_squares);
    CodedPart part;
    part.scale = scale;
    part.norm = norm_of(squares, n);
    part.coded_norm = norm_of(code_squares, n) * scale * (1.0 + 0x1p-50);
    // An element less its centre, and that less its code, are rounded: by 2^-53 of either.
    part.lost = norm_of(lost, n) + 0x1p-50 * (part.norm + part.coded_norm);
    return part;
}

double CodedHead::norm() const { return std::hypot(lead.norm, other.norm) * (1.0 + 0x1p-50); }

CodedHead encode_head(const simd::Kernels& kernels, const CodeShape& shape, const float* row, const float* centre,
                      double scale, int limit, std::int16_t* codes) {
    const std::size_t n = shape.lead;
    return {encode(kernels, row, centre, n, scale, limit, codes),
            encode(kernels, row + n, centre + n, shape.head - n, scale, limit, codes + n)};
}

Rotation Rotation::blank(std::size_t dim) {
    Rotation rotation(dim);
    rotation.panels_.assign(padded(dim) * dim, 0.0F);
    return rotation;
}

Rotation::Rotation(MatrixView matrix, const simd::Kernels& kernels) : dim_(matrix.cols) {
    if (matrix.rows != matrix.cols) {
        throw InvalidInput("a rotation must be square, not " + std::to_string(matrix.rows) + " x " +
                           std::to_string(matrix.cols));
    }
    double frobenius = 0.0;  // of the matrix, squared
    double defect = 0.0;     // of matrix * transpose less the identity, squared: the same as the other way round
    for (std::size_t i = 0; i < dim_; ++i) {
        for (std::size_t j = 0; j <= i; ++j) {
            const double product = kernels.inner(matrix.row(i), matrix.row(j), dim_);
            const double off = i == j ? product - 1.0 : product;
            defect += off * off * (i == j ? 1.0 : 2.0);
            if (i == j) frobenius += product;
        }
    }
    const double rounding = float64_error_factor(dim_) * frobenius * 2.0;
    const double eta = std::sqrt(defect) * (1.0 + 0x1p-30) + rounding;
    if (!(eta < 0.125)) throw InvalidInput("the rotation is not orthogonal: its rows must be orthonormal");
    // fl(R x) = R x + e with |e| <= rho |x| (+ underflow), from the bound of each element and Cauchy-Schwarz.
    const double rho = float32_error_factor(dim_) * std::sqrt(frobenius) * (1.0 + 0x1p-20);
    relative_ = (eta + 2.0 * rho * (1.0 + eta) + rho * rho) * (1.0 + 0x1p-20);
    absolute_ = 2.0 * float32_error_absolute(dim_) * std::sqrt(static_cast<double>(dim_)) * (1.0 + 0x1p-20);

    panels_.assign(padded(dim_) * dim_, 0.0F);
    for (std::size_t i = 0; i < dim_; ++i) {
        float* panel = panels_.data() + i / simd::kPanelRows * simd::kPanelRows * dim_ + i % simd::kPanelRows;
        for (std::size_t d = 0; d < dim_; ++d) panel[d * simd::kPanelRows] = matrix.row(i)[d];
    }
}

void Rotation::apply(const simd::Kernels& kernels, std::span<const float* const> rows, std::size_t n, float* scratch,
                     float* out, std::size_t stride) const {
    if (is_identity()) {
        for (std::size_t i = 0; i < rows.size(); ++i) std::memcpy(out + i * stride, rows[i], n * sizeof(float));
        return;
    }
    const std::size_t tile = kernels.product_rows;
    const std::size_t width = padded(n);
    float* products = scratch + tile * dim_;
    std::fill_n(scratch, tile * dim_, 0.0F);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const float* row = rows[i];
        for (std::size_t d = 0; d < dim_; ++d) scratch[d * tile + i] = row[d];
    }
    kernels.product(scratch, panels_.data(), width / simd::kPanelRows, dim_, products);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        std::memcpy(out + i * stride, products + i * width, width * sizeof(float));
    }
}

}  // namespace deepssim
