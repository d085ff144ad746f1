#include "guide.hpp"

#include <algorithm>
#include <limits>

#include "compare.hpp"

namespace deepssim {

namespace {

// Panels multiplied at a time: their products stay in the first-level cache.
constexpr std::size_t kPanelsAtOnce = 32;
constexpr std::size_t kGroupsAtOnce = kPanelsAtOnce * simd::kPanelRows;

std::size_t panels_of(std::size_t n_groups) { return (n_groups + simd::kPanelRows - 1) / simd::kPanelRows; }

}  // namespace

Guide::Guide(std::size_t n_groups, std::size_t elements)
    : n_groups_(n_groups),
      elements_(elements),
      panels_(elements == 0 ? 0 : panels_of(n_groups) * simd::kPanelRows * elements) {}

std::size_t Guide::bytes(std::size_t n_groups, std::size_t elements) {
    return panels_of(n_groups) * simd::kPanelRows * elements * sizeof(float);
}

std::size_t Guide::scratch_floats() const { return simd::kMaxProductRows * (elements_ + kGroupsAtOnce); }

std::size_t Guide::most_scratch_floats() { return simd::kMaxProductRows * (kMostElements + kGroupsAtOnce); }

void Guide::set(std::size_t g, std::span<const double> mean) {
    float* panel = panels_.data() + g / simd::kPanelRows * simd::kPanelRows * elements_ + g % simd::kPanelRows;
    for (std::size_t d = 0; d < elements_; ++d) panel[d * simd::kPanelRows] = static_cast<float>(mean[d]);
}

void Guide::find(const simd::Kernels& kernels, const float* images, std::size_t stride, std::size_t count,
                 std::size_t wanted, float* scratch, std::uint32_t* found) const {
    const std::size_t tile = kernels.product_rows;
    float* const products = scratch + tile * elements_;
    for (std::size_t d = 0; d < elements_; ++d) {
        for (std::size_t i = 0; i < tile; ++i) scratch[d * tile + i] = i < count ? images[i * stride + d] : 0.0F;
    }
    float best[simd::kMaxProductRows][kMostFound];
    for (auto& of_query : best) std::fill_n(of_query, kMostFound, -std::numeric_limits<float>::infinity());
    std::fill_n(found, count * wanted, kNone);
    for (std::size_t first = 0; first < n_groups_; first += kGroupsAtOnce) {
        const std::size_t n = std::min(kGroupsAtOnce, n_groups_ - first);
        const std::size_t n_panels = panels_of(n);
        kernels.product(scratch, panels_.data() + first * elements_, n_panels, elements_, products);
        for (std::size_t i = 0; i < count; ++i) {
            const float* of_group = products + i * n_panels * simd::kPanelRows;
            float* values = best[i];
            std::uint32_t* groups = found + i * wanted;
            for (std::size_t panel = 0; panel < n_panels; ++panel) {
                const float* in_panel = of_group + panel * simd::kPanelRows;
                if (!is_any_over(in_panel, values[wanted - 1])) continue;
                const std::size_t start = panel * simd::kPanelRows;
                for (std::size_t lane = 0; lane < std::min(simd::kPanelRows, n - start); ++lane) {
                    const float value = in_panel[lane];
                    if (!(value > values[wanted - 1])) continue;
                    std::size_t place = wanted - 1;
                    for (; place > 0 && value > values[place - 1]; --place) {
                        values[place] = values[place - 1];
                        groups[place] = groups[place - 1];
                    }
                    values[place] = value;
                    groups[place] = static_cast<std::uint32_t>(first + start + lane);
                }
            }
        }
    }
}

}  // namespace deepssim
