// The base of a search: rows in panels, their norms and groups.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "deepssim/types.hpp"
#include "simd/kernels.hpp"

namespace deepssim {

// Throws InvalidInput naming row `index` of `what` if an element is not finite or the norm is too large;
// returns the norm, rounded up.
double checked_norm(const float* row, std::size_t dim, const char* what, std::size_t index);

class PackedBase {
   public:
    PackedBase(std::size_t dim, std::size_t capacity, bool with_groups);

    void add(MatrixView rows, std::span<const GroupId> groups);

    std::size_t dim() const { return dim_; }
    std::size_t rows() const { return rows_; }
    std::size_t capacity() const { return capacity_; }
    std::size_t panels() const { return (rows_ + simd::kPanelRows - 1) / simd::kPanelRows; }
    bool with_groups() const { return with_groups_; }

    const float* panel(std::size_t p) const { return data_.get() + p * simd::kPanelRows * dim_; }
    double norm(std::size_t row) const { return norms_[row]; }
    // The largest norm of a panel's rows.
    double panel_norm(std::size_t p) const { return panel_norms_[p]; }
    GroupId group(std::size_t row) const { return with_groups_ ? groups_[row] : kNoGroup; }

   private:
    std::size_t dim_;
    std::size_t capacity_;
    bool with_groups_;
    std::size_t rows_ = 0;
    std::unique_ptr<float[]> data_;  // zero beyond the last row
    std::vector<double> norms_;
    std::vector<double> panel_norms_;
    std::vector<GroupId> groups_;
};

// Bytes that a PackedBase of this shape takes.
std::size_t packed_bytes(std::size_t dim, std::size_t capacity, bool with_groups);

}  // namespace deepssim
