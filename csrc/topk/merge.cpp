#include "deepssim/merge.hpp"

#include <algorithm>
#include <numeric>
#include <unordered_map>

namespace deepssim {

namespace {

void keep_uncapped(std::vector<Match>& matches, std::size_t k) {
    if (matches.size() > k) {
        std::nth_element(matches.begin(), matches.begin() + static_cast<std::ptrdiff_t>(k), matches.end(), is_better);
        matches.resize(k);
    }
    std::sort(matches.begin(), matches.end(), is_better);
}

}  // namespace

void keep_best(std::vector<Match>& matches, std::vector<GroupId>& groups, std::size_t k, std::size_t max_per_group) {
    if (max_per_group == 0) {
        keep_uncapped(matches, k);
        groups.clear();
        return;
    }
    std::vector<std::size_t> order(matches.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return is_better(matches[a], matches[b]); });
    std::unordered_map<GroupId, std::size_t> taken;
    std::vector<Match> kept;
    std::vector<GroupId> kept_groups;
    for (const std::size_t i : order) {
        if (kept.size() == k) break;
        if (groups[i] != kNoGroup && ++taken[groups[i]] > max_per_group) continue;
        kept.push_back(matches[i]);
        kept_groups.push_back(groups[i]);
    }
    matches.swap(kept);
    groups.swap(kept_groups);
}

void merge_topk(std::span<const Match> lists, std::span<const GroupId> groups, std::size_t max_per_group,
                std::span<Match> out) {
    std::vector<Match> matches;
    std::vector<GroupId> known;
    for (std::size_t i = 0; i < lists.size(); ++i) {
        if (lists[i].id < 0) continue;  // padding
        matches.push_back(lists[i]);
        if (max_per_group != 0) known.push_back(groups[i]);
    }
    keep_best(matches, known, out.size(), max_per_group);
    std::fill(out.begin(), out.end(), kPadding);
    std::copy(matches.begin(), matches.end(), out.begin());
}

}  // namespace deepssim
