#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "deepssim/merge.hpp"
#include "oracle.hpp"
#include "topk/keeper.hpp"

namespace deepssim {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<Match> kept_by(Keeper& keeper) {
    const auto kept = keeper.finish();
    return {kept.begin(), kept.end()};
}

}  // namespace

TEST_SUITE_BEGIN("keeper");

TEST_CASE("a keeper keeps what one sort of everything would keep") {
    testing::Rng rng(1);
    for (const std::size_t k : {1U, 2U, 7U, 15U, 16U, 17U, 33U, 100U}) {
        for (const std::size_t cap : {0U, 1U, 3U}) {
            Keeper keeper(k, cap);
            for (const std::size_t n : {0U, 1U, 16U, 40U, 500U}) {
                keeper.reset(-kInfinity);  // used again and again, as a worker does
                std::vector<Match> all;
                std::vector<GroupId> groups;
                int wrong = 0;
                for (std::size_t i = 0; i < n; ++i) {
                    const Match match{static_cast<float>(testing::below(rng, 50)), static_cast<RowId>(i)};
                    const auto group = static_cast<GroupId>(testing::below(rng, 12)) - 1;
                    all.push_back(match);
                    groups.push_back(group);
                    keeper.add(match, group);
                    // The threshold must never exclude what the answer so far contains.
                    if (i % 37 == 0) {
                        std::vector<Match> so_far = all;
                        std::vector<GroupId> so_far_groups = groups;
                        keep_best(so_far, so_far_groups, k, cap);
                        wrong += so_far.size() == k && keeper.threshold() > so_far.back().score ? 1 : 0;
                        wrong += so_far.size() < k && keeper.threshold() > -kInfinity ? 1 : 0;
                    }
                }
                keep_best(all, groups, k, cap);
                CAPTURE(k);
                CAPTURE(cap);
                CAPTURE(n);
                CHECK(wrong == 0);
                CHECK(testing::is_same(kept_by(keeper), all));
            }
        }
    }
}

TEST_CASE("a keeper of none takes none and lets nothing through") {
    Keeper keeper(0, 0);
    keeper.reset(-kInfinity);
    CHECK(keeper.threshold() == kInfinity);
    keeper.add({1.0F, 1}, kNoGroup);
    CHECK(kept_by(keeper).empty());
}

TEST_CASE("the floor holds from the start, and equals it are kept") {
    Keeper keeper(3, 0);
    keeper.reset(0.5F);
    CHECK(keeper.threshold() == 0.5F);
    keeper.add({0.49F, 1}, kNoGroup);
    keeper.add({0.5F, 2}, kNoGroup);
    CHECK(testing::is_same(kept_by(keeper), {{0.5F, 2}}));
    CHECK(keeper.threshold() == 0.5F);
}

TEST_CASE("the threshold rises to the last kept score, ties with it still come in") {
    Keeper keeper(2, 0);
    keeper.reset(-kInfinity);
    keeper.add({3.0F, 8}, kNoGroup);
    keeper.add({2.0F, 9}, kNoGroup);
    CHECK(kept_by(keeper).size() == 2);
    CHECK(keeper.threshold() == 2.0F);
    keeper.add({2.0F, 1}, kNoGroup);
    CHECK(testing::is_same(kept_by(keeper), {{3.0F, 8}, {2.0F, 1}}));
}

TEST_SUITE_END();

}  // namespace deepssim
