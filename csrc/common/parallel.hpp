// Runs tasks on threads of its own for the length of one call.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>

#include "deepssim/types.hpp"

namespace deepssim {

// Calls body(should_stop) on `threads` threads; each takes tasks from the caller's own counter. The
// calling thread runs `poll` (may be empty) about every 20 ms meanwhile. The first exception, of a body or
// of poll, makes should_stop() true for the others and is rethrown when all have ended.
void run_parallel(std::size_t threads, const std::function<void(const std::function<bool()>& should_stop)>& body,
                  const std::function<void()>& poll);

// Calls task(i, state) for every i < n on up to `threads` threads, each with a state of its own from make(), `run`
// consecutive ones at a time.
template <class Make, class Task>
void for_each_parallel(std::size_t n, std::size_t run, std::size_t threads, const std::function<void()>& poll,
                       const Make& make, const Task& task) {
    std::atomic<std::size_t> next{0};
    const auto body = [&](const std::function<bool()>& should_stop) {
        auto state = make();
        for (std::size_t first = next.fetch_add(run); first < n; first = next.fetch_add(run)) {
            if (should_stop()) throw Cancelled();
            for (std::size_t i = first; i < std::min(n, first + run); ++i) task(i, state);
        }
    };
    run_parallel(std::clamp<std::size_t>(n / run, 1, threads), body, poll);
}

// Processors that this process may use (its affinity mask, not the machine's count).
std::size_t usable_processors();

}  // namespace deepssim
