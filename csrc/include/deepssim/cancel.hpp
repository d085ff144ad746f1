#pragma once

#include <atomic>

namespace deepssim {

// A flag that one thread sets and the workers of a search poll between blocks.
class CancelToken {
   public:
    void cancel() noexcept { flag_.store(true, std::memory_order_relaxed); }
    bool is_cancelled() const noexcept { return flag_.load(std::memory_order_relaxed); }

   private:
    std::atomic<bool> flag_{false};
};

}  // namespace deepssim
