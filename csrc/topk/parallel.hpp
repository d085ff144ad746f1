// Runs tasks on threads of its own for the length of one call.
#pragma once

#include <cstddef>
#include <functional>

namespace deepssim {

// Calls body(should_stop) on `threads` threads; each takes tasks from the caller's own counter. The
// calling thread runs `poll` (may be empty) about every 20 ms meanwhile. The first exception, of a body or
// of poll, makes should_stop() true for the others and is rethrown when all have ended.
void run_parallel(std::size_t threads, const std::function<void(const std::function<bool()>& should_stop)>& body,
                  const std::function<void()>& poll);

// Processors that this process may use (its affinity mask, not the machine's count).
std::size_t usable_processors();

}  // namespace deepssim
