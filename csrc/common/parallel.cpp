#include "parallel.hpp"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "deepssim/exact.hpp"

namespace deepssim {

namespace {

class Crew {
   public:
    void fail(std::exception_ptr error) {
        const std::lock_guard lock(mutex_);
        if (!error_) error_ = std::move(error);
        stop_.store(true, std::memory_order_relaxed);
    }
    bool should_stop() const { return stop_.load(std::memory_order_relaxed); }

    void leave() {
        const std::lock_guard lock(mutex_);
        ++left_;
        changed_.notify_all();
    }

    // Waits until `n` have left; `poll` runs outside the lock.
    void wait_for(std::size_t n, const std::function<void()>& poll) {
        std::unique_lock lock(mutex_);
        while (left_ < n) {
            changed_.wait_for(lock, std::chrono::milliseconds(20));
            if (left_ == n || !poll || should_stop()) continue;
            lock.unlock();
            try {
                poll();
            } catch (...) {
                fail(std::current_exception());
            }
            lock.lock();
        }
    }

    void rethrow() {
        if (error_) std::rethrow_exception(error_);
    }

   private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::atomic<bool> stop_{false};
    std::size_t left_ = 0;
    std::exception_ptr error_;
};

}  // namespace

void run_parallel(std::size_t threads, const std::function<void(const std::function<bool()>&)>& body,
                  const std::function<void()>& poll) {
    Crew crew;
    const auto work = [&] {
        const FloatEnvironment environment;
        try {
            body([&crew] { return crew.should_stop(); });
        } catch (...) {
            crew.fail(std::current_exception());
        }
        crew.leave();
    };
    std::vector<std::jthread> members;
    members.reserve(threads);
    try {
        for (std::size_t i = 0; i < threads; ++i) members.emplace_back(work);
    } catch (...) {  // the system gave no more threads
        if (members.empty()) throw;
    }
    crew.wait_for(members.size(), poll);
    members.clear();
    crew.rethrow();
}

std::size_t usable_processors() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        return static_cast<std::size_t>(std::max(1, CPU_COUNT(&set)));
    }
    return std::max(1U, std::thread::hardware_concurrency());
}

}  // namespace deepssim
