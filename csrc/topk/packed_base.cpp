#include "packed_base.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "deepssim/exact.hpp"

namespace deepssim {

namespace {

std::size_t panel_count(std::size_t rows) { return (rows + simd::kPanelRows - 1) / simd::kPanelRows; }

}  // namespace

double checked_norm(const float* row, std::size_t dim, const char* what, std::size_t index) {
    const double norm = norm_upper_bound(row, dim);
    if (!std::isfinite(norm)) {
        throw InvalidInput(std::string(what) + " row " + std::to_string(index) + " holds NaN or infinity");
    }
    if (norm > kMaxNorm) {
        throw InvalidInput(std::string(what) + " row " + std::to_string(index) +
                           " has a norm above 2^63: its products could overflow float32; scale it down");
    }
    return norm;
}

std::size_t packed_bytes(std::size_t dim, std::size_t capacity, bool with_groups) {
    const std::size_t panels = panel_count(capacity);
    return panels * simd::kPanelRows * dim * sizeof(float) + capacity * sizeof(double) + panels * sizeof(double) +
           (with_groups ? capacity * sizeof(GroupId) : 0);
}

PackedBase::PackedBase(std::size_t dim, std::size_t capacity, bool with_groups)
    : dim_(dim), capacity_(capacity), with_groups_(with_groups) {
    const std::size_t panels = panel_count(capacity);
    data_ = std::make_unique<float[]>(panels * simd::kPanelRows * dim);
    norms_.reserve(capacity);
    panel_norms_.reserve(panels);
    if (with_groups) groups_.reserve(capacity);
}

void PackedBase::add(MatrixView rows, std::span<const GroupId> groups) {
    if (rows.cols != dim_) {
        throw InvalidInput("base rows have " + std::to_string(rows.cols) + " elements, the searcher holds rows of " +
                           std::to_string(dim_));
    }
    if (rows.rows > capacity_ - rows_) {
        throw InvalidInput("no room for " + std::to_string(rows.rows) + " more base rows: " + std::to_string(rows_) +
                           " of " + std::to_string(capacity_) + " are taken");
    }
    if (with_groups_ ? groups.size() != rows.rows : !groups.empty()) {
        throw InvalidInput("expected " + std::to_string(with_groups_ ? rows.rows : 0) + " groups, got " +
                           std::to_string(groups.size()));
    }
    std::vector<double> norms(rows.rows);
    for (std::size_t i = 0; i < rows.rows; ++i) norms[i] = checked_norm(rows.row(i), dim_, "base", i);

    for (std::size_t i = 0; i < rows.rows; ++i) {
        const std::size_t row = rows_ + i;
        const std::size_t panel = row / simd::kPanelRows;
        float* out = data_.get() + panel * simd::kPanelRows * dim_ + row % simd::kPanelRows;
        const float* in = rows.row(i);
        for (std::size_t d = 0; d < dim_; ++d) out[d * simd::kPanelRows] = in[d];
        norms_.push_back(norms[i]);
        if (panel == panel_norms_.size()) panel_norms_.push_back(0.0);
        panel_norms_[panel] = std::max(panel_norms_[panel], norms[i]);
        if (with_groups_) groups_.push_back(groups[i]);
    }
    rows_ += rows.rows;
}

}  // namespace deepssim
