// The order of base rows in a scan. Groups of consecutive rows share one scale and one bound, so rows that are
// alike go together; which order is taken changes how fast a search is, never what it finds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace deepssim {

// Rows 0 to keys.size() - 1, the smallest key first.
void order_by_key(std::span<const float> keys, std::span<std::uint32_t> order);

// Rows 0 to n - 1 of `points` (n, dim), so that each run of `group` rows lies close together: by halving, always
// across the direction in which a part is widest. On `threads` threads; `poll` as in run_parallel.
void order_by_place(std::span<const float> points, std::size_t dim, std::size_t group, std::span<std::uint32_t> order,
                    std::size_t threads, const std::function<void()>& poll);

}  // namespace deepssim
