#include <doctest/doctest.h>

#include <algorithm>
#include <span>
#include <vector>

#include "deepssim/merge.hpp"
#include "oracle.hpp"

namespace deepssim {

namespace {

using testing::below;
using testing::is_same;
using testing::Rng;

struct Candidates {
    std::vector<Match> matches;
    std::vector<GroupId> groups;
};

// Few distinct scores and groups, so that ties and caps bite; ids in a random order.
Candidates make_candidates(Rng& rng, std::size_t n) {
    Candidates out;
    for (std::size_t i = 0; i < n; ++i) {
        out.matches.push_back({static_cast<float>(below(rng, 6)) - 3.0F, static_cast<RowId>(i)});
        out.groups.push_back(static_cast<GroupId>(below(rng, 5)) - 1);
    }
    std::shuffle(out.matches.begin(), out.matches.end(), rng);
    return out;
}

// Takes the best that the cap allows, one at a time.
std::vector<Match> pick(const Candidates& from, std::size_t k, std::size_t cap) {
    std::vector<bool> used(from.matches.size());
    std::vector<std::size_t> taken(16);
    std::vector<Match> out;
    while (out.size() < k) {
        std::size_t best = used.size();
        for (std::size_t i = 0; i < used.size(); ++i) {
            const GroupId group = from.groups[i];
            const bool is_full = cap != 0 && group != kNoGroup && taken[static_cast<std::size_t>(group)] == cap;
            if (used[i] || is_full) continue;
            if (best == used.size() || is_better(from.matches[i], from.matches[best])) best = i;
        }
        if (best == used.size()) break;
        used[best] = true;
        if (from.groups[best] != kNoGroup) ++taken[static_cast<std::size_t>(from.groups[best])];
        out.push_back(from.matches[best]);
    }
    return out;
}

}  // namespace

TEST_SUITE_BEGIN("merge");

TEST_CASE("the order is total: higher score, then lower id; signed zeros are equal") {
    CHECK(is_better({2.0F, 9}, {1.0F, 0}));
    CHECK(is_better({1.0F, 3}, {1.0F, 4}));
    CHECK_FALSE(is_better({1.0F, 4}, {1.0F, 4}));
    CHECK(is_better({-0.0F, 3}, {0.0F, 4}));
    CHECK(is_better({0.0F, 3}, {-0.0F, 4}));
    CHECK(is_better({-1e30F, 3}, kPadding));
}

TEST_CASE("keep_best takes what the rules say") {
    Rng rng(1);
    for (int round = 0; round < 300; ++round) {
        const Candidates all = make_candidates(rng, below(rng, 40));
        for (const std::size_t k : {0U, 1U, 2U, 7U, 16U, 40U, 100U}) {
            for (const std::size_t cap : {0U, 1U, 2U, 5U}) {
                Candidates kept = all;
                keep_best(kept.matches, kept.groups, k, cap);
                CHECK(is_same(kept.matches, pick(all, k, cap)));
                if (cap == 0) continue;
                REQUIRE(kept.groups.size() == kept.matches.size());
                for (std::size_t i = 0; i < kept.matches.size(); ++i) {
                    const auto at = std::find_if(all.matches.begin(), all.matches.end(),
                                                 [&](const Match& m) { return m.id == kept.matches[i].id; });
                    CHECK(all.groups[static_cast<std::size_t>(at - all.matches.begin())] == kept.groups[i]);
                }
            }
        }
    }
}

TEST_CASE("how candidates are cut into parts changes nothing") {
    Rng rng(2);
    for (int round = 0; round < 300; ++round) {
        const Candidates all = make_candidates(rng, 30);
        const std::size_t parts = 1 + below(rng, 6);
        const std::size_t k = 1 + below(rng, 8);
        const std::size_t cap = below(rng, 3);
        std::vector<Match> lists(parts * k, kPadding);
        std::vector<GroupId> groups(parts * k, kNoGroup);
        for (std::size_t part = 0; part < parts; ++part) {
            Candidates own;
            for (std::size_t i = part; i < all.matches.size(); i += parts) {
                own.matches.push_back(all.matches[i]);
                own.groups.push_back(all.groups[i]);
            }
            std::vector<GroupId> own_groups = own.groups;
            keep_best(own.matches, own_groups, k, cap);
            std::copy(own.matches.begin(), own.matches.end(), lists.begin() + static_cast<std::ptrdiff_t>(part * k));
            std::copy(own_groups.begin(), own_groups.end(), groups.begin() + static_cast<std::ptrdiff_t>(part * k));
        }
        std::vector<Match> merged(k);
        merge_topk(lists, cap == 0 ? std::span<const GroupId>() : groups, cap, merged);
        std::vector<Match> expected = pick(all, k, cap);
        expected.resize(k, kPadding);
        CHECK(is_same(merged, expected));
    }
}

TEST_CASE("nothing but padding merges to padding") {
    const std::vector<Match> lists(6, kPadding);
    std::vector<Match> out(3, Match{1.0F, 1});
    merge_topk(lists, {}, 0, out);
    CHECK(is_same(out, std::vector<Match>(3, kPadding)));
    merge_topk({}, {}, 0, out);
    CHECK(is_same(out, std::vector<Match>(3, kPadding)));
    std::vector<Match> none;
    merge_topk(lists, {}, 0, none);
    CHECK(none.empty());
}

TEST_SUITE_END();

}  // namespace deepssim
