#include "base_rows.hpp"

#include <cmath>
#include <cstring>
#include <string>

#include "deepssim/exact.hpp"

namespace deepssim {

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

std::size_t base_rows_bytes(std::size_t dim, std::size_t capacity, bool with_groups) {
    return buffer_bytes(capacity * dim * sizeof(float)) +
           capacity * (sizeof(double) + (with_groups ? sizeof(GroupId) : 0));
}

BaseRows::BaseRows(std::size_t dim, std::size_t capacity, bool with_groups)
    : dim_(dim), capacity_(capacity), with_groups_(with_groups) {
    data_ = make_buffer(capacity * dim * sizeof(float));
    norms_.reserve(capacity);
    if (with_groups) groups_.reserve(capacity);
}

void BaseRows::add(MatrixView rows, std::span<const GroupId> groups) {
    if (rows.cols != dim_) {
        throw InvalidInput("base rows have " + std::to_string(rows.cols) + " elements, the searcher holds rows of " +
                           std::to_string(dim_));
    }
    if (rows.rows > capacity_ - this->rows()) {
        throw InvalidInput("no room for " + std::to_string(rows.rows) + " more base rows: " +
                           std::to_string(this->rows()) + " of " + std::to_string(capacity_) + " are taken");
    }
    if (with_groups_ ? groups.size() != rows.rows : !groups.empty()) {
        throw InvalidInput("expected " + std::to_string(with_groups_ ? rows.rows : 0) + " groups, got " +
                           std::to_string(groups.size()));
    }
    const std::size_t before = this->rows();
    try {
        for (std::size_t i = 0; i < rows.rows; ++i) {
            norms_.push_back(checked_norm(rows.row(i), dim_, "base", i));
            std::memcpy(data_.get() + (before + i) * dim_ * sizeof(float), rows.row(i), dim_ * sizeof(float));
        }
    } catch (...) {
        norms_.resize(before);
        throw;
    }
    groups_.insert(groups_.end(), groups.begin(), groups.end());
}

}  // namespace deepssim
