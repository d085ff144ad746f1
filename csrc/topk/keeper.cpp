#include "keeper.hpp"

#include <algorithm>

#include "deepssim/merge.hpp"

namespace deepssim {

std::size_t Keeper::buffer_size(std::size_t k) { return k == 0 ? 0 : k + std::max<std::size_t>(k, 16); }

std::size_t Keeper::bytes(std::size_t k, std::size_t max_per_group) {
    const std::size_t entries = buffer_size(k);
    // Cutting back under a cap sorts copies and counts groups in a hash table.
    constexpr std::size_t kCappedEntry = 2 * sizeof(GroupId) + sizeof(Match) + sizeof(std::size_t) + 48;
    return sizeof(Keeper) + entries * (sizeof(Match) + (max_per_group == 0 ? 0 : kCappedEntry));
}

Keeper::Keeper(std::size_t k, std::size_t max_per_group) : k_(k), max_per_group_(max_per_group) {
    matches_.reserve(buffer_size(k));
    if (max_per_group != 0) groups_.reserve(buffer_size(k));
}

void Keeper::reset(float floor) {
    matches_.clear();
    groups_.clear();
    floor_ = floor;
    threshold_ = k_ == 0 ? std::numeric_limits<float>::infinity() : floor;
}

void Keeper::add(Match match, GroupId group) {
    if (k_ == 0 || match.score < threshold_) return;
    matches_.push_back(match);
    if (max_per_group_ != 0) groups_.push_back(group);
    if (matches_.size() >= buffer_size(k_)) cut_back();
}

void Keeper::cut_back() {
    keep_best(matches_, groups_, k_, max_per_group_);
    if (matches_.size() == k_ && k_ > 0) threshold_ = std::max(floor_, matches_.back().score);
}

std::span<const Match> Keeper::finish() {
    cut_back();
    return matches_;
}

}  // namespace deepssim
