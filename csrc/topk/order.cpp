#include "order.hpp"

#include <algorithm>
#include <numeric>

#include "common/parallel.hpp"

namespace deepssim {

namespace {

// Rows that the width of a part is estimated from.
constexpr std::size_t kLooked = 256;
// Parts that are halved further side by side.
constexpr std::size_t kParts = 32;

class Halving {
   public:
    Halving(std::span<const float> points, std::size_t dim, std::size_t group, std::span<std::uint32_t> order)
        : points_(points), dim_(dim), group_(group), order_(order) {}

    // Halves [first, last) between whole groups, until a part has no more than `most` rows, and hands each to
    // take(first, last).
    template <class Take>
    void halve(std::size_t first, std::size_t last, std::size_t most, const Take& take) const {
        const std::size_t n = last - first;
        if (n <= std::max(most, group_)) return take(first, last);
        const std::size_t groups = (n + group_ - 1) / group_;
        const std::size_t middle = first + groups / 2 * group_;
        const std::size_t axis = widest(first, last);
        const auto at = [&](std::size_t i) { return order_.begin() + static_cast<std::ptrdiff_t>(i); };
        std::nth_element(at(first), at(middle), at(last), [&](std::uint32_t a, std::uint32_t b) {
            const float x = points_[a * dim_ + axis];
            const float y = points_[b * dim_ + axis];
            return x < y || (x == y && a < b);
        });
        halve(first, middle, most, take);
        halve(middle, last, most, take);
    }

   private:
    // The element of the largest variance.
    std::size_t widest(std::size_t first, std::size_t last) const {
        const std::size_t step = std::max<std::size_t>(1, (last - first) / kLooked);
        std::size_t axis = 0;
        double most = -1.0;
        for (std::size_t d = 0; d < dim_; ++d) {
            const double origin = points_[order_[first] * dim_ + d];
            double n = 0.0;
            double sum = 0.0;
            double squares = 0.0;
            for (std::size_t i = first; i < last; i += step, n += 1.0) {
                const double x = points_[order_[i] * dim_ + d] - origin;
                sum += x;
                squares += x * x;
            }
            const double spread = squares - sum * sum / n;
            if (spread > most) {
                most = spread;
                axis = d;
            }
        }
        return axis;
    }

    std::span<const float> points_;
    std::size_t dim_;
    std::size_t group_;
    std::span<std::uint32_t> order_;
};

}  // namespace

void order_by_key(std::span<const float> keys, std::span<std::uint32_t> order) {
    std::iota(order.begin(), order.end(), 0U);
    std::sort(order.begin(), order.end(),
              [&](std::uint32_t a, std::uint32_t b) { return keys[a] < keys[b] || (keys[a] == keys[b] && a < b); });
}

void order_by_place(std::span<const float> points, std::size_t dim, std::size_t group, std::span<std::uint32_t> order,
                    std::size_t threads, const std::function<void()>& poll) {
    std::iota(order.begin(), order.end(), 0U);
    const Halving halving(points, dim, group, order);
    struct Part {
        std::size_t first;
        std::size_t last;
    };
    std::vector<Part> parts;
    halving.halve(0, order.size(), order.size() / kParts,
                  [&](std::size_t first, std::size_t last) { parts.push_back({first, last}); });
    for_each_parallel(
        parts.size(), 1, threads, poll, [] { return 0; },
        [&](std::size_t i, int) {
            halving.halve(parts[i].first, parts[i].last, group, [](std::size_t, std::size_t) {});
        });
}

}  // namespace deepssim
