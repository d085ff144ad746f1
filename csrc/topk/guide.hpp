// Where a query's best rows are likely to be: the mean of every group in the leading directions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "codes.hpp"
#include "simd/kernels.hpp"

namespace deepssim {

// An estimate without a bound: what comes of it is a threshold to start from, which only scores can set.
class Guide {
   public:
    // The most groups that find() names, and what it names where there is none.
    static constexpr std::size_t kMostFound = 16;
    static constexpr std::uint32_t kNone = 0xFFFFFFFF;

    // The most leading elements that a guide looks at.
    static constexpr std::size_t kMostElements = CodeShape::kMostLead;

    // For rows of `elements` leading elements; 0: names no group.
    Guide(std::size_t n_groups, std::size_t elements);

    std::size_t elements() const { return elements_; }
    void set(std::size_t g, std::span<const double> mean);

    // For each of `count` queries, at images + i * stride, the `wanted` groups of the largest inner products, the
    // largest first, at found + i * wanted. wanted <= min(kMostFound, n_groups), count <= kernels.product_rows;
    // `scratch` holds scratch_floats().
    void find(const simd::Kernels& kernels, const float* images, std::size_t stride, std::size_t count,
              std::size_t wanted, float* scratch, std::uint32_t* found) const;
    std::size_t scratch_floats() const;
    static std::size_t most_scratch_floats();

    static std::size_t bytes(std::size_t n_groups, std::size_t elements);

    template <class Self, class Piece>
    static void for_each_piece(Self& self, const Piece& piece) {
        piece(self.panels_.data(), self.panels_.size() * sizeof(float));
    }

   private:
    std::size_t n_groups_;
    std::size_t elements_;
    std::vector<float> panels_;  // of 16 groups
};

}  // namespace deepssim
