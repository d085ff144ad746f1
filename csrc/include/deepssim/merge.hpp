// Merging the answers of parts of a base into the answer of the whole.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "deepssim/types.hpp"

namespace deepssim {

// Keeps what a query's answer consists of: in the total order, at most `max_per_group` of one group
// (0: no cap; rows of kNoGroup are never capped), the first k. `matches` and `groups` run in parallel;
// `groups` may be empty when there is no cap. Both are cut to the answer, best first.
// Applying it to any split of the candidates and again to the union gives the same answer.
void keep_best(std::vector<Match>& matches, std::vector<GroupId>& groups, std::size_t k, std::size_t max_per_group);

// Merges `n_lists` answers of k places each (row-major, padded) for one query into `out` (k places,
// padded). Rows must not occur in two lists. `groups` as in keep_best, aligned with `lists`.
void merge_topk(std::span<const Match> lists, std::span<const GroupId> groups, std::size_t max_per_group,
                std::span<Match> out);

}  // namespace deepssim
