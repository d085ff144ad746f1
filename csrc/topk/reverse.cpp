#include "deepssim/reverse.hpp"

#include <limits>

#include "keeper.hpp"

namespace deepssim {

ReverseTopk::ReverseTopk(std::size_t rows, std::size_t k, std::size_t max_per_group)
    : n_rows_(rows), k_(k), max_per_group_(max_per_group), cuts_(std::make_unique<std::atomic<float>[]>(rows)) {
    keepers_.reserve(rows);
    for (std::size_t i = 0; i < rows; ++i) {
        keepers_.emplace_back(k, max_per_group);
        keepers_[i].reset(-std::numeric_limits<float>::infinity());
        cuts_[i].store(keepers_[i].threshold(), std::memory_order_relaxed);
    }
}

ReverseTopk::~ReverseTopk() = default;

void ReverseTopk::add(std::span<const Entry> entries) {
    const std::lock_guard lock(mutex_);
    for (const Entry& entry : entries) {
        const auto row = static_cast<std::size_t>(entry.row);
        keepers_[row].add(entry.query, entry.group);
        cuts_[row].store(keepers_[row].threshold(), std::memory_order_relaxed);
    }
}

void ReverseTopk::read(float* scores, RowId* ids) const {
    const std::lock_guard lock(mutex_);
    for (std::size_t row = 0; row < n_rows_; ++row) {
        const std::span<const Match> best = keepers_[row].finish();
        for (std::size_t place = 0; place < k_; ++place) {
            const Match match = place < best.size() ? best[place] : kPadding;
            scores[row * k_ + place] = match.score;
            ids[row * k_ + place] = match.id;
        }
    }
}

std::size_t ReverseTopk::bytes(std::size_t rows, std::size_t k, std::size_t max_per_group) {
    return rows * (Keeper::bytes(k, max_per_group) + sizeof(std::atomic<float>)) + sizeof(ReverseTopk);
}

}  // namespace deepssim
