#include "deepssim/tally.hpp"

namespace deepssim {

RowTally::RowTally(std::size_t rows, std::size_t levels)
    : levels_(levels), counts_(rows * levels, 0), best_(rows, kPadding) {}

void RowTally::add(std::span<const Entry> entries, std::span<const float> thresholds) {
    const std::lock_guard lock(mutex_);
    for (const Entry& entry : entries) {
        const auto row = static_cast<std::size_t>(entry.row);
        for (std::size_t level = 0; level < levels_; ++level) {
            if (entry.score >= thresholds[level]) ++counts_[row * levels_ + level];
        }
        const Match candidate{entry.score, entry.query};
        if (best_[row].id < 0 || is_better(candidate, best_[row])) best_[row] = candidate;
    }
}

}  // namespace deepssim
