// The rows of a base as they came: what scores are defined by.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "common/buffer.hpp"
#include "deepssim/types.hpp"

namespace deepssim {

// Throws InvalidInput naming row `index` of `what` if an element is not finite or the norm is too large;
// returns the norm, rounded up.
double checked_norm(const float* row, std::size_t dim, const char* what, std::size_t index);

class BaseRows {
   public:
    BaseRows(std::size_t dim, std::size_t capacity, bool with_groups);

    // All or nothing; see Searcher::add.
    void add(MatrixView rows, std::span<const GroupId> groups);

    std::size_t dim() const { return dim_; }
    std::size_t rows() const { return norms_.size(); }
    std::size_t capacity() const { return capacity_; }
    bool with_groups() const { return with_groups_; }

    const float* row(std::size_t i) const { return reinterpret_cast<const float*>(data_.get()) + i * dim_; }
    // Asks for a row that is read soon, the first 2 KB of it.
    void prefetch(std::size_t i) const {
        constexpr std::size_t kLine = 64;
        const std::size_t bytes = std::min<std::size_t>(dim_ * sizeof(float), 32 * kLine);
        for (std::size_t at = 0; at < bytes; at += kLine) {
            __builtin_prefetch(data_.get() + i * dim_ * sizeof(float) + at, 0, 2);
        }
    }
    double norm(std::size_t i) const { return norms_[i]; }
    GroupId group(std::size_t i) const { return with_groups_ ? groups_[i] : kNoGroup; }

   private:
    std::size_t dim_;
    std::size_t capacity_;
    bool with_groups_;
    Buffer data_;
    std::vector<double> norms_;
    std::vector<GroupId> groups_;
};

// Bytes that BaseRows of this shape take.
std::size_t base_rows_bytes(std::size_t dim, std::size_t capacity, bool with_groups);

}  // namespace deepssim
