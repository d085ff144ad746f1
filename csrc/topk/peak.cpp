#include "deepssim/peak.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <mutex>

#include "common/parallel.hpp"
#include "deepssim/isa.hpp"
#include "deepssim/types.hpp"
#include "simd/kernels.hpp"

namespace deepssim {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The sum over threads of each thread's best rate while all of them run.
double rate_of(std::int64_t (*spin)(std::size_t), std::size_t threads) {
    constexpr double kRoundSeconds = 0.02;
    constexpr int kRounds = 8;
    std::mutex mutex;
    double total = 0.0;
    run_parallel(threads,
                 [&](const std::function<bool()>&) {
                     std::size_t rounds = 1000;
                     double best = 0.0;
                     for (int i = 0; i < kRounds;) {
                         const Clock::time_point start = Clock::now();
                         const std::int64_t done = spin(rounds);
                         const double seconds = seconds_since(start);
                         if (seconds < kRoundSeconds) {
                             rounds *= 2;
                             continue;
                         }
                         best = std::max(best, static_cast<double>(done) / seconds);
                         ++i;
                     }
                     const std::lock_guard lock(mutex);
                     total += best;
                 },
                 {});
    return total;
}

}  // namespace

Peak measure_peak(std::string_view isa, std::size_t threads) {
    const simd::Kernels& kernels = simd::kernels_for(resolve_isa(isa).c_str());
    const std::size_t n = threads == 0 ? usable_processors() : threads;
    if (n > 1024) throw InvalidInput("a peak is measured on 1 to 1,024 threads");
    return {rate_of(kernels.spin_integer, n), rate_of(kernels.spin_float, n)};
}

}  // namespace deepssim
